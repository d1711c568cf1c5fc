//! Harm to a database's files: they are put back, replaced or emptied.
//!
//! Another process (`cp`) reads and writes the files while the database is open in this process.
//! SQLite would lose its locks if this process closed any other descriptor of the database.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

use rusqlite::Connection;

use membership_conformance::{Leaves, Loss, Lost, Replacement, Rewind, TargetError};

const MOVED: Rewind =
    Rewind { name: "a copy is moved over the file", closed: false, leaves: Leaves::Mixture };
const MOVED_WHOLE: Rewind = Rewind {
    name: "the log is removed, and a copy moved over the file",
    closed: false,
    leaves: Leaves::Past,
};
const WRITTEN_OVER: Rewind =
    Rewind { name: "a copy is written over the file", closed: false, leaves: Leaves::Past };
const CLOSED: Rewind =
    Rewind { name: "a copy is put back while nobody reads", closed: true, leaves: Leaves::Past };

pub(super) const REWINDS: &[Rewind] = &[MOVED, MOVED_WHOLE, WRITTEN_OVER, CLOSED];

const OTHER: Replacement = Replacement { name: "another file is moved over it" };
const REMOVED: Replacement = Replacement { name: "the file and its log are removed" };
const FOLDER: Replacement = Replacement { name: "its folder is renamed and made anew" };

pub(super) const REPLACEMENTS: &[Replacement] = &[OTHER, REMOVED, FOLDER];

/// Losses of records that a person with an SQL shell can cause.
pub(super) const LOSSES: &[Loss] = &[
    Loss { name: "all users are deleted", of: Lost::Users, traces: true },
    Loss { name: "all keys are deleted", of: Lost::Keys, traces: true },
    Loss { name: "all rooms are deleted", of: Lost::Rooms, traces: true },
    Loss { name: "every table is emptied", of: Lost::Everything, traces: false },
];

/// How long other connections may keep the log from being emptied.
const PATIENCE: Duration = Duration::from_secs(5);

/// Copies the database, with all committed changes, to a file beside it.
pub(super) fn remember(db: &Connection, path: &Path) -> Result<(), TargetError> {
    empty_log(db)?;
    copy(path, &remembered(path))
}

/// Puts the copy back, in the way `how`. Connects to the database only if that way needs a
/// connection.
pub(super) fn rewind(
    connect: impl FnOnce() -> rusqlite::Result<Connection>,
    path: &Path,
    how: &Rewind,
) -> Result<(), TargetError> {
    let past = remembered(path);
    if *how == WRITTEN_OVER {
        // Otherwise pages in the log would replace those that are written over the file.
        empty_log(&connect()?)?;
        return copy(&past, path);
    }
    if *how != MOVED {
        remove_log(path)?;
    }
    Ok(fs::rename(past, path)?)
}

/// Replaces the database by nothing, or by the empty database at `other`.
pub(super) fn replace(path: &Path, how: &Replacement, other: &Path) -> Result<(), TargetError> {
    let folder = path.parent().ok_or("a path without a folder")?;
    match *how {
        OTHER => {
            remove_log(path)?;
            fs::rename(other, path)?;
        }
        REMOVED => {
            remove_log(path)?;
            fs::remove_file(path)?;
        }
        _ => {
            fs::rename(folder, folder.with_extension("renamed"))?;
            fs::create_dir(folder)?;
        }
    }
    Ok(())
}

pub(super) fn lose(db: &Connection, how: &Loss) -> rusqlite::Result<()> {
    let tables: &[&str] = match how.of {
        Lost::Users => &["users"],
        Lost::Keys => &["room_keys"],
        Lost::Rooms => &["room_keys", "members", "rooms"],
        Lost::Everything => &["room_keys", "members", "rooms", "revocations", "users", "bootstrap"],
    };
    let deletions: Vec<_> = tables.iter().map(|table| format!("DELETE FROM {table};")).collect();
    // By default an SQL shell does not enforce foreign keys either.
    db.pragma_update(None, "foreign_keys", false)?;
    db.execute_batch(&format!("BEGIN IMMEDIATE; {} COMMIT", deletions.concat()))
}

/// The path of the empty database for [`OTHER`].
pub(super) fn other(path: &Path) -> PathBuf {
    path.with_extension("other")
}

fn remembered(path: &Path) -> PathBuf {
    path.with_extension("remembered")
}

/// Moves everything from the log into the database file.
fn empty_log(db: &Connection) -> Result<(), TargetError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let busy: bool = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if !busy {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("other connections use the log for {PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn remove_log(path: &Path) -> io::Result<()> {
    for end in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), TargetError> {
    let done = Command::new("cp").arg(from).arg(to).output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&done.stderr).into_owned().into())
}
