//! Simulated servers: deterministic from a seed, on one thread, under tokio's paused clock.
//!
//! A bucket is a log of committed changes, and replicas that apply the log with some lag. The leader checks
//! expectations, and commits while it reaches a majority. A former leader that does not know that it was replaced
//! checks expectations against its own data and refuses writes that fail them, but acknowledges none. A replica that
//! has begun to answer direct gets answers them from the data that it has, even while it is cut off. A leader begins to
//! answer at once, a follower up to two seconds after it began to follow, and a server that was started again not
//! before it hears of a leader. Requests and answers are late or lost; servers are cut off, killed and paused. The
//! store must not depend on anything else that servers do.
//!
//! The store's own code runs unchanged on the simulation, above the trait
//! [`Servers`](crate::jetstream::gateway::exchange::Servers). `tests/jetstream/reality.rs` compares the
//! simulation with real servers.

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

/// Simulated servers, connected to one another.
///
/// The seed determines everything that happens, even the ids that clients make, as long as the
/// simulation is alone on its thread, in a current-thread runtime whose clock is paused from the
/// start.
#[derive(Debug)]
#[doc(hidden)]
pub struct Simulation {
    shared: Arc<SharedCluster>,
    mutation: Mutation<JetStreamDefect>,
    _ids: Seeded,
}

impl Simulation {
    /// Makes this many servers.
    #[must_use]
    pub fn new(seed: u64, servers: usize, weather: Weather) -> Self {
        let mut cluster = Cluster::new(seed, servers, weather);
        let ids = Seeded::new(cluster.chance.seed());
        let shared = Arc::new(SharedCluster::new(cluster));
        Self { shared, mutation: Mutation::NONE, _ids: ids }
    }

    /// Gives this defect to all clients that are opened from now on.
    #[must_use]
    pub fn with_defect(self, defect: JetStreamDefect) -> Self {
        Self { mutation: Mutation::of(defect), ..self }
    }

    /// Opens a client that is connected to `server`, and is called `name` in the trace.
    ///
    /// With `roams` the client goes to another server when its own does not answer. Settings that say how to reach real
    /// servers (URLs, credentials, TLS, subjects) are ignored.
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

    /// Returns a probe, which sends single requests to a server.
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

    /// Injects this fault, or makes this repair, at once.
    pub fn strike(&self, blow: Blow) {
        self.shared.lock().strike(blow);
        self.shared.changed.notify_waiters();
    }

    /// Makes a server lead a bucket (named with its prefix).
    ///
    /// The server does not lead if it has no replica or reaches no majority.
    pub fn lead(&self, server: usize, bucket: &str) {
        self.shared.lock().lead(server, &format!("KV_{bucket}"));
        self.shared.changed.notify_waiters();
    }

    /// The server that leads a bucket (named with its prefix).
    #[must_use]
    pub fn leader(&self, bucket: &str) -> Option<usize> {
        let mut cluster = self.shared.lock();
        let (group, ..) = cluster.group(&format!("KV_{bucket}"))?;
        group.leader()
    }

    /// The last sequence in a server's replica of a bucket, and whether it answers reads.
    #[must_use]
    pub fn replica(&self, server: usize, bucket: &str) -> Option<(u64, bool)> {
        let mut cluster = self.shared.lock();
        let (group, ..) = cluster.group(&format!("KV_{bucket}"))?;
        let (stream, _) = group.replica(server)?;
        Some((stream.last(), group.answers(server, Instant::now())))
    }

    /// The number of the last write, for [`Blow::GoBack`]. The number grows with every write.
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.shared.lock().moment()
    }

    /// The time since the start by the clients' clock, which also counts time in suspension.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.shared.lock().clock.now()
    }

    /// Repairs everything: all servers run, are new enough and reach one another, and no message is
    /// lost.
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

    /// Returns how often each event has happened so far.
    #[must_use]
    pub fn reached(&self) -> Reached {
        self.shared.lock().reached
    }

    /// How many compare-and-sets of a client got no answer.
    #[must_use]
    pub fn doubts(&self, client: &str) -> u64 {
        self.shared.lock().doubts.get(client).copied().unwrap_or(0)
    }

    /// Records every event from now on.
    pub fn keep_trace(&self) {
        self.shared.lock().keep_trace();
    }

    /// The recorded events, one a line.
    #[must_use]
    pub fn trace(&self) -> String {
        self.shared.lock().trace().to_owned()
    }
}
