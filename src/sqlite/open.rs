//! Opens a file: checks it before anything is written, then makes the connections.
//!
//! Only SQLite opens the file: closing any other descriptor of it would release the locks that SQLite holds on it in
//! this process.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::config::SqliteConfig;
use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::log;
use super::place::{Names, Place};
use super::schema;
use crate::Error;

/// The wait between two attempts to get a lock.
const POLL: Duration = Duration::from_millis(2);
/// SQLite's default page size, which all our files have.
const PAGE: u64 = 4096;
/// The most prepared statements that a connection keeps: more than this store has.
const STATEMENTS: usize = 64;
/// The most KiB of pages that a reading connection caches: 100,000 users with their index, so that a decision seldom
/// asks the operating system. Memory is taken only as pages are read.
const CACHE: i64 = 16 << 10;
/// The bytes to which the write-ahead log is truncated after a large transaction.
const LOG: i64 = 64 << 20;

/// Opens the writing connection, and returns it with its files. Makes the file if there is none, migrates a file of an
/// older version, and refuses another application's file without touching it (clause DUR-3). Blocks the thread while
/// another connection holds a lock.
pub(super) fn writer(
    config: &SqliteConfig,
    deadline: Instant,
) -> Result<(Place, Connection), Error> {
    let open = || {
        let names = Names::resolve(&config.path)?;
        look(&names, config)?;
        Place::hold(names.clone(), || make(&names, config, deadline))
    };
    open().map_err(|failure| located(&config.path, failure.into()))
}

/// Opens a reading connection to a file that [`writer`] has opened. Never waits for a lock.
pub(super) fn reader(names: &Names) -> Result<Connection> {
    // The connection is opened for reading and writing, so that it can recover the log of a writer that was killed. The
    // connection writes no record.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(&names.file, flags)?;
    // Only the writing connection copies the log into the file: the writer checks first whether the log and the file
    // still belong together.
    leave_the_log(&connection, true)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    Ok(connection)
}

/// Sets whether the last connection leaves the log beside the file when it closes, instead of copying it into the file.
pub(super) fn leave_the_log(connection: &Connection, leave: bool) -> Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leave)?;
    Ok(())
}

/// Checks the existing files without changing any byte of them.
fn look(names: &Names, config: &SqliteConfig) -> Result<()> {
    // The log is looked at before the file. A new store makes its file before its log, so a log without a file is never
    // one of a store that is just being made.
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
    // A creation that was interrupted at its very beginning leaves an empty file.
    if found.is_none_or(|found| found.len() == 0) {
        if log {
            let problem = "is missing or empty, and its log (-wal) is there";
            return Err(Error::corrupt("database", "file", problem).into());
        }
        return if config.must_exist { Err(no_store(names)) } else { Ok(()) };
    }
    // The first page in the log is newer than the one in the file.
    if log && let Some(head) = log::head(&names.log).map_err(Error::unavailable)? {
        return schema::owned(names, head.application, head.version, || Ok(!head.empty)).map(drop);
    }
    match read_past_locks(names, journal || log).map_err(Error::from) {
        // The creation of this file was interrupted. The next connection rolls its journal back, and checks the file
        // again before it writes.
        Err(Error::Corrupt(_)) if journal && begun_empty(&names.journal) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// Returns the version that the file itself has. Reads without locks, shared memory or recovery, so that no byte is
/// written. If another connection may be writing the file (`busy`), the file's length may differ from that in its
/// header.
fn read_past_locks(names: &Names, busy: bool) -> Result<usize> {
    let mut uri = String::from("file:");
    for byte in names.file.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            // Writing to a `String` cannot fail.
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

/// Whether the file exists and is not empty.
fn holds_something(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() > 0)
}

/// Whether a journal's transaction began on an empty file.
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

fn make(names: &Names, config: &SqliteConfig, deadline: Instant) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let new = create(&names.file, config.mode)?;
    let connection = connect(&names.file, flags)?;
    if new {
        set_mode(&names.file, config.mode)?;
    }
    // The log is not copied into the file until it is known that both belong to this store.
    leave_the_log(&connection, true)?;
    let version = patiently(deadline, || schema::version(&connection, names))?;
    leave_the_log(&connection, false)?;
    if connection.is_readonly("main")? {
        return Err(Error::unavailable("the file cannot be written").into());
    }
    if version == 0 {
        if config.must_exist {
            return Err(no_store(names));
        }
        // The first commit is made before the file has a log, so that the file itself says from then on that it is a
        // store. `EXTRA` also syncs the end of the journal. Otherwise a power cut could bring the journal back, and the
        // journal would undo everything.
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
    // Deleted content is overwritten. Otherwise a damaged page could point at a removed key or at a user's former
    // state.
    connection.query_row("PRAGMA secure_delete = FAST", [], |_| Ok(()))?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {LOG}"), [], |_| Ok(()))?;
    if (1..schema::CURRENT).contains(&version) {
        patiently(deadline, || schema::bring_forward(&connection, names))?;
    } else {
        // This read opens the log and its shared memory, so that both exist from here on.
        patiently(deadline, || schema::verify(&connection))?;
    }
    if let Some(bytes) = config.max_bytes {
        let pages = (bytes / PAGE).clamp(1, u64::from(u32::MAX - 1));
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    Ok(connection)
}

/// Makes an empty file that only its owner may read, without opening it: closing a descriptor of the file would release
/// the locks of another connection of this process. Returns whether the file is new. If this function fails to make the
/// file, SQLite makes it.
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

/// Sets the mode, whatever the umask is. SQLite gives the log and the shared memory the same mode.
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
    // SQLite checks every page that it reads.
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Repeats an attempt while another connection holds a lock.
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

/// Adds the file's name to an error.
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
