//! The JetStream store: one to five NATS servers, linearizable and fail closed.
//!
//! `jetstream/PROTOCOL.md` says what is stored where, which one step makes each write happen, and
//! why each read is as fresh as the contract demands.

mod add;
mod barrier;
mod bucket;
mod chores;
mod codec;
mod config;
mod core;
mod epochs;
mod gateway;
mod key;
mod keys;
mod life;
mod members;
mod provision;
mod record;
mod replica;
mod replicas;
mod rooms;
mod rooms_of;
mod rosters;
mod store;
mod sweep;
#[cfg(feature = "testing")]
mod testing;
mod turns;
mod users;

pub use config::{Credentials, JetStreamConfig, ReadMode, Tls};
pub use replicas::BucketProgress;
pub use store::JetStreamStore;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use testing::Damage;
