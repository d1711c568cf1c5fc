//! The servers, simulated: deterministic from a seed, under tokio's paused clock, on one thread.
//!
//! A bucket is a log of committed changes and some replicas that come to it in their own time. A
//! leader checks expectations and commits, where a majority is within its reach; a former one that
//! does not know better refuses by what it knows, and acknowledges nothing. Any replica answers
//! direct gets from what it has, cut off or not, once it has begun to: a leader at once, a follower
//! up to two seconds after it came to follow, one that started and hears of no leader never.
//! Messages are late or lost, answers too; servers are cut off, killed and paused. What else servers
//! do, the store must not depend on.
//!
//! The store's own code runs on it unchanged, above the trait
//! [`Servers`](crate::jetstream::gateway::exchange::Servers). `tests/jetstream/reality.rs` holds the
//! simulation to what real servers do.

mod cluster;
mod deliveries;
mod group;
mod machines;
mod reached;
mod simulated_servers;
mod stream;
mod weather;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::jetstream::config::JetStreamConfig;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::store::{JetStreamStore, LONG};
use crate::jetstream::stored::seeded::Seeded;
use crate::jetstream::testing::Probe;
use crate::mutation::Mutation;
use cluster::{Cluster, SharedCluster};
use simulated_servers::SimulatedServers;

pub use cluster::Blow;
pub use reached::Reached;
pub use weather::Weather;

/// Simulated servers that all are connected to one another.
///
/// Everything about it, the ids that its clients make included, follows from the seed, as long as
/// it is alone on its thread, in a current-thread runtime whose clock is paused from the start.
#[derive(Debug)]
#[doc(hidden)]
pub struct Simulation {
    shared: Arc<SharedCluster>,
    mutation: Mutation<JetStreamDefect>,
    _ids: Seeded,
}

impl Simulation {
    /// So many servers.
    #[must_use]
    pub fn new(seed: u64, servers: usize, weather: Weather) -> Self {
        let mut cluster = Cluster::new(seed, servers, weather);
        let ids = Seeded::new(cluster.chance.seed());
        let shared = Arc::new(SharedCluster::new(cluster));
        Self { shared, mutation: Mutation::NONE, _ids: ids }
    }

    /// The same servers, for clients that are broken in this way.
    #[must_use]
    pub fn with_defect(self, defect: JetStreamDefect) -> Self {
        Self { mutation: Mutation::of(defect), ..self }
    }

    /// Opens a client, called `name` in the trace, that is connected to `server`; with `roams` it
    /// goes to another when that one does not answer. Of the configuration only what is no
    /// address counts.
    pub async fn open(
        &self,
        name: &str,
        server: usize,
        roams: bool,
        config: JetStreamConfig,
    ) -> Result<JetStreamStore, Error> {
        let servers = self.servers(name, server, roams, config.prefix.clone());
        let deadline = Instant::now() + config.op_timeout * LONG;
        JetStreamStore::open_on(Arc::new(servers), config, self.mutation, deadline).await
    }

    /// Asks a server, one exchange at a time.
    #[must_use]
    pub fn probe(&self, server: usize) -> Probe {
        Probe::new(Arc::new(self.servers("probe", server, false, String::new())))
    }

    fn servers(&self, name: &str, server: usize, roams: bool, prefix: String) -> SimulatedServers {
        SimulatedServers {
            shared: Arc::clone(&self.shared),
            name: name.to_owned(),
            prefix,
            server: AtomicUsize::new(server),
            roams,
            silent: AtomicU32::new(0),
        }
    }

    /// Has this happen to the servers, at once.
    pub fn strike(&self, blow: Blow) {
        self.shared.lock().strike(blow);
        self.shared.changed.notify_waiters();
    }

    /// Has this server lead a bucket, named with its prefix, if it can.
    pub fn lead(&self, server: usize, bucket: &str) {
        self.shared.lock().lead(server, &format!("KV_{bucket}"));
        self.shared.changed.notify_waiters();
    }

    /// The server that leads a bucket, named with its prefix.
    #[must_use]
    pub fn leader(&self, bucket: &str) -> Option<usize> {
        let mut cluster = self.shared.lock();
        let (group, ..) = cluster.group(&format!("KV_{bucket}"))?;
        group.leader()
    }

    /// The sequence of the last message that a server's replica of a bucket has, and whether that
    /// replica answers reads.
    #[must_use]
    pub fn replica(&self, server: usize, bucket: &str) -> Option<(u64, bool)> {
        let mut cluster = self.shared.lock();
        let (group, ..) = cluster.group(&format!("KV_{bucket}"))?;
        let (stream, _) = group.replica(server)?;
        Some((stream.last(), group.answers(server, Instant::now())))
    }

    /// The moment of the last write, for [`Blow::GoBack`].
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.shared.lock().moment()
    }

    /// The time since the start by the clients' clock, which also counts time in suspension.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.shared.lock().clock.now()
    }

    /// Everything works again, and messages take their time, but arrive.
    pub fn heal(&self) {
        self.strike(Blow::Weather(Weather::CALM));
        if self.shared.lock().older {
            self.strike(Blow::Upgrade);
        }
        self.strike(Blow::Join);
        let servers = self.shared.lock().servers.0.len();
        for server in 0..servers {
            self.strike(Blow::Start(server));
            self.strike(Blow::Resume(server));
        }
    }

    /// What it met so far.
    #[must_use]
    pub fn reached(&self) -> Reached {
        self.shared.lock().reached
    }

    /// How many compare-and-sets of a client were not answered.
    #[must_use]
    pub fn doubts(&self, client: &str) -> u64 {
        self.shared.lock().doubts.get(client).copied().unwrap_or(0)
    }

    /// From now on everything that happens is written down.
    pub fn keep_trace(&self) {
        self.shared.lock().keep_trace();
    }

    /// What was written down, a line for each thing that happened.
    #[must_use]
    pub fn trace(&self) -> String {
        self.shared.lock().trace().to_owned()
    }
}
