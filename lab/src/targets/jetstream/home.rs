//! The servers that have an instance's buckets.

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
    /// Servers that other instances use, too, and that no case breaks.
    Shared(Arc<Cluster>),
    /// Servers for a case that breaks them. These servers are borrowed at first use.
    ///
    /// Otherwise a case that makes further stores, and never uses its first one, would hold two
    /// clusters.
    Own { servers: u8, sync: Sync, lent: Box<OnceCell<Lent>> },
    /// The servers of another process, by their URLs.
    Elsewhere(Vec<String>),
}

impl Home {
    pub(super) fn own(servers: u8, sync: Sync) -> Self {
        Self::Own { servers, sync, lent: Box::default() }
    }

    /// The URLs of all servers.
    ///
    /// URLs of servers that a case breaks lead through links that can be cut; others lead straight
    /// to the servers.
    pub(super) async fn urls(&self, supply: &Supply) -> Result<Vec<String>, TargetError> {
        match self {
            Self::Shared(cluster) => Ok(direct(cluster)?),
            Self::Own { .. } => Ok(self.cluster(supply).await?.client_urls()),
            Self::Elsewhere(urls) => Ok(urls.clone()),
        }
    }

    /// As [`urls`](Self::urls), for another process. Starts no servers.
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

    /// How many connections of this name the servers have; `None` for another process's servers.
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

    /// The servers, for a case to break.
    pub(super) async fn cluster(&self, supply: &Supply) -> Result<&Cluster, TargetError> {
        let Self::Own { servers, sync, lent } = self else {
            return Err("its servers are shared, and must not be broken".into());
        };
        let borrow = || supply.pool.lend(*servers, *sync, supply);
        let own = lent.get_or_try_init(borrow).await?;
        Ok(own.cluster().ok_or("its servers have not started")?)
    }

    /// Removes the buckets in the background.
    ///
    /// A case's own servers are healed before that. Then they go back to the pool, or are ended if
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

/// Removes the buckets under `prefix`. Buckets that cannot be removed go with the servers.
pub(super) async fn remove(cluster: &Cluster, prefix: &str) {
    let Ok(client) = cluster.admin(0).await else { return };
    let requests = BUCKETS.map(|bucket| {
        let subject = format!("$JS.API.STREAM.DELETE.KV_{prefix}{bucket}");
        client.request(subject, "".into())
    });
    join_all(requests).await;
}
