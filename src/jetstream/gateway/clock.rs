//! A clock that counts suspended time, for bounds that a suspension must not extend (clause AUTH-4).
//!
//! On Linux, [`std::time::Instant`] and tokio's timers stand still while the machine is suspended.

use std::time::Duration;

#[cfg(feature = "testing")]
use std::sync::Arc;
#[cfg(feature = "testing")]
use std::sync::atomic::{AtomicU64, Ordering};

/// Time since some moment in the past, suspended time included.
#[derive(Debug, Default)]
pub(in crate::jetstream) struct Clock {
    /// Where simulated time began; `None` for the machine's own clock.
    #[cfg(feature = "testing")]
    simulated: Option<tokio::time::Instant>,
    /// Milliseconds of pretended suspension, for tests.
    #[cfg(feature = "testing")]
    suspended: Arc<AtomicU64>,
}

impl Clock {
    /// A clock of simulated time.
    #[cfg(feature = "testing")]
    pub(in crate::jetstream) fn simulated() -> Self {
        Self { simulated: Some(tokio::time::Instant::now()), ..Self::default() }
    }

    /// Another clock of the same simulated machine.
    #[cfg(feature = "testing")]
    pub(in crate::jetstream) fn beside(&self) -> Self {
        Self { simulated: self.simulated, suspended: Arc::clone(&self.suspended) }
    }

    /// Moves forward at once, as after a suspension.
    #[cfg(feature = "testing")]
    pub(in crate::jetstream) fn suspend(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.suspended.fetch_add(millis, Ordering::SeqCst);
    }

    pub(in crate::jetstream) fn now(&self) -> Duration {
        #[cfg(feature = "testing")]
        return self.awake() + Duration::from_millis(self.suspended.load(Ordering::SeqCst));
        #[cfg(not(feature = "testing"))]
        return self.awake();
    }

    /// The time without the pretended suspension.
    #[cfg_attr(not(feature = "testing"), allow(clippy::unused_self, reason = "one clock for all"))]
    pub(in crate::jetstream) fn awake(&self) -> Duration {
        #[cfg(feature = "testing")]
        return self.simulated.map_or_else(machine, |began| began.elapsed());
        #[cfg(not(feature = "testing"))]
        return machine();
    }
}

#[cfg(unix)]
fn machine() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    // On systems other than Linux and Android the monotonic clock counts suspended time.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = ClockId::Monotonic;
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(not(unix))]
fn machine() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;

    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGAN.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_while_the_machine_is_suspended() {
        let clock = Clock::default();
        let before = clock.now();
        clock.suspend(Duration::from_secs(15));
        assert!(clock.now() >= before + Duration::from_secs(15));
    }

    /// The time since the machine was started, as the kernel reports it, suspended time included.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_machines_clock_counts_from_its_start() {
        let up = std::fs::read_to_string("/proc/uptime").unwrap();
        let up: f64 = up.split_whitespace().next().unwrap().parse().unwrap();
        assert!((machine().as_secs_f64() - up).abs() < 5.0);
    }
}
