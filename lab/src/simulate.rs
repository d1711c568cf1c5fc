//! The JetStream store on simulated servers: its own code, thousands of histories a minute, each
//! of them brought back by its seed.
//!
//! [`play`] draws a [`Plan`] from a seed, has several clients make calls on simulated servers to
//! which things happen, and judges what they were answered (`history`).
//! [`crash`] enumerates instead of drawing: every write is stopped dead after each of its
//! exchanges, alone and beside every other; [`pause`] holds every call before each of them, while others
//! do and undo what it relies on. [`broken`] has clients that only this catches.

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
