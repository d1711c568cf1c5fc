//! The files of a store, checked together: the database, its log, its shared memory, and their names.
//!
//! SQLite finds the log (`-wal`) and the shared memory (`-shm`) by the name of the database. So a file with two names
//! has two logs. If another file takes over the name, clients that open the store later use that other file. In both
//! cases a client could allow a user whom another client has revoked. This module refuses such files at open, and
//! [`Place::check`] finds later changes.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{self, Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::driver::{Failure, Result};
use super::watch::Watch;
use crate::Error;
use crate::error::Invalid;
use crate::trace::event;

/// The longest path that SQLite accepts, in bytes, less the suffix that it appends (`-journal`).
const LONGEST: usize = 504;

/// A state of the watch that never occurs.
const NEVER: u64 = u64::MAX;

/// The files of a store, identified when the store was opened.
pub(super) struct Place {
    names: Names,
    identity: [Identity; 3],
    watch: Option<Watch>,
    /// The count of the watch at the last check that found all files in place.
    checked: AtomicU64,
    /// Why this client must not answer any more; empty while it may.
    lost: OnceLock<String>,
}

/// The names of a database and its companion files.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The absolute path, as it was given.
    given: PathBuf,
    /// The path without symbolic links, which SQLite opens.
    pub(super) file: PathBuf,
    pub(super) log: PathBuf,
    pub(super) shared: PathBuf,
    pub(super) journal: PathBuf,
}

impl Names {
    /// Resolves `path` as SQLite does, so that all users of the file use one name.
    pub(super) fn resolve(path: &Path) -> Result<Self, Error> {
        // The path is made absolute. Otherwise a change of the working directory, or one of SQLite's special names
        // (`:memory:`, `file:…`, the empty name), could give the path another meaning.
        let given = path::absolute(path).map_err(|error| {
            Invalid::new("path", format!("{} cannot be used: {error}", path.display()))
        })?;
        let file = match fs::canonicalize(&given) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => new_file(&given)?,
            Err(error) => return Err(unusable(&given, error)),
        };
        let length = file.as_os_str().len();
        if length > LONGEST {
            let problem = format!("is {length} bytes long; SQLite takes at most {LONGEST}");
            return Err(refused(&given, &problem));
        }
        let beside = |suffix: &str| {
            let mut name = file.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (log, shared) = (beside("-wal"), beside("-shm"));
        Ok(Self { given, log, shared, journal: beside("-journal"), file })
    }

    /// The caller's path, for messages.
    pub(super) fn given(&self) -> &Path {
        &self.given
    }

    pub(super) fn refuse(&self, problem: &str) -> Failure {
        refused(&self.given, problem).into()
    }

    /// Refuses a file that has a second name, and a file that is a mount of its own. Otherwise another process could
    /// use the other name, and with it another log. `found` is the metadata of the file at the path.
    pub(super) fn is_one(&self, found: &Metadata) -> Result<()> {
        let names = links(found);
        if names > 1 {
            return Err(self.refuse(&format!(
                "has {names} names (hard links), and under each SQLite keeps another log; remove \
                 the other names"
            )));
        }
        if is_mount(&self.file)? {
            return Err(self.refuse(
                "is a mount of its own, so that its log would be somewhere else than that of \
                 others who use the file; mount the directory, not the file",
            ));
        }
        Ok(())
    }
}

/// Resolves the path of a file that does not exist yet.
fn new_file(given: &Path) -> Result<PathBuf, Error> {
    if given.symlink_metadata().is_ok() {
        let problem = "is a symbolic link to nothing; make what it points to, or give another path";
        return Err(refused(given, problem));
    }
    let (Some(directory), Some(name)) = (given.parent(), given.file_name()) else {
        return Err(refused(given, "names no file; give the path of one"));
    };
    let directory = fs::canonicalize(directory).map_err(|error| unusable(given, error))?;
    Ok(directory.join(name))
}

fn unusable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidInput => refused(path, "cannot be a path; give another"),
        ErrorKind::InvalidFilename => {
            refused(path, "is too long, or one of its names is; give a shorter one")
        }
        _ => Error::unavailable(error),
    }
}

fn refused(path: &Path, problem: &str) -> Error {
    Invalid::new("path", format!("{} {problem}", path.display())).into()
}

