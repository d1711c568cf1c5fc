//! Reads on the caller's thread, over a pool of connections.
//!
//! A point read takes microseconds; handing it to another thread would take many times as long. So a read never waits
//! inside SQLite (`busy_timeout` 0) and is interrupted at its deadline. [`SqliteStore::read`](super::SqliteStore) waits
//! for locks, outside of SQLite.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rusqlite::Connection;

use super::cutoff::Cutoff;
use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::open;
use super::place::Place;
use crate::Error;
use crate::mutation::Mutation;

/// The most idle connections that are kept: more than a usual runtime has threads, and a read never waits while it uses
/// one.
const IDLE: usize = 16;

/// A pool of reading connections.
pub(super) struct Readers {
    /// The files; empty until they are open.
    place: OnceLock<Place>,
    /// The idle connections; `None` once closed. A std lock, never held across an await or a read.
    idle: Mutex<Option<Vec<Reader>>>,
    mutation: Mutation<SqliteDefect>,
}

struct Reader {
    connection: Connection,
    cutoff: Arc<Cutoff>,
}

impl Readers {
    pub(super) fn new(mutation: Mutation<SqliteDefect>) -> Self {
        Self { place: OnceLock::new(), idle: Mutex::new(Some(Vec::new())), mutation }
    }

    /// Sets the files to read. Only the first call counts.
    pub(super) fn settle(&self, place: Place) {
        drop(self.place.set(place));
    }

    /// The files, once they are open.
    pub(super) fn place(&self) -> Result<&Place, Error> {
        self.place.get().ok_or_else(|| Error::unavailable("the file is not open yet"))
    }

    /// Runs `work` on a connection until `deadline` at most. A `Timeout` before the deadline means that another
    /// connection holds a lock, so another try may help.
    pub(super) fn run<T>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T, Error> {
        self.run_some(deadline, |db| work(db).map_err(Error::from), |done| done.as_ref().err())?
    }

    /// As [`run`](Self::run), for work whose result may contain both answers and errors. `wrong` returns the first
    /// error in a result.
    pub(super) fn run_some<T>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Connection) -> T,
        wrong: impl FnOnce(&T) -> Option<&Error>,
    ) -> Result<T, Error> {
        let place = self.place()?;
        place.lost()?;
        let idle = self.lock().as_mut().and_then(Vec::pop);
        let reader = match idle {
            Some(reader) => reader,
            None => match Self::open(place) {
                Ok(reader) => reader,
                Err(error) => return Err(place.check().err().unwrap_or(error)),
            },
        };
        reader.cutoff.set(deadline);
        defect::work_for(self.mutation);
        let result = work(&reader.connection);
        // The check comes after the read, so that it also covers a connection that the read has just opened. Neither an
        // answer nor an error from replaced files may be returned.
        if !self.mutation.is(SqliteDefect::TrustsTheName) {
            place.check()?;
        }
        // A connection that met damage, or whose transaction did not end, is dropped.
        let sound = !matches!(wrong(&result), Some(Error::Unavailable(_) | Error::Corrupt(_)));
        if sound
            && reader.connection.is_autocommit()
            && let Some(idle) = self.lock().as_mut().filter(|idle| idle.len() < IDLE)
        {
            idle.push(reader);
        }
        Ok(result)
    }

    /// Closes the idle connections now, and those in use after their reads.
    pub(super) fn close(&self) {
        if self.mutation.is(SqliteDefect::KeepsReaders) {
            return;
        }
        drop(self.lock().take());
    }

    fn open(place: &Place) -> Result<Reader, Error> {
        let mut connection = open::reader(place.names())?;
        let cutoff = Cutoff::install(&mut connection)?;
        Ok(Reader { connection, cutoff })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Reader>>> {
        // A panic leaves the vector of connections valid.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs several statements in one read transaction, so that they see one state (clause LIST-2).
pub(super) fn one_state<T>(
    db: &Connection,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    if defect::is(SqliteDefect::ReadsStateByState) {
        return work(db);
    }
    db.prepare_cached("BEGIN")?.execute([])?;
    let result = work(db);
    // The read wrote nothing, so a failed end of the transaction does not change its result. A connection that is still
    // in its transaction is dropped.
    let ended = db.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
    drop(ended);
    result
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::config::SqliteConfig;
    use super::*;

    /// A statement that takes many seconds.
    fn endless(db: &Connection) -> Result<i64> {
        let sql = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 30000000)
                   SELECT max(x) FROM n";
        Ok(db.query_row(sql, [], |row| row.get(0))?)
    }

    #[test]
    fn a_slow_read_is_cut_off_at_its_deadline() {
        let (_dir, readers) = pool();
        for _ in 0..2 {
            let started = Instant::now();
            let deadline = started + Duration::from_millis(100);
            let result = readers.run(deadline, |db| one_state(db, endless));
            assert_eq!(result, Err(Error::Timeout));
            let took = started.elapsed();
            assert!(took >= Duration::from_millis(100), "{took:?}");
            assert!(took < Duration::from_millis(350), "{took:?}");
        }
        // The connection serves the next read.
        let one = readers.run(Instant::now() + Duration::from_secs(5), |db| {
            Ok(db.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?)
        });
        assert_eq!(one, Ok(1));
        assert_eq!(readers.lock().as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn a_closed_pool_keeps_nothing() {
        let (_dir, readers) = pool();
        let deadline = Instant::now() + Duration::from_secs(5);
        let close = |_: &Connection| {
            readers.close();
            Ok(())
        };
        readers.run(deadline, close).unwrap();
        assert!(readers.lock().is_none());
    }

    /// Makes a pool of readers of a new file. The file and its log exist as long as the first value is kept.
    fn pool() -> ((Connection, tempfile::TempDir), Readers) {
        let dir = tempfile::tempdir().unwrap();
        let readers = Readers::new(Mutation::NONE);
        let deadline = Instant::now() + Duration::from_secs(5);
        let path = dir.path().join("members.db");
        let (place, writer) = open::writer(&SqliteConfig::new(&path), deadline).unwrap();
        readers.settle(place);
        ((writer, dir), readers)
    }

    fn idle(readers: &Readers) -> usize {
        readers.lock().as_ref().map_or(0, Vec::len)
    }

    #[test]
    fn a_connection_that_met_damage_or_did_not_end_its_transaction_is_not_used_again() {
        let (_dir, readers) = pool();
        let soon = || Instant::now() + Duration::from_secs(5);
        let damaged = |_: &Connection| Err::<(), _>(Error::corrupt("users", "x", "damaged").into());
        readers.run(soon(), damaged).unwrap_err();
        assert_eq!(idle(&readers), 0);
        readers.run(soon(), |db| Ok(db.execute_batch("BEGIN")?)).unwrap();
        assert_eq!(idle(&readers), 0);
        readers.run(soon(), |_| Ok(())).unwrap();
        assert_eq!(idle(&readers), 1);
    }

    /// Nests `depth` reads, so that `depth` connections are in use at the same time.
    fn nested(readers: &Readers, depth: usize) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let inner = |_: &Connection| {
            if depth > 1 {
                nested(readers, depth - 1);
            }
            Ok(())
        };
        readers.run(deadline, inner).unwrap();
    }

    #[test]
    fn no_more_connections_are_kept_than_threads_use() {
        let (_dir, readers) = pool();
        nested(&readers, IDLE + 2);
        assert_eq!(idle(&readers), IDLE);
    }
}
