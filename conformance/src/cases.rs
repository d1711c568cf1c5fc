//! The cases, a file a group.

mod cost;
mod errors;
mod ids;
mod keys;
mod lists;
mod members;
mod rooms;
mod sequences;
mod types;

use crate::case::Case;

/// Every group, in the order of the matrix.
pub(crate) const GROUPS: &[&[Case]] = &[
    types::CASES,
    ids::each::CASES,
    ids::apart::CASES,
    errors::CASES,
    rooms::CASES,
    members::joining::CASES,
    members::leaving::CASES,
    members::returning::CASES,
    lists::paging::CASES,
    lists::order::CASES,
    lists::contents::CASES,
    keys::lookup::CASES,
    keys::members::CASES,
    keys::refusals::CASES,
    keys::rekeys::CASES,
    cost::CASES,
    sequences::CASES,
];

/// The groups that measure time: each of their cases runs when nothing else does, so that a busy
/// machine does not make it lie. `.config/nextest.toml` says the same to nextest.
pub(crate) const ALONE: &[&str] = &["time", "fail_closed"];
