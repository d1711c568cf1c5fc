//! Chooses the server to which a client goes when it leaves one.

use std::sync::{Mutex, PoisonError};

use async_nats::{Server, ServerAddr};

/// The servers, in the order in which they were last tried.
///
/// The driver alone would take any server, even the one that it has just left. That server may be cut off from the
/// others and look well.
#[derive(Default)]
pub(super) struct Rotation(Mutex<Vec<ServerAddr>>);

impl Rotation {
    /// Returns the next server: of the servers with the fewest refused attempts in a row, the one that the client left
    /// longest ago. `None` before the first connection, when the driver tries all servers.
    pub(super) fn next(&self, servers: &[Server]) -> Option<ServerAddr> {
        if !servers.iter().any(|server| server.did_connect) {
            return None;
        }
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = |server: &Server| match tried.iter().position(|addr| *addr == server.addr) {
            Some(at) => at + 2,
            // At first only the driver knows the connected server.
            None => usize::from(server.did_connect),
        };
        let next = servers.iter().min_by_key(|s| (s.failed_attempts, turn(s)))?.addr.clone();
        tried.retain(|addr| *addr != next);
        tried.push(next.clone());
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, did_connect: bool, failed_attempts: usize) -> Server {
        let addr = format!("nats://{name}:4222").parse().unwrap();
        Server { addr, failed_attempts, did_connect, is_discovered: false, last_error: None }
    }

    fn next(rotation: &Rotation, servers: &[Server]) -> Option<String> {
        rotation.next(servers).map(|addr| addr.host().to_owned())
    }

    #[test]
    fn the_driver_chooses_where_to_connect_first() {
        let servers = [server("a", false, 0), server("b", false, 0)];
        assert_eq!(next(&Rotation::default(), &servers), None);
    }

    #[test]
    fn each_has_its_turn_and_the_one_where_we_are_is_the_last() {
        for at in 0..3 {
            let names = ["a", "b", "c"];
            let servers = [0, 1, 2].map(|n| server(names[n], n == at, 0));
            let rotation = Rotation::default();
            let order: Vec<_> = (0..6).map(|_| next(&rotation, &servers).unwrap()).collect();
            assert_eq!(order[2], names[at], "{order:?}");
            assert_ne!(order[0], order[1]);
            assert_eq!(order[..3], order[3..], "the same again");
        }
    }

    #[test]
    fn one_that_refuses_waits_for_the_others() {
        let rotation = Rotation::default();
        let servers = [server("a", true, 0), server("b", false, 1), server("c", false, 0)];
        assert_eq!(next(&rotation, &servers).unwrap(), "c");
        assert_eq!(next(&rotation, &servers).unwrap(), "a");
        assert_eq!(next(&rotation, &servers).unwrap(), "c");
    }
}
