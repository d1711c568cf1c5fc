//! The cases, a file a group.

mod concurrency;
mod keys;
mod life;
mod rooms;

use crate::case::Case;

/// Every group, in the order of the matrix.
pub(crate) const GROUPS: &[&[Case]] = &[
    rooms::CASES,
    keys::lookup::CASES,
    keys::rekeys::CASES,
    keys::members::CASES,
    keys::refusals::CASES,
    life::CASES,
    concurrency::orders::CASES,
    concurrency::rekeys::CASES,
    concurrency::memberships::CASES,
    concurrency::rooms::CASES,
    concurrency::readers::CASES,
    concurrency::dropped::CASES,
];

/// The groups that measure time: each of their cases runs when nothing else does, so that a busy
/// machine does not make it lie. `.config/nextest.toml` says the same to nextest.
pub(crate) const ALONE: &[&str] = &["time", "fail_closed"];
