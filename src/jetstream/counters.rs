use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of events in one client: [`JetStreamStore::counters`](crate::JetStreamStore::counters). Clones share the
/// counts, and keep them after the client is closed.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    waits: AtomicU64,
    retries: AtomicU64,
    stale: AtomicU64,
}

impl Counters {
    /// Barriers that had to wait, because several were in flight.
    #[must_use]
    pub fn barriers_that_waited(&self) -> u64 {
        self.0.waits.load(Ordering::Relaxed)
    }

    /// Exchanges with a server that were tried again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.0.retries.load(Ordering::Relaxed)
    }

    /// Stale replies: the replica lagged behind the barrier.
    #[must_use]
    pub fn stale_replies(&self) -> u64 {
        self.0.stale.load(Ordering::Relaxed)
    }

    pub(super) fn barrier_waits(&self) {
        self.0.waits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn retry(&self) {
        self.0.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stale_reply(&self) {
        self.0.stale.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_by_itself_and_together_with_clones() {
        let counters = Counters::default();
        assert_eq!(counters.barriers_that_waited(), 0);
        counters.barrier_waits();
        for _ in 0..2 {
            counters.clone().retry();
        }
        for _ in 0..3 {
            counters.stale_reply();
        }
        assert_eq!(counters.barriers_that_waited(), 1);
        assert_eq!(counters.retries(), 2);
        assert_eq!(counters.stale_replies(), 3);
    }
}
