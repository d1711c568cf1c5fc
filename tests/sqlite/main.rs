//! Tests of the SQLite store beyond the conformance suite: its file, its locks, its limits.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this is tests"
)]

mod damage;
mod files;
mod fixtures;
mod life;
mod locks;
mod place;
mod space;
mod support;
