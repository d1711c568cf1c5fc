//! Clusters that are broken, healed, and broken again by another case.
//!
//! Starting one takes seconds of every core, and an election that is missed six more; healing one
//! takes little, and nobody waits for it. A case cannot tell one that was used before: all its
//! servers run, nothing between them is cut, and the buckets of whoever had it are gone. One that
//! cannot be brought there is thrown away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::sync::Notify;

use super::home;
use super::supply::Supply;
use membership_conformance::TargetError;
use nats_cluster::{Cluster, NatsError, Sync};

/// How many servers there may be at once: a cluster of three for each of five faults, for three
/// cases. Nearly all of them wait nearly all the time.
const SERVERS: usize = 45;

/// How many servers, and how they sync.
type Kind = (u8, Sync);

#[derive(Default)]
pub(super) struct Pool {
    /// A std lock: never held across an await.
    state: Mutex<State>,
    /// Told when a cluster was given back or is gone.
    moved: Notify,
}

#[derive(Default)]
struct State {
    idle: Vec<(Kind, Cluster)>,
    /// The servers of all clusters, idle ones too.
    servers: usize,
}

/// A cluster that a case has to itself. Dropped, it is gone.
pub(super) struct Lent {
    kind: Kind,
    cluster: Option<Cluster>,
    /// Where its servers are counted.
    pool: Option<Arc<Pool>>,
}

/// How somebody comes to a cluster.
enum Next {
    Has(Lent),
    /// There is room for a new one, and it is counted.
    Starts(Lent),
    /// There is room once this one is gone.
    Ends(Lent),
    Waits,
}

impl Pool {
    /// Lends one that is idle, or a new one; waits until there is room.
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

    /// Ends those that are idle.
    pub(super) async fn empty(self: &Arc<Self>) {
        let idle = std::mem::take(&mut self.state().idle);
        for (kind, cluster) in idle {
            end(Lent { kind, cluster: Some(cluster), pool: Some(Arc::clone(self)) }).await;
        }
    }
}

impl Lent {
    /// `None` for one that has not started.
    pub(super) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Makes it whole, removes the buckets under `prefix`, and lets somebody else have it.
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

    /// Lets nobody have it any more.
    pub(super) async fn end(self) {
        end(self).await;
    }
}

async fn heal(cluster: &Cluster, prefix: &str) -> Result<(), NatsError> {
    cluster.heal();
    try_join_all((0..cluster.size()).map(|node| cluster.resume(node))).await?;
    try_join_all((0..cluster.size()).map(|node| cluster.run(node))).await?;
    // A bucket that stays behind on a server, where nobody writes any more, would make it wait in
    // vain; and it cannot be removed before the servers have a leader.
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

/// Waits until its processes have ended.
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
