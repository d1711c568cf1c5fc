//! The files of a store as one thing: the database, its log, its shared memory, and their names.
//!
//! SQLite finds the log (`-wal`) and the shared memory (`-shm`) by the name of the database. So
//! two names of one file are two logs, and a name that comes to mean another file makes two stores
//! of one: either way a client could allow a user whom another client has revoked. What can be
//! told beforehand is refused here; what happens while the files are open, [`Place::check`] finds.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{self, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use rusqlite::Connection;

use super::driver::{Failure, Result};
use super::lineage::Lineage;
use super::watch::Watch;
use super::{log, open};
use crate::Error;
use crate::error::Invalid;

/// The longest path SQLite takes, in bytes, less what it puts behind it (`-journal`).
const LONGEST: usize = 504;

/// A moment of the watch that never comes.
const NEVER: u64 = u64::MAX;

/// The files of a store, as they were when it was opened.
pub(super) struct Place {
    names: Names,
    identity: [Identity; 3],
    /// The file without its log, as it was last seen. Held while it is looked at.
    raw: Mutex<Raw>,
    /// The store's name, and the most transactions that this client knows of.
    name: [u8; 16],
    seen: AtomicU64,
    watch: Option<Watch>,
    /// Everything up to this moment of the watch was looked at, and was right.
    checked: AtomicU64,
    /// Why this client must not answer any more.
    lost: OnceLock<String>,
}

/// What a database and its companions are called.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Absolute, as it was given.
    given: PathBuf,
    /// Without a symbolic link in it: what SQLite opens.
    pub(super) file: PathBuf,
    pub(super) log: PathBuf,
    pub(super) shared: PathBuf,
    pub(super) journal: PathBuf,
}

impl Names {
    /// Resolves `path` as SQLite does, so that all who use the file use one name.
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

    /// What the caller called the file, for messages.
    pub(super) fn given(&self) -> &Path {
        &self.given
    }

    pub(super) fn refuse(&self, problem: &str) -> Failure {
        refused(&self.given, problem).into()
    }

    /// Refuses a file system that several machines use at once: shared memory is shared by one, so
    /// that what one revokes another would go on to allow.
    #[cfg(target_os = "linux")]
    pub(super) fn is_local(&self) -> Result<()> {
        let directory = self.file.parent().unwrap_or(&self.file);
        let found = rustix::fs::statfs(directory)
            .map_err(|error| Error::unavailable(io::Error::from(error)))?;
        // Narrower on some platforms, and signed on others.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        match network(found.f_type as u32) {
            None => Ok(()),
            Some(kind) => Err(self.refuse(&format!(
                "is on a network file system ({kind}); give the path of a file on a local disk"
            ))),
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "of one shape with the other")]
    pub(super) fn is_local(&self) -> Result<()> {
        Ok(())
    }

    /// Refuses a file that has another name or is a mount of its own: under either, somebody else
    /// would have a log of their own beside it. `found` is what stands at the path.
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

