//! The JetStream store's own code on simulated servers, in virtual time.
//!
//! A simulation runs thousands of histories a minute, and a seed reproduces each of them.
//!
//! - [`play`] draws a [`Plan`] from a seed, lets several clients make calls while faults are
//!   injected into the servers, and judges the answers (`membership_conformance::history`).
//! - [`crash`] enumerates crash points: every write is stopped dead after each of its exchanges
//!   with the servers, alone and beside every other write.
//! - [`pause`] enumerates pauses: every call is held before each of its exchanges, while other
//!   clients do and undo what the call relies on.
//! - [`broken`] has broken clients that only simulations catch.

pub mod broken;
mod calls;
pub mod crash;
mod memory;
pub mod pause;
mod plan;
mod run;
mod tally;
mod vanished;
mod world;

pub use calls::{Call, writes};
pub use plan::{Back, Plan};
pub use run::{Outcome, Progress, run};
pub use tally::Tally;
pub use world::{Played, play, play_plan};