impl Place {
    /// Records the identity of the files that `opened` has opened. Fails if another process replaces them meanwhile.
    pub(super) fn hold<T>(names: Names, opened: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        // The watch begins before anything else, so that no later change is missed.
        let watch = Watch::start(&names.given, &names.file);
        let before = Identity::at(&names.file);
        let opened = opened()?;
        let identity = || -> io::Result<_> {
            Ok([
                Identity::at(&names.file)?,
                Identity::at(&names.log)?,
                Identity::at(&names.shared)?,
            ])
        };
        let identity = identity().map_err(|error| {
            Error::unavailable(format!("the file or its log vanished while it was opened: {error}"))
        })?;
        if before.is_ok_and(|before| before != identity[0]) {
            return Err(Error::unavailable("the file was replaced while it was opened").into());
        }
        let (checked, lost) = (AtomicU64::new(NEVER), OnceLock::new());
        Ok((Self { names, identity, watch, checked, lost }, opened))
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Fails unless the three names still stand for the open files. A call is correct if this holds at one moment
    /// between its beginning and its answer: at that moment other processes open the same files, and the files have
    /// every acknowledged write.
    ///
    /// After a failure the check fails for good, even if the files come back: they lack the writes that other clients
    /// made meanwhile.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.lost()?;
        let Some(now) = self.watch.as_ref().and_then(Watch::now) else { return self.look() };
        if now != self.checked.load(Ordering::Acquire) {
            self.look()?;
            // Another thread may have stored a later count. Replacing it by this earlier one only causes one more
            // check.
            self.checked.store(now, Ordering::Release);
        }
        Ok(())
    }

    /// Fails if an earlier check found a replaced file. Does no I/O.
    pub(super) fn lost(&self) -> Result<(), Error> {
        self.lost.get().map_or(Ok(()), |why| Err(self.gone(why)))
    }

    fn look(&self) -> Result<(), Error> {
        let Names { given, file, log, shared, .. } = &self.names;
        let [is_file, is_log, is_shared] = &self.identity;
        self.same(file, Identity::at(file), is_file)?;
        self.same(log, Identity::at(log), is_log)?;
        self.same(shared, Identity::at(shared), is_shared)?;
        if given != file {
            self.same(given, fs::metadata(given).map(|found| Identity::of(&found)), is_file)?;
        }
        Ok(())
    }

    fn same(&self, path: &Path, is: io::Result<Identity>, was: &Identity) -> Result<(), Error> {
        let change = match is {
            Ok(is) if is == *was => return Ok(()),
            Ok(_) => "was replaced",
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                "was removed"
            }
            // The check itself failed: this call fails, and the next one checks again.
            Err(error) => return Err(Error::unavailable(error)),
        };
        if self.lost.set(format!("{} {change}", path.display())).is_ok() {
            let path = path.display();
            event!(file: warn, "every call fails until the store is opened again", path, change);
        }
        self.lost()
    }

    fn gone(&self, why: &str) -> Error {
        Error::unavailable(format!(
            "{why} while {} was open; close this client, see that the file is the one you want, \
             with the log that belongs to it, and open it again",
            self.names.given.display()
        ))
    }
}

/// A file's identity, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn at(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|found| Self::of(&found))
    }

    #[cfg(unix)]
    fn of(found: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { device: found.dev(), inode: found.ino() }
    }

    /// On other systems an open file cannot be replaced.
    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Self {
        Self { device: 0, inode: 0 }
    }
}

#[cfg(unix)]
fn links(found: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(found)
}

#[cfg(not(unix))]
fn links(_: &Metadata) -> u64 {
    1
}

/// Whether the path is a mount point. Kernels before 5.8 do not tell.
#[cfg(target_os = "linux")]
fn is_mount(file: &Path) -> Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

    let mount = |path: &Path| -> Result<Option<u64>> {
        let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)
            .map_err(|error| Error::unavailable(io::Error::from(error)))?;
        let told = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Ok(told.then_some(found.stx_mnt_id))
    };
    let Some(directory) = file.parent() else { return Ok(false) };
    Ok(mount(file)? != mount(directory)?)
}

#[cfg(not(target_os = "linux"))]
fn is_mount(_: &Path) -> Result<bool> {
    Ok(false)
}
