//! Harm to a database's files: put back, replaced, emptied.
//!
//! What reads or writes a database that is open here is a process of its own: SQLite loses its locks when
//! this process closes any other descriptor of the file.

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

/// What somebody with an SQL shell can do.
pub(super) const LOSSES: &[Loss] = &[
    Loss { name: "all users are deleted", of: Lost::Users, traces: true },
    Loss { name: "all keys are deleted", of: Lost::Keys, traces: true },
    Loss { name: "all rooms are deleted", of: Lost::Rooms, traces: true },
    Loss { name: "every table is emptied", of: Lost::Everything, traces: false },
];

/// How long others may hold the log.
const PATIENCE: Duration = Duration::from_secs(5);

/// Copies all that is committed to a file beside this one.
pub(super) fn remember(db: &Connection, path: &Path) -> Result<(), TargetError> {
    empty_log(db)?;
    copy(path, &remembered(path))
}

/// Connects to it only where that belongs to the harm.
pub(super) fn rewind(
    connect: impl FnOnce() -> rusqlite::Result<Connection>,
    path: &Path,
    how: &Rewind,
) -> Result<(), TargetError> {
    let past = remembered(path);
    if *how == WRITTEN_OVER {
        // What is in the log would count more than what is written over the file.
        empty_log(&connect()?)?;
        return copy(&past, path);
    }
    if *how != MOVED {
        remove_log(path)?;
    }
    Ok(fs::rename(past, path)?)
}

/// Puts nothing in its place, or the empty database at `other`.
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
    // As an SQL shell is, unless told otherwise.
    db.pragma_update(None, "foreign_keys", false)?;
    db.execute_batch(&format!("BEGIN IMMEDIATE; {} COMMIT", deletions.concat()))
}

/// Where the empty database for [`OTHER`] is made.
pub(super) fn other(path: &Path) -> PathBuf {
    path.with_extension("other")
}

fn remembered(path: &Path) -> PathBuf {
    path.with_extension("remembered")
}

/// Has everything in the file itself, and nothing in its log.
fn empty_log(db: &Connection) -> Result<(), TargetError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let busy: bool = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if !busy {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("somebody reads the log for {PATIENCE:?}").into());
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
