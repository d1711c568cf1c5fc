//! The recording of what a process did to its files.

use super::{Contents, Disk};

/// A change that a process made to its files, or a sync. Names are paths relative to the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Creates an empty file.
    Make(String),
    /// Creates an empty folder.
    MakeFolder(String),
    /// Writes bytes.
    Write {
        /// The file.
        name: String,
        /// The position of the first byte.
        offset: usize,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Truncates a file to this length, or extends it with zeros.
    Resize(String, usize),
    /// Removes a file or a folder.
    Remove(String),
    /// Renames the first to the second: a file, or a folder with its contents.
    Rename(String, String),
    /// Syncs a file.
    Sync(String),
    /// Syncs a folder. All folders count as one: the names in all of them are synced.
    SyncFolder,
}

/// An event of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A change of the files, or a sync.
    Change(Change),
    /// A line that the process is about to write to its standard output.
    Told(String),
}

/// All changes that a process made to its files, and the lines that it wrote to its standard output
/// meanwhile.
#[derive(Debug)]
pub struct Recording {
    /// The files before the process ran.
    pub before: Contents,
    /// The events in order, up to the end of the process.
    pub events: Vec<Event>,
}

impl Recording {
    /// The files before the first event.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::new(self.before.clone())
    }
}
