//! The states of the simulated servers, and which of them reach one another.

/// All simulated servers.
#[derive(Clone, Debug)]
pub(super) struct Machines(pub(super) Vec<Machine>);

#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Machines on different sides do not reach each other.
    pub(super) side: usize,
    pub(super) up: bool,
    /// Whether the server is paused. A paused server does nothing, and messages to it wait.
    pub(super) paused: bool,
    /// The number of the server's life, which grows with each start.
    pub(super) life: u32,
}

impl Machines {
    pub(super) fn get(&self, server: usize) -> Option<&Machine> {
        self.0.get(server)
    }

    /// Whether the server runs and is not paused.
    pub(super) fn works(&self, server: usize) -> bool {
        self.get(server).is_some_and(|server| server.up && !server.paused)
    }

    /// Starts the server, unless it runs.
    pub(super) fn start(&mut self, server: usize) {
        if let Some(server) = self.0.get_mut(server).filter(|server| !server.up) {
            server.up = true;
            server.life += 1;
        }
    }

    /// Whether both servers run and messages between them arrive.
    pub(super) fn reach(&self, one: usize, other: usize) -> bool {
        let side = |server| self.get(server).map(|server: &Machine| server.side);
        self.works(one) && self.works(other) && side(one) == side(other)
    }

    /// Whether this server reaches a majority of all servers. The server counts itself.
    pub(super) fn quorum(&self, server: usize) -> bool {
        let near = (0..self.0.len()).filter(|other| self.reach(server, *other)).count();
        near > self.0.len() / 2
    }
}
