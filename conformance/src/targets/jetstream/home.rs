//! Which servers an instance's buckets are on.

use std::sync::Arc;

use tokio::sync::{OnceCell, OwnedSemaphorePermit};

use super::supply::Supply;
use crate::nats::{Cluster, NatsError, Sync};
use crate::target::TargetError;

/// The five buckets.
pub(super) const BUCKETS: [&str; 5] = ["rooms", "members", "rooms_by_member", "room_keys", "users"];

pub(super) enum Home {
    /// Servers that other instances use too, and nobody breaks.
    Shared(Arc<Cluster>),
    /// Servers that are broken. Started when they are first used, so that a case that makes
    /// further stores, and never uses the one it was given, does not hold two clusters.
    Own { servers: u8, sync: Sync, cluster: Box<OnceCell<OwnCluster>> },
    /// Another process's servers, by their URLs.
    Elsewhere(Vec<String>),
}

pub(super) struct OwnCluster {
    cluster: Cluster,
    /// Given back after the servers are gone.
    _room: OwnedSemaphorePermit,
}

impl OwnCluster {
    async fn start(servers: u8, sync: Sync, supply: &Supply) -> Result<Self, TargetError> {
        let room = supply.room(servers).await?;
        Ok(Self { cluster: supply.start(servers, sync).await?, _room: room })
    }
}

impl Home {
    pub(super) fn own(servers: u8, sync: Sync) -> Self {
        Self::Own { servers, sync, cluster: Box::default() }
    }

    /// The URLs of all servers: straight where nothing is ever cut, through their links where it
    /// may be.
    pub(super) async fn urls(&self, supply: &Supply) -> Result<Vec<String>, TargetError> {
        match self {
            Self::Shared(cluster) => Ok(direct(cluster)?),
            Self::Own { .. } => Ok(self.cluster(supply).await?.client_urls()),
            Self::Elsewhere(urls) => Ok(urls.clone()),
        }
    }

    /// The same for another process, without starting anything.
    pub(super) fn known_urls(&self) -> Result<Vec<String>, TargetError> {
        match self {
            Self::Shared(cluster) => Ok(direct(cluster)?),
            Self::Own { cluster, .. } => match cluster.get() {
                Some(own) => Ok(own.cluster.client_urls()),
                None => Err("its servers do not run yet: open a client first".into()),
            },
            Self::Elsewhere(urls) => Ok(urls.clone()),
        }
    }

    /// The servers that are to be broken.
    pub(super) async fn cluster(&self, supply: &Supply) -> Result<&Cluster, TargetError> {
        let Self::Own { servers, sync, cluster } = self else {
            return Err("its servers are shared, and must not be broken".into());
        };
        let start = || OwnCluster::start(*servers, *sync, supply);
        Ok(&cluster.get_or_try_init(start).await?.cluster)
    }

    /// Removes the buckets, or the servers with them, in the background.
    pub(super) fn leave(&mut self, prefix: &str, supply: &Supply) {
        match self {
            Self::Shared(cluster) => {
                let (cluster, prefix) = (Arc::clone(cluster), prefix.to_owned());
                supply.leave(async move { remove(&cluster, &prefix).await });
            }
            Self::Own { cluster, .. } => {
                if let Some(own) = cluster.take() {
                    // Waits for processes to end.
                    supply.leave(async move {
                        let _ = tokio::task::spawn_blocking(move || drop(own)).await;
                    });
                }
            }
            Self::Elsewhere(_) => {}
        }
    }
}

fn direct(cluster: &Cluster) -> Result<Vec<String>, NatsError> {
    (0..cluster.size()).map(|node| cluster.direct_url(node)).collect()
}

/// What cannot be removed goes with the servers.
async fn remove(cluster: &Cluster, prefix: &str) {
    let Ok(client) = cluster.admin(0).await else { return };
    for bucket in BUCKETS {
        let subject = format!("$JS.API.STREAM.DELETE.KV_{prefix}{bucket}");
        let _ = client.request(subject, "".into()).await;
    }
}
