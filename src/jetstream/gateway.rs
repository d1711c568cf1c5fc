//! The way to the servers: each exchange with them, retries, barriers, and reads that prove how fresh they are.
//!
//! The store calls [`Gateway`](tries::Gateway), which decides what is tried again and until when. Below it, each method
//! of the trait [`Servers`](exchange::Servers) is one exchange with the servers. Only keys, values, sequences and
//! errors of our own cross that trait. Driver types, subjects, headers, wire formats and the server's error codes stay
//! in `nats/`, behind it. The simulated servers implement it, too.

pub(super) mod backoff;
pub(super) mod barrier;
pub(super) mod bucket_client;
pub(super) mod bucket_settings;
pub(super) mod clock;
pub(super) mod exchange;
mod feed;
#[cfg(feature = "testing")]
pub(super) mod fuse;
pub(super) mod nats;
pub(super) mod provision;
mod read_pace;
pub(super) mod resize;
pub(super) mod server_version;
pub(super) mod settings_watch;
pub(super) mod tries;
