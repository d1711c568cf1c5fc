//! Where a cluster keeps its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{NatsError, process};

/// A directory for configurations, logs and data. What was stored goes when the cluster does or
/// when this process ends; the logs stay after a panic, for whoever looks into it.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    keep_logs: AtomicBool,
}

impl WorkDir {
    pub(super) fn new() -> Result<Self, NatsError> {
        let made = tempfile::Builder::new().prefix("membership-nats-").tempdir();
        let path = made.map_err(NatsError::io("make a temporary directory"))?.keep();
        let dir = Self { path, keep_logs: AtomicBool::new(false) };
        fs::create_dir(dir.data()).map_err(NatsError::io("make a temporary directory"))?;
        process::watch(&dir.data().display().to_string())
            .map_err(NatsError::io("start a shell (sh)"))?;
        Ok(dir)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep_logs(&self) {
        self.keep_logs.store(true, Ordering::Relaxed);
    }

    /// What the servers store.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let keep = self.keep_logs.load(Ordering::Relaxed) || std::thread::panicking();
        let lost = if keep { self.data() } else { self.path.clone() };
        let _ = fs::remove_dir_all(lost);
        process::unwatch(&self.data().display().to_string());
    }
}
