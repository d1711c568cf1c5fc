//! The cases, a file a group.

mod rooms;

use crate::case::Case;

/// Every group, in the order of the matrix.
pub(crate) const GROUPS: &[&[Case]] = &[rooms::CASES];

/// The groups that measure time: each of their cases runs when nothing else does, so that a busy
/// machine does not make it lie. `.config/nextest.toml` says the same to nextest.
pub(crate) const ALONE: &[&str] = &["time", "fail_closed"];
