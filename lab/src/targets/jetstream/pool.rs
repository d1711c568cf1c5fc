//! A pool of clusters that cases break: after each case a cluster is healed and lent to another.
//!
//! Starting a cluster keeps all processors busy for seconds, and a missed election takes six
//! seconds more. Healing a cluster costs little, and no case waits for it. A healed cluster is as
//! good as a new one: all its servers run, no link is cut, and the former case's buckets are gone.
//! A cluster that cannot be healed is thrown away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::sync::Notify;

use super::home;
use super::supply::Supply;
use membership_conformance::TargetError;
use nats_cluster::{Cluster, NatsError, Sync};

/// How many servers may run at once: for three cases, a cluster of three for each of five faults.
///
/// Nearly all servers are idle nearly all the time.
const SERVERS: usize = 45;

/// How many servers a cluster has, and how they sync.
type Kind = (u8, Sync);

#[derive(Default)]
pub(super) struct Pool {
    /// A std lock: never held across an await.
    state: Mutex<State>,
    /// Notified when a cluster was given back or has ended.
    moved: Notify,
}

#[derive(Default)]
struct State {
    idle: Vec<(Kind, Cluster)>,
    /// How many servers all clusters have, idle ones included.
    servers: usize,
}

/// A cluster that a case has to itself. Dropping it ends the cluster.
pub(super) struct Lent {
    kind: Kind,
    cluster: Option<Cluster>,
    /// The pool that counts the cluster's servers.
    pool: Option<Arc<Pool>>,
}

/// How a case gets a cluster.
enum Next {
    /// An idle cluster fits.
    Has(Lent),
    /// A new cluster may start; its servers are counted already.
    Starts(Lent),
    /// This idle cluster must end first, to make room.
    Ends(Lent),
    /// The case must wait for a cluster that is lent.
    Waits,
}

impl Pool {
    /// Lends an idle cluster or a new one. Waits until there is room for it.
    pub(super) async fn lend(
        self: &Arc<Self>,
        servers: u8,
        sync: Sync,
        supply: &Supply,
    ) -> Result<Lent, TargetError> {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            match self.next((servers, sync)) {
                Next::Has(lent) => return Ok(lent),
                Next::Starts(mut lent) => {
                    lent.cluster = Some(supply.start(servers, sync).await?);
                    return Ok(lent);
                }
                Next::Ends(lent) => end(lent).await,
                Next::Waits => moved.await,
            }
        }
    }

    fn next(self: &Arc<Self>, kind: Kind) -> Next {
        let lent = |kind, cluster| Lent { kind, cluster, pool: Some(Arc::clone(self)) };
        let mut state = self.state();
        if let Some(at) = state.idle.iter().position(|(of, _)| *of == kind) {
            return Next::Has(lent(kind, Some(state.idle.swap_remove(at).1)));
        }
        if state.servers == 0 || state.servers + usize::from(kind.0) <= SERVERS {
            state.servers += usize::from(kind.0);
            return Next::Starts(lent(kind, None));
        }
        match state.idle.pop() {
            Some((kind, cluster)) => Next::Ends(lent(kind, Some(cluster))),
            None => Next::Waits,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all idle clusters.
    pub(super) async fn empty(self: &Arc<Self>) {
        let idle = std::mem::take(&mut self.state().idle);
        for (kind, cluster) in idle {
            end(Lent { kind, cluster: Some(cluster), pool: Some(Arc::clone(self)) }).await;
        }
    }
}

impl Lent {
    /// The cluster; `None` if it has not started.
    pub(super) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Heals the cluster, removes the buckets under `prefix`, and makes the cluster idle.
    pub(super) async fn give_back(mut self, prefix: String) {
        let healed = match &self.cluster {
            Some(cluster) => heal(cluster, &prefix).await.is_ok(),
            None => false,
        };
        match (self.cluster.take_if(|_| healed), self.pool.take_if(|_| healed)) {
            (Some(cluster), Some(pool)) => {
                pool.state().idle.push((self.kind, cluster));
                pool.moved.notify_waiters();
            }
            _ => end(self).await,
        }
    }

    /// Ends the cluster, so that no other case gets it.
    pub(super) async fn end(self) {
        end(self).await;
    }
}

async fn heal(cluster: &Cluster, prefix: &str) -> Result<(), NatsError> {
    cluster.heal();
    try_join_all((0..cluster.size()).map(|node| cluster.resume(node))).await?;
    try_join_all((0..cluster.size()).map(|node| cluster.run(node))).await?;
    // A bucket that is out of date on a server never catches up once nobody writes to it. So
    // `wait_ready` would wait in vain until the bucket is removed. The servers can remove it only
    // once they have a leader, so the removal is tried again and again.
    let removing = async {
        loop {
            home::remove(cluster, prefix).await;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::select! {
        ready = cluster.wait_ready() => ready?,
        () = removing => {}
    }
    home::remove(cluster, prefix).await;
    Ok(())
}

/// Ends a cluster and waits until its processes have ended.
async fn end(lent: Lent) {
    let _ = tokio::task::spawn_blocking(move || drop(lent)).await;
}

impl Drop for Lent {
    fn drop(&mut self) {
        drop(self.cluster.take());
        if let Some(pool) = self.pool.take() {
            pool.state().servers -= usize::from(self.kind.0);
            pool.moved.notify_waiters();
        }
    }
}
