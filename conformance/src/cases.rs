//! The cases. Each group has a file, or several in a folder.

mod bootstrap;
mod bounded;
mod cancellation;
mod claims;
mod closing;
mod concurrency;
mod corruption;
mod cost;
mod decisions;
mod durability;
mod errors;
mod fail_closed;
mod failover;
mod golden;
mod histories;
mod hung_server;
mod idle;
mod ids;
mod keys;
mod killed;
mod life;
mod lists;
mod members;
mod memory_held;
mod partitions;
mod past;
mod power_cuts;
mod processes;
mod rooms;
mod scale;
mod sequences;
mod stale_allows;
mod time;
mod types;
mod user_races;
mod users;
mod whole;

use crate::case::Case;

/// The cases of every group, in the order of the matrix.
pub(crate) const GROUPS: &[&[Case]] = &[
    types::CASES,
    ids::apart::CASES,
    ids::each::CASES,
    ids::hashes::CASES,
    rooms::CASES,
    members::joining::CASES,
    members::leaving::CASES,
    members::returning::CASES,
    lists::contents::CASES,
    lists::order::CASES,
    lists::paging::CASES,
    lists::cursors::CASES,
    errors::CASES,
    golden::CASES,
    keys::lookup::CASES,
    keys::members::CASES,
    keys::refusals::CASES,
    keys::rekeys::CASES,
    life::CASES,
    cancellation::writes::CASES,
    cancellation::reads::CASES,
    cancellation::clients::CASES,
    cancellation::leaks::CASES,
    cancellation::rekeys::CASES,
    whole::CASES,
    concurrency::index::CASES,
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
    past::rewound::CASES,
    past::replaced::CASES,
    past::vanished::CASES,
    past::older::CASES,
    cost::CASES,
    hung_server::CASES,
    time::CASES,
    memory_held::CASES,
    scale::CASES,
    idle::CASES,
    sequences::CASES,
    histories::CASES,
    claims::CASES,
    killed::CASES,
    power_cuts::CASES,
    processes::CASES,
];

/// The groups that measure how long calls take.
///
/// Each of their cases runs while no other case does. Otherwise a busy machine would make a store
/// look slow. `.config/nextest.toml` names these groups and those of [`WAITING`] for nextest.
pub(crate) const ALONE: &[&str] = &["time"];

/// The groups that inject faults and then wait for deadlines and elections.
///
/// Their cases run beside one another, because they wait most of the time. These cases run beside
/// no cases of other groups, because they measure time, too.
pub(crate) const WAITING: &[&str] =
    &["fail_closed", "failover", "partitions", "bounded", "past", "claims", "idle", "in_step"];

/// The groups that play histories for as long as the run says. All of their cases run at once.
pub(crate) const PLAYED: &[&str] = &["histories"];
