//! Which servers do anything, and which of them reach one another.

/// Which servers are there, and which of them reach one another.
#[derive(Clone, Debug)]
pub(super) struct Machines(pub(super) Vec<Machine>);

#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Machines of different sides do not reach each other.
    pub(super) side: usize,
    pub(super) up: bool,
    /// It does nothing, and what is sent to it waits.
    pub(super) paused: bool,
    /// Grows with each start.
    pub(super) life: u32,
}

impl Machines {
    pub(super) fn get(&self, server: usize) -> Option<&Machine> {
        self.0.get(server)
    }

    /// Whether the server does anything at all.
    pub(super) fn works(&self, server: usize) -> bool {
        self.get(server).is_some_and(|server| server.up && !server.paused)
    }

    /// It starts, where it does not run.
    pub(super) fn start(&mut self, server: usize) {
        if let Some(server) = self.0.get_mut(server).filter(|server| !server.up) {
            server.up = true;
            server.life += 1;
        }
    }

    /// Whether a message of one, which works, reaches the other, and is dealt with at once.
    pub(super) fn reach(&self, one: usize, other: usize) -> bool {
        let side = |server| self.get(server).map(|server: &Machine| server.side);
        self.works(one) && self.works(other) && side(one) == side(other)
    }

    /// A majority of all servers, as this one sees it.
    pub(super) fn quorum(&self, server: usize) -> bool {
        let near = (0..self.0.len()).filter(|other| self.reach(server, *other)).count();
        near > self.0.len() / 2
    }
}
