//! Violations in files, to be looked at and judged again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, io, process};

use serde::{Deserialize, Serialize};

use super::{History, Violation, check, picture, shrink};

/// What a file holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The store that was asked.
    pub store: String,
    /// The seed of the case that asked it.
    pub seed: String,
    /// The least that shows the violation.
    pub least: History,
    /// All that was asked and answered.
    pub whole: History,
}

impl Saved {
    /// Writes a violation of `whole` to a new file under the build's directory, or the one that
    /// `MEMBERSHIP_HISTORIES` names, and returns its path.
    ///
    /// # Errors
    /// Whatever keeps the file from being written.
    pub fn write(
        store: &str,
        seed: u64,
        violation: &Violation,
        whole: &History,
    ) -> io::Result<PathBuf> {
        static FILES: AtomicU64 = AtomicU64::new(0);
        let directory = directory();
        fs::create_dir_all(&directory)?;
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{store}-{seed:x}-{}-{number}.json", process::id()));
        let saved = Self {
            store: store.to_owned(),
            seed: format!("{seed:#x}"),
            least: violation.witness.clone(),
            whole: whole.clone(),
        };
        fs::write(&path, serde_json::to_vec_pretty(&saved)?)?;
        Ok(path)
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// One line: it cannot be read, or is no such file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        serde_json::from_slice(&text)
            .map_err(|error| format!("{} is no saved history: {error}", path.display()))
    }

    /// Judges it again: the picture of what still has no order, or `None` where all has one.
    #[must_use]
    pub fn replay(&self) -> Option<String> {
        let again = check(&self.least).err().or_else(|| check(&self.whole).err());
        let least = shrink(*again?);
        Some(format!("{least}\n{}", picture(&least)))
    }
}

/// Beside what is built; in the system's directory for such things where that is not known.
fn directory() -> PathBuf {
    if let Some(named) = env::var_os("MEMBERSHIP_HISTORIES") {
        return named.into();
    }
    let executable = env::current_exe().unwrap_or_default();
    let target = executable.ancestors().find(|path| path.ends_with("target"));
    target.map_or_else(env::temp_dir, Path::to_path_buf).join("histories")
}
