//! Where a cluster keeps its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{NatsError, process};

/// A file system in memory, and how many bytes must be free in it.
const MEMORY: (&str, u64) = ("/dev/shm", 1 << 30);

/// A directory for configurations and logs, and one for data. The data are removed when the cluster
/// is dropped or this process ends. The logs stay after a panic, for debugging.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    data: PathBuf,
    keep_logs: AtomicBool,
}

impl WorkDir {
    /// Makes the directories. With `hastily`, servers do not wait for the disk, so their data may
    /// be kept in memory.
    pub(super) fn new(hastily: bool) -> Result<Self, NatsError> {
        let path = make(&std::env::temp_dir())?;
        let data = match hastily.then(in_memory).flatten().map(make) {
            Some(Ok(data)) => data,
            _ => {
                let data = path.join("data");
                fs::create_dir(&data).map_err(NatsError::io(MAKE))?;
                data
            }
        };
        process::watch(&data.display().to_string()).map_err(NatsError::io("start a shell (sh)"))?;
        Ok(Self { path, data, keep_logs: AtomicBool::new(false) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep_logs(&self) {
        self.keep_logs.store(true, Ordering::Relaxed);
    }

    /// The directory of the servers' data.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.data);
        if !self.keep_logs.load(Ordering::Relaxed) && !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.path);
        }
        process::unwatch(&self.data.display().to_string());
    }
}

const MAKE: &str = "make a temporary directory";

fn make(place: &Path) -> Result<PathBuf, NatsError> {
    let made = tempfile::Builder::new().prefix("membership-nats-").tempdir_in(place);
    Ok(made.map_err(NatsError::io(MAKE))?.keep())
}

/// The file system in memory, if it has room.
///
/// Servers that do not wait for their disk lose nothing in memory that they promise to keep.
/// Hundreds of cases that make and remove buckets take half as long there.
fn in_memory() -> Option<&'static Path> {
    let (place, room) = (Path::new(MEMORY.0), MEMORY.1);
    let found = rustix::fs::statvfs(place).ok()?;
    (found.f_bavail * found.f_frsize >= room).then_some(place)
}
