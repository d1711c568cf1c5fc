//! Opening a file: what it is, before anything is written; then the connections to it.
//!
//! The file is never opened past SQLite: closing any other descriptor of it would drop the locks
//! that SQLite holds on it in this process.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::log;
use super::options::SqliteOptions;
use super::place::{Names, Place};
use super::schema;
use crate::Error;

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

/// The connection that writes, and the files it has opened. Makes the file if there is none,
/// brings an older one forward, and refuses what is not ours without touching it (clause DUR-3).
/// Waits for locks on this thread.
pub(super) fn writer(
    path: &Path,
    options: &SqliteOptions,
    deadline: Instant,
) -> Result<(Place, Connection), Error> {
    let open = || {
        options.check()?;
        let names = Names::resolve(path)?;
        look(&names, options)?;
        Place::hold(names.clone(), || make(&names, options, deadline))
    };
    open().map_err(|failure| located(path, failure.into()))
}

/// A connection that reads a file which [`writer`] has opened. Waits for nothing.
pub(super) fn reader(names: &Names) -> Result<Connection> {
    // Read-write, so that it can recover the log that a killed writer left; it writes no record.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(&names.file, flags)?;
    // To bring the log into the file is the writer's: it knows whether they still belong together.
    leave_the_log(&connection, true)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    Ok(connection)
}

/// Whether the connection, when it closes and is the last one, leaves the log beside the file
/// rather than bring it into the file.
pub(super) fn leave_the_log(connection: &Connection, leave: bool) -> Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leave)?;
    Ok(())
}

/// Looks at what is there, and leaves it as it is, byte for byte.
fn look(names: &Names, options: &SqliteOptions) -> Result<()> {
    // The log first: whoever makes a store makes the file before it.
    let (log, journal) = (holds_something(&names.log), holds_something(&names.journal));
    let found = match fs::symlink_metadata(&names.file) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::unavailable(error).into()),
    };
    if let Some(found) = &found {
        if found.is_dir() {
            return Err(names.refuse("is a directory; give the path of a file"));
        }
        if !found.is_file() {
            return Err(names.refuse("is no regular file; give the path of one"));
        }
        names.is_one(found)?;
    }
    // No bytes are what a creation leaves that was cut off at its very beginning.
    if found.is_none_or(|found| found.len() == 0) {
        if log {
            let problem = "is missing or empty, and its log (-wal) is there";
            return Err(Error::corrupt("database", "file", problem).into());
        }
        return if options.must_exist { Err(no_store(names)) } else { Ok(()) };
    }
    // What the log says is newer than what the file says.
    if log && let Some(head) = log::head(&names.log).map_err(Error::unavailable)? {
        return schema::owned(names, head.application, head.version, || Ok(!head.empty)).map(drop);
    }
    match read_past_locks(names, journal || log).map_err(Error::from) {
        // A creation that was cut off: its journal is rolled back by the next connection, which
        // looks again before it writes.
        Err(Error::Corrupt(_)) if journal && begun_empty(&names.journal) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// The version that the file alone says it has. Neither locks, nor shared memory, nor recovery: no
/// byte is written. Somebody may be writing the file meanwhile (`busy`), so that its length may
/// not be what its head says.
fn read_past_locks(names: &Names, busy: bool) -> Result<usize> {
    let mut uri = String::from("file:");
    for byte in names.file.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            // To write to a String cannot fail.
            _ => drop(write!(uri, "%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let db = connect(Path::new(&uri), flags)?;
    if busy {
        db.pragma_update(None, "writable_schema", true)?;
    }
    schema::version(&db, names)
}

/// Whether there is such a file, and not an empty one.
fn holds_something(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() > 0)
}

/// Whether a journal belongs to a file that was empty before.
fn begun_empty(journal: &Path) -> bool {
    let mut head = [0; 20];
    let read =
        fs::File::open(journal).and_then(|mut file| io::Read::read_exact(&mut file, &mut head));
    read.is_ok() && head.ends_with(&[0; 4])
}

fn no_store(names: &Names) -> super::driver::Failure {
    names.refuse(
        "holds no store, and must_exist says that it does; see that its volume is mounted and \
         that the path is right",
    )
}

fn make(names: &Names, options: &SqliteOptions, deadline: Instant) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let new = create(&names.file, options.mode)?;
    let connection = connect(&names.file, flags)?;
    if new {
        set_mode(&names.file, options.mode)?;
    }
    // Until it is known whose the log is.
    leave_the_log(&connection, true)?;
    let version = patiently(deadline, || schema::version(&connection, names))?;
    leave_the_log(&connection, false)?;
    if connection.is_readonly("main")? {
        return Err(Error::unavailable("the file cannot be written").into());
    }
    if version == 0 {
        if options.must_exist {
            return Err(no_store(names));
        }
        // Before there is a log, so that the file itself says from its first commit whose it is.
        // EXTRA syncs the end of the journal as well, which would undo it all.
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        patiently(deadline, || schema::bring_forward(&connection, names))?;
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
    if (1..schema::CURRENT).contains(&version) {
        patiently(deadline, || schema::bring_forward(&connection, names))?;
    } else {
        // Reads, so the log and its shared memory are open from here on.
        patiently(deadline, || schema::verify(&connection))?;
    }
    if let Some(bytes) = options.max_bytes {
        let pages = (bytes / PAGE).clamp(1, u64::from(u32::MAX - 1));
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    Ok(connection)
}

/// Makes an empty file that nobody else may read, without opening it: to close it again would
/// drop the locks of somebody here who has been faster. Says whether there was none; where this
/// cannot be done, SQLite makes the file.
#[cfg(target_os = "linux")]
fn create(file: &Path, mode: u32) -> Result<bool> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    match mknodat(CWD, file, FileType::RegularFile, Mode::from_raw_mode(mode), 0) {
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Ok(()) => Ok(true),
        Err(_) => Ok(!file.try_exists().map_err(Error::unavailable)?),
    }
}

#[cfg(not(target_os = "linux"))]
fn create(file: &Path, _: u32) -> Result<bool> {
    Ok(!file.try_exists().map_err(Error::unavailable)?)
}

/// Sets the mode whatever the umask is. SQLite gives the log and the shared memory the same.
#[cfg(unix)]
fn set_mode(file: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    Ok(fs::set_permissions(file, fs::Permissions::from_mode(mode)).map_err(Error::unavailable)?)
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> Result<()> {
    Ok(())
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
