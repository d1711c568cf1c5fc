//! The JetStream store: one to five NATS servers, linearizable and fail closed.
//!
//! `jetstream/PROTOCOL.md` says what is stored where, which one step makes each write happen, and
//! why each read is as fresh as the contract demands.

mod add;
mod barrier;
mod calls;
mod chores;
mod clock;
mod config;
mod core;
mod counters;
mod defect;
mod epochs;
mod gateway;
mod members;
mod provision;
mod resize;
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
mod watch;

pub use config::{Credentials, JetStreamConfig, ReadMode, Tls};
pub use counters::Counters;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use defect::JetStreamDefect;
pub use resize::BucketProgress;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use simulation::{Blow, Reached, Simulation, Weather};
pub use store::JetStreamStore;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use testing::{Damage, Misheard, Probe, Said};
