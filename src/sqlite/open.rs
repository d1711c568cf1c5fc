//! Opening a file: what it is, before anything is written; then the connections to it.
//!
//! The file is never opened past SQLite: closing any other descriptor of it would drop the locks
//! that SQLite holds on it in this process.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rusqlite::{Connection, OpenFlags};

use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::options::SqliteOptions;
use super::schema;
use crate::Error;
use crate::error::Invalid;

/// How long to wait before trying again for a lock that somebody else holds.
const POLL: Duration = Duration::from_millis(2);
/// SQLite's default, which every file of ours has.
const PAGE: u64 = 4096;
/// Statements a connection keeps prepared: more than this store has.
const STATEMENTS: usize = 64;
/// The most KiB of pages that a connection which reads keeps: 100,000 users and what leads to
/// them, so that a decision seldom asks the operating system. Taken only as pages are read.
const CACHE: i64 = 16 << 10;
/// What the write-ahead log is cut down to after a large transaction, in bytes.
const LOG: i64 = 64 << 20;

/// The connection that writes. Makes the file if there is none, brings an older one forward, and
/// refuses what is not ours without touching it (clause DUR-3). Waits for locks on this thread.
pub(super) fn writer(
    path: &Path,
    options: &SqliteOptions,
    deadline: Instant,
) -> Result<Connection, Error> {
    look(path, deadline)
        .and_then(|()| make(path, options, deadline))
        .map_err(|failure| located(path, failure.into()))
}

/// A connection that reads a file which [`writer`] has opened. Waits for nothing.
pub(super) fn reader(path: &Path) -> Result<Connection> {
    // Read-write, so that it can recover the log that a killed writer left; it writes no record.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(path, flags)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    Ok(connection)
}

/// Looks at what is there, and leaves it as it is.
fn look(path: &Path, deadline: Instant) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(refuse(path, "is a directory; give the path of a file"));
        }
        Ok(found) if !found.is_file() => {
            return Err(refuse(path, "is no regular file; give the path of one"));
        }
        // No bytes are what a creation leaves that was cut off at its very beginning.
        Ok(found) if found.len() == 0 => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(refuse(path, "cannot be a path; give another"));
        }
        Err(error) => return Err(Error::unavailable(error).into()),
    }
    // Where a log or a journal holds more, a connection that could write would bring it into the
    // file. Where there is none, one that cannot write leaves an empty log behind.
    let access = if beside(path, "-wal") || beside(path, "-journal") {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let looked = patiently(deadline, || schema::version(&connect(path, flags)?, path));
    match looked.map_err(Error::from) {
        // A creation that was cut off needs its journal rolled back, which a connection that
        // cannot write cannot do. The next one can, and looks again before it writes.
        Ok(_) | Err(Error::Unavailable(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file has one of those that SQLite puts beside it, and not an empty one.
fn beside(path: &Path, suffix: &str) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    fs::metadata(name).is_ok_and(|found| found.len() > 0)
}

fn make(path: &Path, options: &SqliteOptions, deadline: Instant) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(path, flags)?;
    let version = patiently(deadline, || schema::version(&connection, path))?;
    if connection.is_readonly("main")? {
        return Err(Error::unavailable("the file cannot be written").into());
    }
    let mode: String = patiently(deadline, || {
        let set = "PRAGMA journal_mode = WAL";
        Ok(connection.query_row(set, [], |row| row.get(0))?)
    })?;
    if mode != "wal" {
        return Err(Error::unavailable("the file system has no shared memory for a log").into());
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // What is deleted is overwritten: no removed key, and no former state of a user, is left for
    // a damaged page to point at.
    connection.query_row("PRAGMA secure_delete = FAST", [], |_| Ok(()))?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {LOG}"), [], |_| Ok(()))?;
    if version < schema::CURRENT {
        patiently(deadline, || schema::bring_forward(&connection, path))?;
    } else {
        patiently(deadline, || schema::verify(&connection))?;
    }
    if let Some(bytes) = options.max_bytes {
        let pages = (bytes / PAGE).clamp(1, u64::from(u32::MAX - 1));
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "foreign_keys", !defect::is(SqliteDefect::KeepsOrphans))?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // Every page is looked over when it is read.
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Tries until somebody else's lock is gone.
fn patiently<T>(deadline: Instant, mut run: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        let result = run().map_err(Error::from);
        if result.as_ref().err() == Some(&Error::Timeout) && Instant::now() < deadline {
            thread::sleep(POLL);
        } else {
            return Ok(result?);
        }
    }
}

pub(super) fn refuse(path: &Path, problem: &str) -> super::driver::Failure {
    Error::from(Invalid::new("path", format!("{} {problem}", path.display()))).into()
}

/// The error with the file's name in it.
fn located(path: &Path, error: Error) -> Error {
    match error {
        Error::Corrupt(corrupt) => Error::corrupt(
            "database",
            path.display().to_string(),
            format!("{}; restore it from a backup", corrupt.problem()),
        ),
        Error::Unavailable(cause) => Error::unavailable(format!(
            "cannot open {}: {cause}; check that its directory exists and that both can be written",
            path.display()
        )),
        other => other,
    }
}
