//! The conformance suite: holds membership stores to `CONTRACT.md`, ours or a stranger's.
//!
//! A store joins by implementing [`Target`] and [`Instance`]; [`harness::main`] then makes a test
//! of every case, for `cargo test` and `cargo nextest run`. The binary `conformance` runs the
//! suite on the stores that ship with the project and prints a matrix.

pub mod case;
mod cases;
pub mod child;
pub mod cli;
mod clock;
pub mod context;
pub mod contract;
pub mod gallery;
mod gate;
pub mod golden;
pub mod harness;
pub mod history;
pub mod judge;
mod load;
pub mod make;
pub mod model;
pub mod observe;
mod outer;
pub mod power;
pub mod race;
pub mod replicated;
mod report;
pub mod run;
pub mod scene;
mod seed;
pub mod sequences;
pub mod show;
#[cfg(feature = "jetstream")]
pub mod simulate;
pub mod soak;
mod target;
pub mod targets;
pub mod together;
pub mod transcript;
pub mod verdict;
mod vet;

pub use async_trait::async_trait;
pub use target::{
    Claim, Downgrade, Fault, Harm, Instance, Leaves, Loss, Lost, Need, Replacement, Replicas,
    Rewind, Stored, Target, TargetError, Unclaimed,
};
