//! The JetStream store on one, three and five servers.

mod faults;
mod home;
mod instance;
mod past;
mod pool;
mod replicas;
mod supply;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use membership::{Error, JetStreamConfig, JetStreamDefect, JetStreamStore};
use tokio::sync::OnceCell;

use faults::Harmed;
use home::Home;
pub(crate) use instance::Opened;
use instance::{Connect, Declines, JetStreamInstance};
use membership_conformance::power;
use membership_conformance::{
    Claim, Downgrade, Fault, Instance, Loss, Need, Replacement, Rewind, Target, TargetError,
};
use nats_cluster::{Cluster, Provision, Sync};
use supply::Supply;

/// The `op_timeout` on servers that no case breaks.
///
/// This timeout is longer than an election, which begins if a leader gets no processor for seconds.
const UNHARMED: Duration = Duration::from_secs(10);

/// [`JetStreamStore`] as a target, on a number of servers that each keep all data.
///
/// Cases that break no server share one cluster, which starts with the first of these cases; each
/// store has a bucket prefix of its own. A case that breaks servers has a cluster to itself. After
/// the case the cluster is healed and lent to another case.
pub struct JetStream {
    name: &'static str,
    servers: u8,
    connect: Connect,
    declines: Declines,
    supply: Arc<Supply>,
    shared: Arc<OnceCell<Arc<Cluster>>>,
}

impl JetStream {
    /// The targets on one, three and five servers; `provision` says where servers come from.
    #[must_use]
    pub fn all(provision: Provision) -> [Self; 3] {
        let supply = Arc::new(Supply::new(provision));
        [("jetstream-r1", 1), ("jetstream-r3", 3), ("jetstream-r5", 5)].map(|(name, servers)| {
            let (supply, shared) = (Arc::clone(&supply), Arc::default());
            Self { name, servers, connect: Arc::new(open), declines: &[], supply, shared }
        })
    }

    /// A target for another store in buckets of the same names, which `connect` opens.
    pub(crate) fn another(
        name: &'static str,
        servers: u8,
        provision: Provision,
        connect: Connect,
        declines: Declines,
    ) -> Self {
        let (supply, shared) = (Arc::new(Supply::new(provision)), Arc::default());
        Self { name, servers, connect, declines, supply, shared }
    }

    /// The store with this defect in its own code, on the same servers.
    pub(crate) fn broken(&self, name: &'static str, defect: JetStreamDefect) -> Self {
        let connect = move |config| -> BoxFuture<'static, Result<Opened, Error>> {
            Box::pin(
                async move { Ok(Opened::ours(JetStreamStore::open_broken(config, defect).await?)) },
            )
        };
        let (supply, shared) = (Arc::clone(&self.supply), Arc::clone(&self.shared));
        let (servers, declines) = (self.servers, self.declines);
        Self { name, servers, connect: Arc::new(connect), declines, supply, shared }
    }

    /// The cluster that cases share. The cluster starts when a case first asks for it.
    async fn shared(&self) -> Result<Arc<Cluster>, TargetError> {
        let start =
            || async { Ok(Arc::new(self.supply.start(self.servers, Sync::Default).await?)) };
        self.shared.get_or_try_init(start).await.cloned()
    }

    fn instance(&self, home: Home, prefix: String, op_timeout: Duration) -> Box<dyn Instance> {
        let config = JetStreamConfig {
            prefix,
            replicas: self.servers,
            op_timeout,
            ..JetStreamConfig::new(Vec::<String>::new())
        };
        let (supply, harmed) = (Arc::clone(&self.supply), Harmed::default());
        let connect = Arc::clone(&self.connect);
        let spoiled = AtomicBool::new(false);
        let declines = self.declines;
        let (opened, counters) = (Mutex::default(), Mutex::default());
        Box::new(JetStreamInstance {
            home,
            config,
            supply,
            harmed,
            declines,
            spoiled,
            connect,
            opened,
            counters,
        })
    }
}

