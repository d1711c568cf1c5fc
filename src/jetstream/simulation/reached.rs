use std::ops::AddAssign;

/// How often each event happened in a simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
#[allow(missing_docs, reason = "each is what its name says, and `lines` says it in words")]
pub struct Reached {
    pub exchanges: u64,
    pub barriers: u64,
    pub barriers_that_waited: u64,
    pub stale_reads: u64,
    pub reads_nobody_answered: u64,
    pub refused: u64,
    pub refused_by_former_leaders: u64,
    pub refused_yet_committed: u64,
    pub answers_lost: u64,
    pub late_writes: u64,
    pub late_writes_refused: u64,
    pub unanswered_commits: u64,
    pub feed_gaps: u64,
    pub feeds_begun: u64,
    pub purges_undone: u64,
    pub changes_lost: u64,
}

impl Reached {
    /// Each count, and what it counts.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("exchanges with servers", self.exchanges),
            ("barriers", self.barriers),
            ("barriers that were not acknowledged at once", self.barriers_that_waited),
            ("reads answered by a replica that was behind", self.stale_reads),
            ("reads that no replica within reach answers", self.reads_nobody_answered),
            ("writes refused", self.refused),
            ("writes refused by a former leader", self.refused_by_former_leaders),
            ("writes refused by a former leader, yet made", self.refused_yet_committed),
            ("writes made whose answer was lost", self.answers_lost),
            ("writes that arrived after their writer gave up", self.late_writes),
            ("of these, refused by what they expected", self.late_writes_refused),
            ("compare-and-sets without an answer", self.unanswered_commits),
            ("deliveries to feeds left out, repeated or stopped", self.feed_gaps),
            ("feeds begun", self.feeds_begun),
            ("purged messages that came back", self.purges_undone),
            ("changes lost by servers that went back", self.changes_lost),
        ]
    }
}

impl AddAssign for Reached {
    fn add_assign(&mut self, other: Self) {
        self.exchanges += other.exchanges;
        self.barriers += other.barriers;
        self.barriers_that_waited += other.barriers_that_waited;
        self.stale_reads += other.stale_reads;
        self.reads_nobody_answered += other.reads_nobody_answered;
        self.refused += other.refused;
        self.refused_by_former_leaders += other.refused_by_former_leaders;
        self.refused_yet_committed += other.refused_yet_committed;
        self.answers_lost += other.answers_lost;
        self.late_writes += other.late_writes;
        self.late_writes_refused += other.late_writes_refused;
        self.unanswered_commits += other.unanswered_commits;
        self.feed_gaps += other.feed_gaps;
        self.feeds_begun += other.feeds_begun;
        self.purges_undone += other.purges_undone;
        self.changes_lost += other.changes_lost;
    }
}
