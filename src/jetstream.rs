//! The JetStream store: one to five NATS servers, linearizable and fail closed.
//!
//! `jetstream/PROTOCOL.md` says what is stored where, which one step makes each write happen, and
//! why each read is as fresh as the contract demands.

mod add;
mod calls;
mod chores;
mod config;
mod core;
mod counters;
mod defect;
mod epochs;
mod gateway;
mod members;
mod rooms;
mod rooms_of;
mod rosters;
mod sealed_keys;
#[cfg(feature = "testing")]
mod simulation;
mod store;
mod stored;
mod sweep;
#[cfg(feature = "testing")]
mod testing;
mod turns;
mod users;
mod users_copy;

pub use config::{Credentials, JetStreamConfig, ReadMode, Tls};
pub use counters::Counters;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use defect::JetStreamDefect;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use gateway::fuse::Misheard;
pub use gateway::resize::BucketProgress;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use simulation::{Blow, Reached, Simulation, Weather};
pub use store::JetStreamStore;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use testing::{Damage, Probe, Said};