#[async_trait]
impl Target for JetStream {
    fn name(&self) -> &'static str {
        self.name
    }

    fn op_timeout(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn op_timeout_for(&self, needs: &[Need]) -> Duration {
        if waits(needs) { self.op_timeout() } else { UNHARMED }
    }

    fn claims(&self, need: Need) -> Claim {
        if let Some((_, reason)) = self.declines.iter().find(|(declined, _)| *declined == need) {
            return Claim::Declined(reason);
        }
        match need {
            Need::Faults
            | Need::Replicas
            | Need::Synced
            | Need::Rewind
            | Need::Replace
            | Need::Vanish
            | Need::Downgrade
                if self.supply.is_elsewhere() =>
            {
                Claim::Declined("the server at MEMBERSHIP_NATS_URL is not ours to break")
            }
            Need::Replicas if self.servers == 1 => Claim::Declined("one server"),
            // These servers panic: "JetStream Cluster Unknown group entry op type: 16".
            Need::Downgrade if self.servers > 1 => {
                Claim::Declined("older servers of a cluster end at what newer ones wrote")
            }
            Need::PowerCuts | Need::Unsynced if self.servers > 1 => {
                Claim::Declined("the ends of several servers are too many to go through")
            }
            Need::PowerCuts | Need::Unsynced if self.supply.is_process() => power::claim(),
            Need::PowerCuts | Need::Unsynced => Claim::Declined("the server is no process of ours"),
            _ => Claim::Claimed,
        }
    }

    fn faults(&self) -> &[Fault] {
        faults::of(self.servers)
    }

    fn rewinds(&self) -> &[Rewind] {
        past::rewinds(self.servers)
    }

    fn replacements(&self) -> &[Replacement] {
        past::REPLACEMENTS
    }

    fn losses(&self) -> &[Loss] {
        past::LOSSES
    }

    fn downgrades(&self) -> &[Downgrade] {
        past::DOWNGRADES
    }

    fn pace(&self) -> u32 {
        // The more servers, the more processes wait for a processor.
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
        let home = if waits(needs) || needs.contains(&Need::PowerCuts) {
            // The run fails here if there is no server. The cluster starts only when it is first
            // used.
            self.supply.server(self.servers).await?;
            // Servers sync each write only for cases that need it, since syncing is slow.
            let synced = needs.contains(&Need::Synced)
                || needs.contains(&Need::PowerCuts) && !needs.contains(&Need::Unsynced);
            Home::own(self.servers, if synced { Sync::Always } else { Sync::Default })
        } else {
            Home::Shared(self.shared().await?)
        };
        let prefix = if needs.contains(&Need::PowerCuts) {
            // A child process may open the first client, so the servers must run before the child
            // starts.
            home.cluster(&self.supply).await?;
            // One store's files are put back under another store, which must therefore have the
            // same bucket names.
            "power-".to_owned()
        } else {
            self.supply.prefix()
        };
        Ok(self.instance(home, prefix, self.op_timeout_for(needs)))
    }

    async fn attach(&self, address: &str) -> Result<Box<dyn Instance>, TargetError> {
        let mut lines = address.lines();
        let prefix = lines.next().ok_or("an address without a prefix")?.to_owned();
        let home = Home::Elsewhere(lines.map(str::to_owned).collect());
        Ok(self.instance(home, prefix, UNHARMED))
    }
}

/// Whether cases with these needs break running servers, and wait until calls fail for that.
fn waits(needs: &[Need]) -> bool {
    let breaks = |need: &Need| {
        matches!(
            need,
            Need::Faults
                | Need::Replicas
                | Need::Rewind
                | Need::Replace
                | Need::Vanish
                | Need::Downgrade
        )
    };
    needs.iter().any(breaks)
}

fn open(config: JetStreamConfig) -> BoxFuture<'static, Result<Opened, Error>> {
    Box::pin(async move { Ok(Opened::ours(JetStreamStore::open(config).await?)) })
}
