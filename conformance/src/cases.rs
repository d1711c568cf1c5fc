//! The cases, a file a group.

mod bootstrap;
mod closing;
mod corruption;
mod decisions;
mod durability;
mod fail_closed;
mod killed;
mod members;
mod processes;
mod rooms;
mod stale_allows;
mod time;
mod types;
mod user_races;
mod users;

use crate::case::Case;

/// Every group, in the order of the matrix.
pub(crate) const GROUPS: &[&[Case]] = &[
    types::CASES,
    rooms::CASES,
    members::CASES,
    users::CASES,
    bootstrap::CASES,
    user_races::CASES,
    decisions::CASES,
    stale_allows::CASES,
    time::CASES,
    fail_closed::CASES,
    corruption::CASES,
    closing::CASES,
    durability::CASES,
    processes::CASES,
    killed::CASES,
];

/// The groups that measure time: each of their cases runs when nothing else does, so that a busy
/// machine does not make it lie. `.config/nextest.toml` says the same to nextest.
pub(crate) const ALONE: &[&str] = &["time", "fail_closed"];
