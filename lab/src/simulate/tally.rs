use std::ops::AddAssign;

use membership::Reached;

/// Counts of what simulated histories reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// How many histories.
    pub histories: u64,
    /// How many calls were made.
    pub calls: u64,
    /// Writes that ended in `Timeout` or `Unavailable`.
    pub unknown: u64,
    /// Writes that got no answer to a compare-and-set, and found out its outcome.
    pub resolved: u64,
    /// Clients that were stopped dead.
    pub crashes: u64,
    /// Calls that were dropped before they ended.
    pub dropped: u64,
    /// Rekeys that lost to another change of the room.
    pub contended: u64,
    /// Histories in which the data went back to an earlier state.
    pub went_back: u64,
    /// Histories in which the users vanished.
    pub vanished: u64,
    /// Histories in which older servers took over for a while.
    pub downgraded: u64,
    /// Histories in which decisions came from memory and the machine was suspended.
    pub suspended: u64,
    /// The counts of the simulated servers, such as lost answers and stale reads.
    pub reached: Reached,
}

impl Tally {
    /// Each count, and what it counts.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, u64)> {
        let mut lines = vec![
            ("calls", self.calls),
            ("rekeys that came too late", self.contended),
            ("writes with an unknown outcome", self.unknown),
            ("writes in doubt, resolved", self.resolved),
            ("clients stopped dead", self.crashes),
            ("calls dropped", self.dropped),
            ("data that went back", self.went_back),
            ("users who vanished", self.vanished),
            ("older servers", self.downgraded),
            ("suspended machines", self.suspended),
        ];
        lines.extend(self.reached.lines());
        lines
    }

    /// The events that never happened: a run of many histories must meet all of them.
    #[must_use]
    pub fn missed(&self) -> Vec<&'static str> {
        self.lines().into_iter().filter(|(_, count)| *count == 0).map(|(what, _)| what).collect()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.calls += other.calls;
        self.unknown += other.unknown;
        self.resolved += other.resolved;
        self.crashes += other.crashes;
        self.dropped += other.dropped;
        self.contended += other.contended;
        self.went_back += other.went_back;
        self.vanished += other.vanished;
        self.downgraded += other.downgraded;
        self.suspended += other.suspended;
        self.reached += other.reached;
    }
}
