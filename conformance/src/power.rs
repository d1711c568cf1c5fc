//! Crash consistency: records a store's system calls on its files, and computes what a crash at
//! each moment leaves.
//!
//! A child process is traced (`ptrace`). Its writes, syncs and changes of names are recorded in
//! order, together with the calls that it acknowledges in between ([`Recording`]). From one
//! recording, without running the child again, [`Disk`] computes the files after each possible
//! crash. If only the process was killed, all of its writes are there. After a power cut, all
//! synced writes are there, and possibly some sectors of the others.
//!
//! The method is that of ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI
//! 2014).

mod contents;
mod disk;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod recorder;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[path = "power/nowhere.rs"]
mod recorder;
mod recording;

pub use contents::Contents;
pub use disk::{Disk, Ending};
pub use recorder::{be_watched, claim, record};
pub use recording::{Change, Event, Recording};

use std::path::PathBuf;

/// Where a store keeps its files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The folder that holds the store's files and nothing else.
    pub folder: PathBuf,
    /// Name endings of scratch files, which nobody needs after a crash. Changes of these files are
    /// not recorded, and a crash leaves none of them.
    pub scratch: &'static [&'static str],
}

impl Files {
    /// Whether the file with this path, relative to the folder, is a scratch file.
    #[must_use]
    pub fn is_scratch(&self, name: &str) -> bool {
        self.scratch.iter().any(|ending| name.ends_with(ending))
    }
}
