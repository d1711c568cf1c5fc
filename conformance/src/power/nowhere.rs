//! Where nobody can be watched.

use std::io;
use std::process::Command;

use super::{Files, Recording};
use crate::target::{Claim, TargetError};

const WHY: &str = "writes can be watched on Linux alone, on x86-64 and ARM64";

/// That it cannot be done here.
#[must_use]
pub fn claim() -> Claim {
    Claim::Declined(WHY)
}

/// That it cannot be done here.
pub fn be_watched() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, WHY))
}

/// That it cannot be done here.
pub fn record(_: Command, _: &Files, _: &[u32]) -> Result<Recording, TargetError> {
    Err(WHY.into())
}
