//! The conformance suite: holds membership stores, of any author, to `CONTRACT.md`.
//!
//! A store joins by implementing [`Target`] and [`Instance`]. [`harness::main`] then makes a test
//! of every case, for `cargo test` and `cargo nextest run`; `runner::main` (feature `runner`) is
//! the suite as a program that prints a matrix and writes reports. The suite itself is tested by
//! its [`controls`]: stores with one defect each, which a case must catch.

pub mod controls;
pub mod harness;
pub mod power;
#[cfg(feature = "runner")]
pub mod runner;

mod cases;
mod child;
mod clock;
mod context;
mod load;
mod memory;
mod observe;
mod outer;
mod race;
mod replicated;
mod scene;
mod schedule;
mod sequences;
mod target;
mod together;
mod transcript;
mod verdict;
mod vet;

// What the project's own tests and its lab use. There is no promise of stability.
#[doc(hidden)]
pub mod case;
#[doc(hidden)]
pub mod contract;
#[doc(hidden)]
pub mod golden;
#[doc(hidden)]
pub mod history;
#[doc(hidden)]
pub mod judge;
#[doc(hidden)]
pub mod make;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod seed;
#[doc(hidden)]
pub mod show;
#[doc(hidden)]
pub mod soak;

pub use async_trait::async_trait;
pub use history::Reached;
pub use memory::Memory;
pub use target::{
    Claim, Downgrade, Fault, Harm, Instance, Leaves, Loss, Lost, Need, Replacement, Replicas,
    Rewind, Stored, Target, TargetError, Unclaimed,
};
