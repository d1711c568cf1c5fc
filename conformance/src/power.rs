//! Power cuts: what a store has done to its files, call by call of the operating system, and what
//! could have been left of that at each moment.
//!
//! A child at work is watched (`ptrace`), and each of its writes, syncs and changes of names is
//! written down in order, with what it has acknowledged in between ([`Recording`]). From one
//! recording come, without running anything again, the files as each possible end would have left
//! them ([`Disk`]): the process killed, so that the system has everything; the power cut, so that
//! only what was synced is there; the power cut, and of what was not synced some sectors made it.
//!
//! The method is that of ALICE (Pillai et al., *All File Systems Are Not Created Equal*, OSDI 2014).

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

/// Where a store keeps its files, for whoever watches them.
#[derive(Clone, Debug)]
pub struct Files {
    /// The folder they are in, and nothing else.
    pub folder: PathBuf,
    /// What the names of files end in that hold nothing which is needed after a power cut. They
    /// are not watched, and gone afterwards.
    pub scratch: &'static [&'static str],
}

impl Files {
    /// Whether this one, named from the folder, is of no account.
    #[must_use]
    pub fn is_scratch(&self, name: &str) -> bool {
        self.scratch.iter().any(|ending| name.ends_with(ending))
    }
}
