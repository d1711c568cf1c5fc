//! Violations saved in files, to be read and checked again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, io, process};

use serde::{Deserialize, Serialize};

use super::{History, Violation, check, picture, shrink};

/// A saved violation: the contents of a file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The name of the store under test.
    pub store: String,
    /// The seed of the case that found the violation.
    pub seed: String,
    /// The shrunk violation.
    pub least: History,
    /// The whole history.
    pub whole: History,
}

impl Saved {
    /// Writes a violation of `whole` to a new file, and returns the file's path.
    ///
    /// The file is in the directory that `MEMBERSHIP_HISTORIES` names, or else in `histories` in
    /// the build directory.
    ///
    /// # Errors
    /// Returns the error if the directory or the file cannot be written.
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
    /// Returns one line that says why: the file cannot be read, or it holds no saved violation.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        serde_json::from_slice(&text)
            .map_err(|error| format!("{} is no saved history: {error}", path.display()))
    }

    /// Checks the histories again. Returns the drawing of a violation, or `None` if there is no
    /// violation.
    #[must_use]
    pub fn replay(&self) -> Option<String> {
        let again = check(&self.least).err().or_else(|| check(&self.whole).err());
        let least = shrink(*again?);
        Some(format!("{least}\n{}", picture(&least)))
    }
}

/// The directory for saved violations. Without a build directory it is in the system's temporary
/// directory.
fn directory() -> PathBuf {
    if let Some(named) = env::var_os("MEMBERSHIP_HISTORIES") {
        return named.into();
    }
    let executable = env::current_exe().unwrap_or_default();
    let target = executable.ancestors().find(|path| path.ends_with("target"));
    target.map_or_else(env::temp_dir, Path::to_path_buf).join("histories")
}
