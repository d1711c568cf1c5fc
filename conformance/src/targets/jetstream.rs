//! The JetStream store on one, three and five servers.

mod faults;
mod home;
mod instance;
mod replicas;
mod supply;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use membership::{Error, JetStreamConfig, JetStreamStore, Store};
use tokio::sync::OnceCell;

use crate::nats::{Cluster, Provision, Sync};
use crate::target::{Claim, Fault, Instance, Need, Target, TargetError};
use faults::Harmed;
use home::Home;
use instance::{Connect, JetStreamInstance};
use supply::Supply;

/// [`JetStreamStore`](membership::JetStreamStore) on a number of servers that each keep
/// everything, as a target.
///
/// The stores of cases that break no server share one cluster, which starts with the first of
/// them, under a bucket prefix each. The others have a cluster of their own.
pub struct JetStream {
    name: &'static str,
    servers: u8,
    connect: Connect,
    declines: &'static [(Need, &'static str)],
    supply: Arc<Supply>,
    shared: OnceCell<Arc<Cluster>>,
}

impl JetStream {
    /// On one, three and five servers, which are had the way `provision` says.
    #[must_use]
    pub fn all(provision: Provision) -> [Self; 3] {
        let supply = Arc::new(Supply::new(provision));
        [("jetstream-r1", 1), ("jetstream-r3", 3), ("jetstream-r5", 5)].map(|(name, servers)| {
            let (supply, shared) = (Arc::clone(&supply), OnceCell::new());
            Self { name, servers, connect: open, declines: &[], supply, shared }
        })
    }

    /// Another store on the same servers and in the same buckets, which `connect` opens.
    pub(crate) fn another(
        name: &'static str,
        servers: u8,
        provision: Provision,
        connect: Connect,
        declines: &'static [(Need, &'static str)],
    ) -> Self {
        let (supply, shared) = (Arc::new(Supply::new(provision)), OnceCell::new());
        Self { name, servers, connect, declines, supply, shared }
    }

    /// Nothing that is started costs anything until a case asks for it.
    async fn shared(&self) -> Result<Arc<Cluster>, TargetError> {
        let start =
            || async { Ok(Arc::new(self.supply.start(self.servers, Sync::Default).await?)) };
        self.shared.get_or_try_init(start).await.cloned()
    }

    fn instance(&self, home: Home, prefix: String) -> Box<dyn Instance> {
        let config = JetStreamConfig {
            prefix,
            replicas: self.servers,
            op_timeout: self.op_timeout(),
            ..JetStreamConfig::new(Vec::<String>::new())
        };
        let (supply, harmed) = (Arc::clone(&self.supply), Harmed::default());
        Box::new(JetStreamInstance { home, config, supply, harmed, connect: self.connect })
    }
}

#[async_trait]
impl Target for JetStream {
    fn name(&self) -> &'static str {
        self.name
    }

    fn op_timeout(&self) -> Duration {
        if self.servers == 1 { Duration::from_secs(1) } else { Duration::from_secs(2) }
    }

    fn claims(&self, need: Need) -> Claim {
        if let Some((_, reason)) = self.declines.iter().find(|(declined, _)| *declined == need) {
            return Claim::Declined(reason);
        }
        match need {
            Need::Faults | Need::Replicas | Need::Synced if self.supply.is_elsewhere() => {
                Claim::Declined("the server at MEMBERSHIP_NATS_URL is not ours to break")
            }
            Need::Replicas if self.servers == 1 => Claim::Declined("one server"),
            _ => Claim::Claimed,
        }
    }

    fn faults(&self) -> &[Fault] {
        faults::of(self.servers)
    }

    fn pace(&self) -> u32 {
        // With every quorum there are more processes that wait for a core.
        match self.servers {
            1 => 4,
            3 => 10,
            _ => 20,
        }
    }

    async fn prepare(&self) -> Result<Option<String>, TargetError> {
        Ok(Some(self.supply.server(self.servers).await?.to_string()))
    }

    async fn finish(&self) {
        self.supply.finish().await;
    }

    async fn create(&self) -> Result<Box<dyn Instance>, TargetError> {
        self.create_for(&[]).await
    }

    async fn create_for(&self, needs: &[Need]) -> Result<Box<dyn Instance>, TargetError> {
        let harmful = needs.iter().any(|need| matches!(need, Need::Faults | Need::Replicas));
        let home = if harmful {
            // That there is no server is said here; the cluster starts when it is first used.
            self.supply.server(self.servers).await?;
            // Costly, and so only where it is asked for.
            let synced = needs.contains(&Need::Synced);
            Home::own(self.servers, if synced { Sync::Always } else { Sync::Default })
        } else {
            Home::Shared(self.shared().await?)
        };
        Ok(self.instance(home, self.supply.prefix()))
    }

    async fn attach(&self, address: &str) -> Result<Box<dyn Instance>, TargetError> {
        let mut lines = address.lines();
        let prefix = lines.next().ok_or("an address without a prefix")?.to_owned();
        Ok(self.instance(Home::Elsewhere(lines.map(str::to_owned).collect()), prefix))
    }
}

fn open(config: JetStreamConfig) -> BoxFuture<'static, Result<Arc<dyn Store>, Error>> {
    Box::pin(async move { Ok(Arc::new(JetStreamStore::open(config).await?) as Arc<dyn Store>) })
}
