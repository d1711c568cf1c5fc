//! What a process did to its files.

use super::{Contents, Disk};

/// Something a process did to its files; names are paths from the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Made an empty file.
    Make(String),
    /// Made an empty folder.
    MakeFolder(String),
    /// Wrote bytes.
    Write {
        /// Into this file.
        name: String,
        /// From this byte on.
        offset: usize,
        /// These.
        bytes: Vec<u8>,
    },
    /// Cut the file to so many bytes, or filled it up with zeros.
    Resize(String, usize),
    /// Took the file away, or the folder.
    Remove(String),
    /// Gave the first, a file or a folder with all in it, the name of the second.
    Rename(String, String),
    /// Had the disk take the file.
    Sync(String),
    /// Had the disk take the names.
    SyncFolder,
}

/// What was seen, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A change of the files.
    Change(Change),
    /// A line on its standard output, which it is about to write.
    Told(String),
}

/// All that a process did to its files.
#[derive(Debug)]
pub struct Recording {
    /// The files before.
    pub before: Contents,
    /// What it did, until its end.
    pub events: Vec<Event>,
}

impl Recording {
    /// The files before anything was done.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::new(self.before.clone())
    }
}
