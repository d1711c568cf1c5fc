//! The cases, a file a group.

mod bootstrap;
mod bounded;
mod closing;
mod concurrency;
mod corruption;
mod cost;
mod decisions;
mod durability;
mod errors;
mod fail_closed;
mod failover;
mod ids;
mod keys;
mod killed;
mod life;
mod lists;
mod members;
mod partitions;
mod processes;
mod rooms;
mod sequences;
mod stale_allows;
mod time;
mod types;
mod user_races;
mod users;
mod whole;

use crate::case::Case;

/// Every group, in the order of the matrix.
pub(crate) const GROUPS: &[&[Case]] = &[
    types::CASES,
    ids::apart::CASES,
    ids::each::CASES,
    rooms::CASES,
    members::joining::CASES,
    members::leaving::CASES,
    members::returning::CASES,
    lists::contents::CASES,
    lists::order::CASES,
    lists::paging::CASES,
    errors::CASES,
    keys::lookup::CASES,
    keys::members::CASES,
    keys::refusals::CASES,
    keys::rekeys::CASES,
    life::CASES,
    whole::CASES,
    concurrency::dropped::CASES,
    concurrency::memberships::CASES,
    concurrency::orders::CASES,
    concurrency::readers::CASES,
    concurrency::rekeys::CASES,
    concurrency::rooms::CASES,
    users::CASES,
    bootstrap::CASES,
    user_races::CASES,
    decisions::CASES,
    stale_allows::CASES,
    closing::CASES,
    durability::CASES,
    corruption::CASES,
    fail_closed::CASES,
    failover::CASES,
    partitions::cut_off::CASES,
    partitions::in_step::CASES,
    bounded::CASES,
    cost::CASES,
    time::CASES,
    sequences::CASES,
    killed::CASES,
    processes::CASES,
];

/// The groups that measure time: each of their cases runs when nothing else does, so that a busy
/// machine does not make it lie. `.config/nextest.toml` says the same to nextest.
pub(crate) const ALONE: &[&str] = &["time", "fail_closed", "failover", "partitions", "bounded"];
