//! Which server a client goes to when it leaves one.

use std::sync::{Mutex, PoisonError};

use async_nats::{Server, ServerAddr};

/// The servers in the order in which they were tried, the last one last.
///
/// The driver takes any of them, also the one that it has just left, which may be cut off from the
/// others and look well.
#[derive(Default)]
pub(super) struct Rotation(Mutex<Vec<ServerAddr>>);

impl Rotation {
    /// Of those that refused the fewest attempts in a row the one that was left longest ago; `None`
    /// before the first connection, when the driver tries them all.
    pub(super) fn next(&self, servers: &[Server]) -> Option<ServerAddr> {
        if !servers.iter().any(|server| server.did_connect) {
            return None;
        }
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = |server: &Server| match tried.iter().position(|addr| *addr == server.addr) {
            Some(at) => at + 2,
            // At first only the driver knows where we are.
            None => usize::from(server.did_connect),
        };
        let next = servers.iter().min_by_key(|s| (s.failed_attempts, turn(s)))?.addr.clone();
        tried.retain(|addr| *addr != next);
        tried.push(next.clone());
        Some(next)
    }
}
