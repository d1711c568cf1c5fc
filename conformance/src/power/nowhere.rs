//! The recorder for platforms on which system calls cannot be traced: it refuses.

use std::io;
use std::process::Command;

use super::{Files, Recording};
use crate::target::{Claim, TargetError};

const WHY: &str = "system calls can be traced only on Linux, on x86-64 and ARM64";

/// Declines to record.
#[must_use]
pub fn claim() -> Claim {
    Claim::Declined(WHY)
}

/// Fails: no process can be traced here.
pub fn be_watched() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, WHY))
}

/// Fails: no process can be traced here.
pub fn record(_: Command, _: &Files, _: &[u32]) -> Result<Recording, TargetError> {
    Err(WHY.into())
}
