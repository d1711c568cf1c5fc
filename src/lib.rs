//! Stores of encrypted rooms, their members and their sealed keys, behind one contract.
//!
//! [`Store`] is the contract as a trait; `CONTRACT.md` lists its clauses. [`MemoryStore`] keeps
//! everything in memory, `SqliteStore` in one file, `JetStreamStore` on one to five NATS servers.
//! [`open`] opens the store that a [`StoreConfig`] names. All of them fail closed: a decision that
//! cannot be reached denies.
//!
//! With the feature `tracing` the SQLite and the JetStream store emit events and spans of the crate
//! `tracing`, with targets that begin with `membership::`.

// Without the feature, events are empty, and arms that differ in their events alone are the same.
#![cfg_attr(
    not(feature = "tracing"),
    allow(clippy::match_same_arms, clippy::if_same_then_else, reason = "their events differ")
)]

mod config;
mod decision;
mod error;
#[cfg(any(feature = "sqlite", feature = "jetstream"))]
mod gate;
#[cfg(feature = "jetstream")]
mod jetstream;
#[cfg(feature = "testing")]
mod json;
mod memory;
#[cfg(any(feature = "sqlite", feature = "jetstream"))]
mod mutation;
mod record;
mod secret;
mod shown;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
#[cfg(any(feature = "sqlite", feature = "jetstream"))]
mod trace;
mod types;

pub use config::{JetStreamSection, SqliteSection, StoreConfig, open};
pub use decision::{Decision, DenyReason};
pub use error::{Cause, Conflict, Corrupt, Endpoints, Error, Invalid, Record};
#[cfg(all(feature = "jetstream", feature = "testing"))]
#[doc(hidden)]
pub use jetstream::{
    Blow, Damage, JetStreamDefect, Misheard, Probe, Reached, Said, Simulation, Weather,
};
#[cfg(feature = "jetstream")]
pub use jetstream::{
    BucketProgress, Counters, Credentials, JetStreamConfig, JetStreamStore, ReadMode, Tls,
};
pub use memory::MemoryStore;
pub use record::{Member, NewMember, NewRoom, NewUser, Rekey, Role, Room, SealedKey, User};
pub use secret::Secret;
#[cfg(all(feature = "sqlite", feature = "testing"))]
#[doc(hidden)]
pub use sqlite::SqliteDefect;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteConfig, SqliteStore};
pub use store::Store;
pub use types::{Ciphertext, EndpointId, Epoch, Label, Page, RoomId, Timestamp, UserKey};

/// Whether this build has the feature `testing`. The benches refuse to measure such a build.
#[doc(hidden)]
pub const TESTING: bool = cfg!(feature = "testing");

/// Runs the examples of the README as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
