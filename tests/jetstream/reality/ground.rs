//! Real or simulated servers behind one interface, and waiting for their states.

use std::time::Duration;

use membership::{Blow, JetStreamConfig, Probe, Said, Simulation, Weather};
use nats_cluster::{Cluster, Flow, Way};

/// How long a cluster may take to have a leader, or to have all replicas equal.
const SETTLING: Duration = Duration::from_secs(30);

/// One or three servers, which are asked one exchange at a time.
pub(super) enum Ground {
    Real(Box<Cluster>),
    Simulated(Simulation),
}

impl Ground {
    pub(super) async fn probe(&self, server: usize) -> Probe {
        match self {
            Self::Real(cluster) => {
                let url = cluster.client_url(server).unwrap();
                Probe::connect(&JetStreamConfig::new([url])).await.unwrap()
            }
            Self::Simulated(simulation) => simulation.probe(server),
        }
    }

    /// Cuts a server off from the others, and waits until it has noticed.
    pub(super) async fn isolate(&self, server: usize) {
        match self {
            Self::Real(cluster) => {
                cluster.isolate(server).unwrap();
                wait("still connected", async || cluster.is_alone(server).await).await;
            }
            Self::Simulated(simulation) => simulation.strike(Blow::Isolate(server)),
        }
    }

    /// The sequence of the last message that a server's replica has, and whether it answers reads.
    pub(super) async fn replica(&self, server: usize) -> Option<(u64, bool)> {
        match self {
            Self::Real(cluster) => {
                let replica = cluster.replica(server, "KV_members").await?;
                Some((replica.last_sequence, replica.answers))
            }
            Self::Simulated(simulation) => simulation.replica(server, "members"),
        }
    }

    /// Waits until all three replicas have everything up to a sequence.
    pub(super) async fn everywhere(&self, sequence: u64) {
        for server in 0..3 {
            let has = async || self.replica(server).await.is_some_and(|(last, _)| last >= sequence);
            wait("not copied", has).await;
        }
    }

    /// Waits until a server's replica answers reads.
    pub(super) async fn answers(&self, server: usize) {
        let answers = async || self.replica(server).await.is_some_and(|(_, answers)| answers);
        wait("no answers", answers).await;
    }

    pub(super) fn join(&self) {
        match self {
            Self::Real(cluster) => cluster.heal(),
            Self::Simulated(simulation) => simulation.strike(Blow::Join),
        }
    }

    pub(super) async fn restart(&self, server: usize) {
        match self {
            Self::Real(cluster) => {
                cluster.kill(server).await.unwrap();
                cluster.restart(server).await.unwrap();
            }
            Self::Simulated(simulation) => {
                simulation.strike(Blow::Kill(server));
                simulation.strike(Blow::Start(server));
            }
        }
    }

    /// Loses all answers of this server from now on.
    pub(super) fn lose_answers(&self, server: usize) {
        match self {
            Self::Real(cluster) => {
                cluster.client_link(server).unwrap().set(Way::Down, Flow::Blackhole);
            }
            Self::Simulated(simulation) => {
                simulation.strike(Blow::Weather(Weather { lost_answers: 1000, ..Weather::CALM }));
            }
        }
    }

    pub(super) fn lose_none(&self, server: usize) {
        match self {
            Self::Real(cluster) => cluster.client_link(server).unwrap().heal(),
            Self::Simulated(simulation) => simulation.strike(Blow::Weather(Weather::CALM)),
        }
    }

    pub(super) async fn leader(&self) -> usize {
        let mut leader = None;
        let look = async || match self {
            Self::Real(cluster) => cluster.leader_of("KV_members").await,
            Self::Simulated(simulation) => simulation.leader("members"),
        };
        wait("no leader", async || {
            leader = look().await;
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }
}

/// Waits until `so` returns true.
async fn wait(not_yet: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SETTLING;
    while !so().await {
        assert!(tokio::time::Instant::now() < deadline, "{not_yet}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Repeats a request until its answer is `right`, for which real servers may need some time.
pub(super) async fn until(
    what: &str,
    right: impl Fn(&Said) -> bool,
    ask: impl AsyncFn() -> Said,
) -> Said {
    let deadline = tokio::time::Instant::now() + SETTLING;
    loop {
        let said = ask().await;
        if right(&said) {
            return said;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: still {said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn is_stored(said: &Said) -> bool {
    matches!(said, Said::Stored(_))
}

/// Makes the bucket, and returns a patient probe at the first server.
pub(super) async fn begin(ground: &Ground, replicas: u8) -> Probe {
    let probe = ground.probe(0).await;
    until("make", |said| *said == Said::Done, async || probe.make(replicas).await).await;
    // The patient probe sends the barrier only once, so that the next message has a known sequence.
    let probe = probe.patient();
    until("barrier", is_stored, async || probe.barrier().await).await;
    ground.leader().await;
    probe
}
