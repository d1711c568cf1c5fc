//! How long reads take, and so after how long a replica that has not answered is asked no longer alone.
//!
//! The servers give a read to any replica. If one of them hangs, the others go on giving it reads, for two minutes with
//! nats-server's default settings. So a read that is late is sent again, and the first answer counts. (Dean and Barroso,
//! "The Tail at Scale", 2013, call this a hedged request.)

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The usual time of a client's reads of one bucket: listings apart from reads of single keys.
#[derive(Default)]
pub(super) struct ReadPace([Usual; 2]);

/// A moving average of times, in microseconds; 0 before the first.
#[derive(Default)]
struct Usual(AtomicU64);

/// A read is late if it takes this many times the usual time.
const LATE: u32 = 3;
/// The least time after which a read is late.
const LEAST: Duration = Duration::from_millis(1);
/// The usual time before any read was answered.
const FIRST: Duration = Duration::from_millis(10);

impl ReadPace {
    fn of(&self, filters: &[String]) -> &Usual {
        let [keys, listings] = &self.0;
        if filters.iter().any(|filter| filter.ends_with('>')) { listings } else { keys }
    }

    /// Notes how long a read took.
    pub(super) fn took(&self, filters: &[String], time: Duration) {
        let usual = &self.of(filters).0;
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let before = usual.load(Ordering::Relaxed);
        // Concurrent reads may overwrite each other's times. An average does not suffer from that.
        let after = if before == 0 { time } else { before - before / 8 + time / 8 };
        usual.store(after, Ordering::Relaxed);
    }

    /// The time after which such a read is late.
    pub(super) fn late(&self, filters: &[String]) -> Duration {
        let usual = match self.of(filters).0.load(Ordering::Relaxed) {
            0 => FIRST,
            usual => Duration::from_micros(usual),
        };
        usual.saturating_mul(LATE).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_late_at_some_times_the_usual_time() {
        let (pace, key, listing) = (ReadPace::default(), ["a.b".to_owned()], ["a.>".to_owned()]);
        assert_eq!(pace.late(&key), FIRST * LATE);
        pace.took(&key, Duration::from_micros(100));
        assert_eq!(pace.late(&key), LEAST);
        for _ in 0..100 {
            pace.took(&key, Duration::from_millis(8));
        }
        let late = pace.late(&key);
        assert!(late > Duration::from_millis(23) && late <= Duration::from_millis(24), "{late:?}");
        assert_eq!(pace.late(&listing), FIRST * LATE, "listings have a pace of their own");
    }
}
