//! Which servers an instance's buckets are on.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::OnceCell;

use super::pool::Lent;
use super::supply::Supply;
use membership_conformance::TargetError;
use nats_cluster::{Cluster, NatsError, Sync};

/// The five buckets.
pub(super) const BUCKETS: [&str; 5] = ["rooms", "members", "rooms_by_member", "room_keys", "users"];

pub(super) enum Home {
    /// Servers that other instances use too, and nobody breaks.
    Shared(Arc<Cluster>),
    /// Servers that are broken. Had when they are first used, so that a case that makes further
    /// stores, and never uses the one it was given, does not hold two clusters.
    Own { servers: u8, sync: Sync, lent: Box<OnceCell<Lent>> },
    /// Another process's servers, by their URLs.
    Elsewhere(Vec<String>),
}

impl Home {
    pub(super) fn own(servers: u8, sync: Sync) -> Self {
        Self::Own { servers, sync, lent: Box::default() }
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
            Self::Own { lent, .. } => match lent.get().and_then(Lent::cluster) {
                Some(cluster) => Ok(cluster.client_urls()),
                None => Err("its servers do not run yet: open a client first".into()),
            },
            Self::Elsewhere(urls) => Ok(urls.clone()),
        }
    }

    /// How many connections of this name the servers have, where they are ours.
    pub(super) async fn connections(
        &self,
        supply: &Supply,
        name: &str,
    ) -> Result<Option<usize>, TargetError> {
        let cluster = match self {
            Self::Shared(cluster) => cluster,
            Self::Own { .. } => self.cluster(supply).await?,
            Self::Elsewhere(_) => return Ok(None),
        };
        Ok(Some(cluster.connections_of(name).await?))
    }

    /// The servers that are to be broken.
    pub(super) async fn cluster(&self, supply: &Supply) -> Result<&Cluster, TargetError> {
        let Self::Own { servers, sync, lent } = self else {
            return Err("its servers are shared, and must not be broken".into());
        };
        let borrow = || supply.pool.lend(*servers, *sync, supply);
        let own = lent.get_or_try_init(borrow).await?;
        Ok(own.cluster().ok_or("its servers have not started")?)
    }

    /// Removes the buckets in the background; servers that were broken are made whole first, or ended where
    /// they are `spoiled`.
    pub(super) fn leave(&mut self, prefix: &str, supply: &Supply, spoiled: bool) {
        match self {
            Self::Shared(cluster) => {
                let (cluster, prefix) = (Arc::clone(cluster), prefix.to_owned());
                supply.leave(async move { remove(&cluster, &prefix).await });
            }
            Self::Own { lent, .. } => {
                if let Some(lent) = lent.take() {
                    if spoiled {
                        supply.leave(lent.end());
                    } else {
                        supply.leave(lent.give_back(prefix.to_owned()));
                    }
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
pub(super) async fn remove(cluster: &Cluster, prefix: &str) {
    let Ok(client) = cluster.admin(0).await else { return };
    let requests = BUCKETS.map(|bucket| {
        let subject = format!("$JS.API.STREAM.DELETE.KV_{prefix}{bucket}");
        client.request(subject, "".into())
    });
    join_all(requests).await;
}
