//! The JetStream store: one to five NATS servers, linearizable and fail closed.
//!
//! `jetstream/PROTOCOL.md` says what is stored where, which one step makes each write happen, and
//! why each read is as fresh as the contract demands.

mod calls;
mod config;
mod counters;
mod defect;
mod gateway;
mod room;
#[cfg(feature = "testing")]
mod simulation;
mod store;
mod stored;
#[cfg(feature = "testing")]
mod testing;
mod user;

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
