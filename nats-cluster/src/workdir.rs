//! Where a cluster keeps its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{NatsError, process};

/// Where a system keeps files in memory, and how many bytes must be free there.
const MEMORY: (&str, u64) = ("/dev/shm", 1 << 30);

/// A directory for configurations and logs, and one for data. What was stored goes when the cluster
/// does or when this process ends; the logs stay after a panic, for whoever looks into it.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    data: PathBuf,
    keep_logs: AtomicBool,
}

impl WorkDir {
    /// `hastily`: nobody waits until what is stored is on the disk.
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

    /// What the servers store.
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

/// Where files are kept in memory, if there is room. A server that does not wait for its disk keeps
/// no promise there that it would not keep in memory, and hundreds of cases that make and remove
/// their buckets take half as long.
fn in_memory() -> Option<&'static Path> {
    let (place, room) = (Path::new(MEMORY.0), MEMORY.1);
    let found = rustix::fs::statvfs(place).ok()?;
    (found.f_bavail * found.f_frsize >= room).then_some(place)
}
