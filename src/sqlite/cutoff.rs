use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rusqlite::Connection;

use super::driver::Result;

/// How many steps SQLite's virtual machine makes between two checks of the deadline: some tens of microseconds of work.
const STEPS: i32 = 1000;

/// Interrupts a connection's statement once its deadline has passed, however slow the disk or large the table (clause
/// TIME-1). An interrupted statement is a `Timeout`.
pub(super) struct Cutoff {
    started: Instant,
    /// The deadline in nanoseconds after `started`; `u64::MAX` without one.
    deadline: AtomicU64,
}

impl Cutoff {
    /// Installs the interrupt on `connection`, without a deadline.
    pub(super) fn install(connection: &mut Connection) -> Result<Arc<Self>> {
        let cutoff = Arc::new(Self { started: Instant::now(), deadline: AtomicU64::new(u64::MAX) });
        let asked = Arc::clone(&cutoff);
        connection.progress_handler(STEPS, Some(move || asked.passed()))?;
        Ok(cutoff)
    }

    pub(super) fn set(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.started).as_nanos();
        self.deadline.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.deadline.store(u64::MAX, Ordering::Relaxed);
    }

    fn passed(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        deadline != u64::MAX && self.started.elapsed().as_nanos() >= u128::from(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_cuts_off_until_it_is_cleared() {
        let mut connection = Connection::open_in_memory().unwrap();
        let cutoff = Cutoff::install(&mut connection).unwrap();
        let count = || {
            let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) \
                SELECT count(*) FROM n";
            connection.query_row(long, [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(count(), Ok(100_000));
        cutoff.set(Instant::now());
        let interrupted = count().unwrap_err().sqlite_error_code();
        assert_eq!(interrupted, Some(rusqlite::ErrorCode::OperationInterrupted));
        cutoff.clear();
        assert_eq!(count(), Ok(100_000));
    }
}
