//! Faults of servers and of the links to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};

use super::home::BUCKETS;
use membership_conformance::{Fault, Harm, TargetError};
use nats_cluster::{Cluster, Flow, Link, NatsError};

/// A fault during which no call is answered.
const fn total(name: &'static str) -> Fault {
    Fault { name, stops_reads: true, stops_writes: true }
}

const STOPPED: &str = "every server is stopped";
const KILLED: &str = "most servers are killed";
const PAUSED: &str = "most servers are paused";
const CUT: &str = "every link to a server is cut";
const SILENT: &str = "every link to a server carries nothing";

const ONE: &str = "the server is stopped";
const ONE_KILLED: &str = "the server is killed";
const ONE_PAUSED: &str = "the server is paused";

const OF_ONE: &[Fault] =
    &[total(ONE), total(ONE_KILLED), total(ONE_PAUSED), total(CUT), total(SILENT)];
const OF_SEVERAL: &[Fault] =
    &[total(STOPPED), total(KILLED), total(PAUSED), total(CUT), total(SILENT)];

pub(super) fn of(servers: u8) -> &'static [Fault] {
    if servers == 1 { OF_ONE } else { OF_SEVERAL }
}

/// How a slow link delays what it carries.
const SLOW: Flow = Flow::Delay(Duration::from_millis(100));

/// How long the buckets may take to elect leaders.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether servers were harmed and not healed since.
#[derive(Default)]
pub(super) struct Harmed(AtomicBool);

impl Harmed {
    pub(super) async fn inject(&self, cluster: &Cluster, fault: &Fault) -> Result<(), NatsError> {
        self.0.store(true, Ordering::SeqCst);
        let all = 0..cluster.size();
        let most = 0..=cluster.size() / 2;
        match fault.name {
            STOPPED | ONE => try_join_all(all.map(|node| cluster.stop(node))).await.map(drop),
            KILLED | ONE_KILLED => {
                try_join_all(most.map(|node| cluster.kill(node))).await.map(drop)
            }
            PAUSED | ONE_PAUSED => {
                try_join_all(most.map(|node| cluster.pause(node))).await.map(drop)
            }
            CUT => all.into_iter().try_for_each(|node| cluster.client_link(node).map(Link::cut)),
            _ => {
                all.into_iter().try_for_each(|node| cluster.client_link(node).map(Link::blackhole))
            }
        }
    }

    pub(super) async fn harm(
        &self,
        cluster: &Cluster,
        server: usize,
        harm: Harm,
    ) -> Result<(), TargetError> {
        self.0.store(true, Ordering::SeqCst);
        let others: Vec<_> = (0..cluster.size()).filter(|other| *other != server).collect();
        let mut others_each = others.iter().copied();
        let done: Result<(), NatsError> =
            match harm {
                Harm::Isolate => cluster.isolate(server),
                Harm::Mute => others_each
                    .try_for_each(|other| cluster.one_way(server, other, Flow::Blackhole)),
                Harm::Deafen => others_each
                    .try_for_each(|other| cluster.one_way(other, server, Flow::Blackhole)),
                Harm::Slow => {
                    others_each.try_for_each(|other| {
                        cluster.route(server, other).map(|link| link.both(SLOW))
                    })?;
                    cluster.client_link(server).map(|link| link.both(SLOW))
                }
                Harm::Blackhole => {
                    cluster.blackhole(&[server], &others)?;
                    cluster.client_link(server).map(Link::blackhole)
                }
                Harm::Kill => cluster.kill(server).await,
                Harm::Pause => cluster.pause(server).await,
                Harm::Stop => cluster.stop(server).await,
                other => return Err(format!("the servers cannot be harmed so: {other:?}").into()),
            };
        Ok(done?)
    }

    /// Ends all harm, and waits as [`wait`](Self::wait) does.
    pub(super) async fn heal(&self, cluster: &Cluster, prefix: &str) -> Result<(), TargetError> {
        if !self.0.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        cluster.heal();
        let nodes = 0..cluster.size();
        try_join_all(nodes.clone().map(|node| cluster.resume(node))).await?;
        try_join_all(nodes.map(|node| cluster.run(node))).await?;
        self.wait(cluster, prefix).await
    }

    /// Waits until every running server serves, and most agree on the leader of each bucket.
    pub(super) async fn wait(&self, cluster: &Cluster, prefix: &str) -> Result<(), TargetError> {
        cluster.wait_ready().await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leaders = BUCKETS.map(|bucket| leader(cluster, prefix, bucket));
            if join_all(leaders).await.iter().all(Option::is_some) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let missing = "some bucket has no leader long after everything was healed";
                return Err(format!("{missing}; {}", cluster.logs(5)).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Waits until every bucket has a leader that enough servers follow, and keeps it for 10 s.
///
/// A follower stands for election after 4 to 9 s without a leader, so no election is pending then.
/// Returns `false` if the servers do not get there in time.
pub(super) async fn settles(cluster: &Cluster, prefix: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut since = None;
    while Instant::now() < deadline {
        let serve = BUCKETS.map(|bucket| stream(prefix, bucket));
        let serve = serve.iter().map(|stream| cluster.serves(stream));
        if !join_all(serve).await.into_iter().all(|serves| serves) {
            since = None;
        } else if since.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(10) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

/// The leader of a bucket, if most servers agree on one.
pub(super) async fn leader(cluster: &Cluster, prefix: &str, bucket: &str) -> Option<usize> {
    cluster.leader_of(&stream(prefix, bucket)).await
}

/// The stream behind a bucket.
pub(super) fn stream(prefix: &str, bucket: &str) -> String {
    format!("KV_{prefix}{bucket}")
}
