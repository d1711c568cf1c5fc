//! The contents of a folder in memory: read from the disk, and written to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::Files;
use crate::target::TargetError;

/// The contents of a folder. Names are paths relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The bytes of each file.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The folders in it, nested ones included.
    pub folders: BTreeSet<String>,
}

impl Contents {
    /// Reads the folder of `files`, without scratch files.
    pub fn read(files: &Files) -> Result<Self, TargetError> {
        let mut contents = Self::default();
        contents.add(files, "")?;
        Ok(contents)
    }

    /// Adds the contents of the folder with this name, which is empty or ends in a slash.
    fn add(&mut self, files: &Files, within: &str) -> Result<(), TargetError> {
        for entry in fs::read_dir(files.folder.join(within))? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| "a file's name is no UTF-8")?;
            let name = format!("{within}{name}");
            let kind = entry.file_type()?;
            if files.is_scratch(&name) {
                continue;
            }
            if kind.is_dir() {
                self.add(files, &format!("{name}/"))?;
                self.folders.insert(name);
            } else if kind.is_file() {
                self.files.insert(name, fs::read(entry.path())?);
            } else {
                return Err(format!("{name} is neither a file nor a folder").into());
            }
        }
        Ok(())
    }

    /// Writes the contents into an existing folder.
    pub fn lay_out(&self, folder: &Path) -> Result<(), TargetError> {
        // The names are in order, so that a folder is made before those in it.
        for name in &self.folders {
            fs::create_dir(folder.join(name))?;
        }
        for (name, bytes) in &self.files {
            fs::write(folder.join(name), bytes)?;
        }
        Ok(())
    }

    /// Drops the files and folders whose parent folder is missing.
    #[must_use]
    pub(super) fn reachable(mut self) -> Self {
        let folders = std::mem::take(&mut self.folders);
        for name in folders {
            if self.holds_folder_of(&name) {
                self.folders.insert(name);
            }
        }
        let files = std::mem::take(&mut self.files);
        self.files = files.into_iter().filter(|(name, _)| self.holds_folder_of(name)).collect();
        self
    }

    fn holds_folder_of(&self, name: &str) -> bool {
        name.rsplit_once('/').is_none_or(|(folder, _)| self.folders.contains(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_survive_writing_and_reading_without_scratch_files() {
        let mut contents = Contents::default();
        contents.folders.extend(["a".to_owned(), "a/b".to_owned(), "empty".to_owned()]);
        contents.files.insert("a/b/file".to_owned(), b"bytes".to_vec());
        contents.files.insert("top".to_owned(), Vec::new());
        let dir = tempfile::tempdir().unwrap();
        contents.lay_out(dir.path()).unwrap();
        fs::write(dir.path().join("a/is-scratch"), b"no matter").unwrap();
        let files = Files { folder: dir.path().to_owned(), scratch: &["-scratch"] };
        assert_eq!(Contents::read(&files).unwrap(), contents);
    }

    #[test]
    fn files_without_their_folder_are_dropped() {
        let mut contents = Contents::default();
        contents.folders.extend(["a".to_owned(), "b/c".to_owned()]);
        for name in ["a/file", "b/file", "b/c/file", "file"] {
            contents.files.insert(name.to_owned(), Vec::new());
        }
        let left = contents.reachable();
        assert_eq!(left.folders.into_iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(left.files.into_keys().collect::<Vec<_>>(), ["a/file", "file"]);
    }
}
