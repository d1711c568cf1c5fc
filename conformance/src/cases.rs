//! The cases, a file a group.

mod keys;
mod members;
mod rooms;
mod sequences;
mod types;

use crate::case::Case;

/// Every group, in the order of the matrix.
pub(crate) const GROUPS: &[&[Case]] = &[
    types::CASES,
    rooms::CASES,
    members::CASES,
    keys::lookup::CASES,
    keys::rekeys::CASES,
    keys::members::CASES,
    keys::refusals::CASES,
    sequences::CASES,
];

/// The groups that measure time: each of their cases runs when nothing else does, so that a busy
/// machine does not make it lie. `.config/nextest.toml` says the same to nextest.
pub(crate) const ALONE: &[&str] = &["time", "fail_closed"];
