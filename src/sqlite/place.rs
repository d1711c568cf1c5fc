//! The files of a store as one thing: the database, its log, its shared memory, and their names.
//!
//! SQLite finds the log (`-wal`) and the shared memory (`-shm`) by the name of the database. So two names of one file have two
//! logs, and a name that comes to mean another file makes two stores of one. In both cases a client could allow a user
//! whom another client has revoked. This module refuses such files at open; [`Place::check`] finds later changes.

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

/// A moment of the watch that is never reached.
const NEVER: u64 = u64::MAX;

/// The files of a store, as they were when it was opened.
pub(super) struct Place {
    names: Names,
    identity: [Identity; 3],
    watch: Option<Watch>,
    /// The files were checked, and were right, up to this moment of the watch.
    checked: AtomicU64,
    /// Why this client must not answer any more, if so.
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
        // Absolute, so that neither a change of directory nor SQLite's own names (`:memory:`,
        // `file:…`, the empty one) can make it mean something else.
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

    /// Refuses a file that has another name or is a mount of its own: another process could use another log beside the other
    /// name. `found` is the file at the path.
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

/// The name of a file that does not exist yet.
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
    /// Remembers the files that `opened` has opened. Fails if another process changes them meanwhile.
    pub(super) fn hold<T>(names: Names, opened: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        // Before anything else, so that every later change is noticed.
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

    /// Whether the names still mean the open files. This has to hold once between the beginning of a call and its answer: while it
    /// holds, other processes open the same files, and these have every acknowledged write.
    ///
    /// Once it has failed it fails for good, also when the files come back: they lack the writes that were acknowledged
    /// meanwhile.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.lost()?;
        let Some(now) = self.watch.as_ref().and_then(Watch::now) else { return self.look() };
        if now != self.checked.load(Ordering::Acquire) {
            self.look()?;
            // An older moment than another thread's only causes one more check.
            self.checked.store(now, Ordering::Release);
        }
        Ok(())
    }

    /// Whether a check has failed before. Does no I/O.
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
            event!(file: warn, "a file changed: every call fails until the store is opened again", path, change);
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