/// The name of a file that is not there yet.
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
    /// Remembers which files `open` opens. What others do to them meanwhile makes it fail.
    pub(super) fn hold(
        names: Names,
        open: impl FnOnce() -> Result<Connection>,
    ) -> Result<(Self, Connection)> {
        // Before anything else: what happens from here on is noticed.
        let watch = Watch::start(&names.given, &names.file);
        let before = Identity::at(&names.file);
        let opened = open()?;
        let watch = watch.and_then(|watch| watch.writes_to(&names.file));
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
        let Lineage { name, commits } = Lineage::read(&opened)?;
        let raw = Raw {
            stamp: Stamp::of(&fs::symlink_metadata(&names.file).map_err(Error::unavailable)?),
            // Nothing yet where a new table stands in the log alone.
            commits: open::raw_lineage(&names).map_or(0, |(raw, _)| raw.commits),
            tables: open::tables(&opened)?,
        };
        let place = Self {
            names,
            identity,
            raw: Mutex::new(raw),
            name,
            seen: AtomicU64::new(commits),
            watch,
            checked: AtomicU64::new(NEVER),
            lost: OnceLock::new(),
        };
        Ok((place, opened))
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Whether the names still mean the files that are open, and the file is what SQLite wrote.
    /// Between the beginning of a call and its answer this has to hold once: as long as it does,
    /// others who open the store get these files, and what they have acknowledged is in them.
    ///
    /// Once it was wrong it stays wrong, also when the files come back: what was acknowledged
    /// meanwhile is not in them.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.lost()?;
        let Some(now) = self.watch.as_ref().and_then(Watch::now) else { return self.look() };
        if now != self.checked.load(Ordering::Acquire) {
            self.look()?;
            // One that is older than another thread's has everybody look once more.
            self.checked.store(now, Ordering::Release);
        }
        Ok(())
    }

    /// Whether what a connection shows is this store, and not before what this client has seen.
    pub(super) fn follows(&self, db: &Connection) -> Result<()> {
        // Before the read: meanwhile somebody may commit.
        let seen = self.seen.load(Ordering::Acquire);
        Ok(self.goes_on(Lineage::read(db)?, seen)?)
    }

    /// Counts the transaction that is open, which goes on from what this client has seen.
    pub(super) fn count(&self, db: &Connection) -> Result<Lineage> {
        let lineage = Lineage::count(db)?;
        self.goes_on(lineage, self.seen.load(Ordering::Acquire))?;
        Ok(lineage)
    }

    /// Remembers a transaction that was committed.
    pub(super) fn committed(&self, lineage: Lineage) {
        self.seen.fetch_max(lineage.commits, Ordering::AcqRel);
    }

    fn goes_on(&self, lineage: Lineage, seen: u64) -> Result<(), Error> {
        if lineage.name != self.name {
            return Err(self.lose("now holds another store"));
        }
        if lineage.commits < seen {
            return Err(self.lose("went back to an earlier state"));
        }
        Ok(())
    }

    /// Whether it was wrong before. Asks nobody.
    pub(super) fn lost(&self) -> Result<(), Error> {
        self.lost.get().map_or(Ok(()), |why| Err(self.gone(why)))
    }

    fn look(&self) -> Result<(), Error> {
        let found = self.missing()?;
        self.written_by_sqlite(&Stamp::of(&found))
    }

    /// Whether one of the names means nothing or something else.
    pub(super) fn missing(&self) -> Result<Metadata, Error> {
        let Names { given, file, log, shared, .. } = &self.names;
        let [is_file, is_log, is_shared] = &self.identity;
        let found = self.same(file, fs::symlink_metadata(file), is_file)?;
        self.same(log, fs::symlink_metadata(log), is_log)?;
        self.same(shared, fs::symlink_metadata(shared), is_shared)?;
        if given != file {
            self.same(given, fs::metadata(given), is_file)?;
        }
        Ok(found)
    }

    /// Whether it was SQLite that changed the file, where it has changed: it brings in the log of
    /// this very store, so the count of transactions in it grows. Somebody else who writes over it
    /// leaves the log there, whose pages do not go together with what is in the file then.
    fn written_by_sqlite(&self, stamp: &Stamp) -> Result<(), Error> {
        let mut raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        if raw.stamp == *stamp {
            return Ok(());
        }
        if stamp.length == 0 {
            return Err(self.lose("was emptied"));
        }
        // Half-written, it may be whole a moment later.
        let raw_lineage = (0..5).find_map(|_| open::raw_lineage(&self.names).ok());
        let (lineage, tables) = raw_lineage.ok_or(Error::Timeout)?;
        if lineage.name != self.name {
            return Err(self.lose("was overwritten with another store"));
        }
        if lineage.commits < raw.commits {
            return Err(self.lose("was overwritten with an earlier state"));
        }
        // VACUUM puts the records into other pages than the log has them in, and counts the version
        // of the tables on. Who changes tables otherwise has that in the log first.
        if tables > raw.tables {
            let head = log::head(&self.names.log).map_err(Error::unavailable)?;
            if head.is_none_or(|head| head.tables < tables) {
                return Err(self.lose("was overwritten with a copy"));
            }
        }
        *raw = Raw { stamp: stamp.clone(), commits: lineage.commits, tables };
        Ok(())
    }

    fn same(
        &self,
        path: &Path,
        found: io::Result<Metadata>,
        was: &Identity,
    ) -> Result<Metadata, Error> {
        let change = match found {
            Ok(found) if Identity::of(&found) == *was => return Ok(found),
            Ok(_) => "was replaced",
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                "was removed"
            }
            // Nothing is known, so nothing is answered, but it may be better next time.
            Err(error) => return Err(Error::unavailable(error)),
        };
        let why = self.lost.get_or_init(|| format!("{} {change}", path.display()));
        Err(self.gone(why))
    }

    fn lose(&self, change: &str) -> Error {
        let why = self.lost.get_or_init(|| format!("{} {change}", self.names.file.display()));
        self.gone(why)
    }

    fn gone(&self, why: &str) -> Error {
        Error::unavailable(format!(
            "{why} while {} was open; close this client, see that the file is the one you want, \
             with the log that belongs to it, and open it again",
            self.names.given.display()
        ))
    }
}

/// The file without its log.
#[derive(Debug)]
struct Raw {
    stamp: Stamp,
    commits: u64,
    /// The version of the tables.
    tables: i64,
}

/// Another one says that somebody may have written the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        #[cfg(unix)]
        let changed = {
            use std::os::unix::fs::MetadataExt as _;
            (found.ctime(), found.ctime_nsec())
        };
        #[cfg(not(unix))]
        let changed = (0, 0);
        Self { length: found.len(), modified: found.modified().ok(), changed }
    }
}

/// Which file it is, whatever its name.
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

    /// Elsewhere a file that is open cannot be replaced.
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

/// The name of a network file system by the number the kernel gives it.
#[cfg(target_os = "linux")]
fn network(kind: u32) -> Option<&'static str> {
    match kind {
        0x6969 => Some("NFS"),
        0x517B | 0xFE53_4D42 | 0xFF53_4D42 => Some("SMB"),
        0x5346_414F => Some("AFS"),
        0x00C3_6400 => Some("Ceph"),
        _ => None,
    }
}

/// Whether something is mounted exactly there. Not told by old kernels (before 5.8).
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        let networks = [0x6969, 0x517B, 0xFE53_4D42, 0xFF53_4D42, 0x5346_414F, 0x00C3_6400];
        assert!(networks.into_iter().all(|kind| network(kind).is_some()));
        // ext4, tmpfs, overlayfs.
        assert!([0xEF53, 0x0102_1994, 0x794C_7630].into_iter().all(|kind| network(kind).is_none()));
    }
}
