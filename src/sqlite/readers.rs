//! Reads in place: on the thread of whoever asks, over a pool of connections.
//!
//! A point read is microseconds; handing it to another thread costs many times that. So a read
//! never waits inside SQLite (`busy_timeout` 0) and is cut off at its deadline; what must wait
//! for a lock waits outside, in [`SqliteStore::read`](super::SqliteStore).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rusqlite::Connection;

use super::cutoff::Cutoff;
use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::open;
use crate::Error;
use crate::mutation::Mutation;

/// The most connections that are kept while nobody uses them: more than any usual runtime has
/// threads, and a read never waits while it holds one.
const IDLE: usize = 16;

/// A pool of connections that cannot write.
pub(super) struct Readers {
    path: PathBuf,
    /// `None` once closed. A std lock, because nobody awaits or reads while holding it.
    idle: Mutex<Option<Vec<Reader>>>,
    mutation: Mutation<SqliteDefect>,
}

struct Reader {
    connection: Connection,
    cutoff: Arc<Cutoff>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, mutation: Mutation<SqliteDefect>) -> Self {
        Self { path, idle: Mutex::new(Some(Vec::new())), mutation }
    }

    /// Runs `work` on a connection, at most until `deadline`. `Timeout` before the deadline means
    /// that somebody holds a lock: worth another try.
    pub(super) fn run<T>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T, Error> {
        let idle = self.lock().as_mut().and_then(Vec::pop);
        let reader = match idle {
            Some(reader) => reader,
            None => self.open()?,
        };
        reader.cutoff.set(deadline);
        defect::work_for(self.mutation);
        let result = work(&reader.connection).map_err(Error::from);
        // A connection that met damage, or whose transaction did not end, is not used again.
        let sound = !matches!(result, Err(Error::Unavailable(_) | Error::Corrupt(_)));
        if sound
            && reader.connection.is_autocommit()
            && let Some(idle) = self.lock().as_mut().filter(|idle| idle.len() < IDLE)
        {
            idle.push(reader);
        }
        result
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes what is idle now, and later what is in use now.
    pub(super) fn close(&self) {
        if self.mutation.is(SqliteDefect::KeepsReaders) {
            return;
        }
        drop(self.lock().take());
    }

    fn open(&self) -> Result<Reader, Error> {
        let mut connection = open::reader(&self.path)?;
        let cutoff = Cutoff::install(&mut connection)?;
        Ok(Reader { connection, cutoff })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Reader>>> {
        // A vector of connections is sound whatever panicked.
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
    // Nothing was written: the end of a read cannot fail in a way that matters to it, and a
    // connection that is still in its transaction is thrown away.
    let ended = db.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
    drop(ended);
    result
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A statement that takes many seconds.
    fn endless(db: &Connection) -> Result<i64> {
        let sql = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 30000000)
                   SELECT max(x) FROM n";
        Ok(db.query_row(sql, [], |row| row.get(0))?)
    }

    #[test]
    fn a_slow_read_is_cut_off_at_its_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members.db");
        drop(Connection::open(&path).unwrap());
        let readers = Readers::new(path, Mutation::NONE);
        for _ in 0..2 {
            let started = Instant::now();
            let deadline = started + Duration::from_millis(100);
            let result = readers.run(deadline, |db| one_state(db, endless));
            assert_eq!(result, Err(Error::Timeout));
            let took = started.elapsed();
            assert!(took >= Duration::from_millis(100), "{took:?}");
            assert!(took < Duration::from_millis(350), "{took:?}");
        }
        // And the connection serves the next one.
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

    /// Readers of a file, which is there as long as its directory is kept.
    fn pool() -> (tempfile::TempDir, Readers) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members.db");
        drop(Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)"));
        (dir, Readers::new(path, Mutation::NONE))
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

    /// Uses so many connections, each while the others are in use.
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
