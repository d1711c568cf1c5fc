//! Real NATS servers for tests: one, or a cluster that can be cut apart.
//!
//! [`Provision`] says where the server comes from. [`Cluster`] starts one, three or five servers on
//! loopback, with every connection through a [`Link`]: a small proxy in this process that can cut,
//! blackhole, delay, throttle or half-close the connection.
//!
//! ```no_run
//! use nats_cluster::{Cluster, ClusterOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), nats_cluster::NatsError> {
//! let cluster = Cluster::start(ClusterOptions::servers(3)).await?;
//! let url = cluster.client_url(0)?; // give it to the store
//! cluster.isolate(0)?; // node 0 keeps its clients and loses the quorum
//! cluster.heal();
//! cluster.wait_ready().await?;
//! # Ok(())
//! # }
//! ```

#![cfg(unix)]

mod background;
mod cluster;
mod config;
#[cfg(feature = "docker")]
mod docker;
mod error;
mod fetch;
mod greeting;
mod link;
mod monitor;
mod node;
mod past;
mod process;
mod provision;
mod ready;
mod workdir;

pub use cluster::{Cluster, Replica};
pub use config::{Auth, ClusterOptions, Sync, Tls};
pub use error::NatsError;
pub use link::{Flow, Link, Way};
pub use node::Node;
pub use provision::{NatsServer, Provision};
