use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use membership::{
    Counters, Epoch, Error, JetStreamConfig, JetStreamStore, ReadMode, RoomId, Store,
};

use super::faults::Harmed;
use super::home::Home;
use super::supply::Supply;
use membership_conformance::history::Reached;
use membership_conformance::history::reached::{BARRIERS_WAITED, RETRIES, STALE_REPLIES};
use membership_conformance::power::{self, Contents, Files, Recording};
use membership_conformance::{
    Downgrade, Fault, Instance, Loss, Need, Replacement, Replicas, Rewind, Stored, TargetError,
    Unclaimed,
};

/// Five buckets under a prefix of their own.
pub(super) struct JetStreamInstance {
    pub(super) home: Home,
    /// The clients' configuration, without the servers' URLs.
    pub(super) config: JetStreamConfig,
    pub(super) supply: Arc<Supply>,
    pub(super) harmed: Harmed,
    /// The needs that the target declines.
    pub(super) declines: Declines,
    /// Whether the servers may differ for good, so that no other case may use them.
    pub(super) spoiled: AtomicBool,
    pub(super) connect: Connect,
    /// The clients that were opened, for [`suspend`](Instance::suspend).
    pub(super) opened: Mutex<Vec<Weak<JetStreamStore>>>,
    /// The counts of all clients that were opened, also of those that are gone.
    pub(super) counters: Mutex<Vec<Counters>>,
}

/// Opens a client with a configuration.
pub(super) type Connect =
    Arc<dyn Fn(JetStreamConfig) -> BoxFuture<'static, Result<Opened, Error>> + Send + Sync>;

/// An open client. `ours` gives access to functions that only tests may use, if the client is a
/// [`JetStreamStore`].
pub(crate) struct Opened {
    store: Arc<dyn Store>,
    ours: Weak<JetStreamStore>,
}

impl Opened {
    /// A client of any store.
    pub(crate) fn of(store: Arc<dyn Store>) -> Self {
        Self { store, ours: Weak::new() }
    }

    pub(super) fn ours(store: JetStreamStore) -> Self {
        let store = Arc::new(store);
        Self { ours: Arc::downgrade(&store), store }
    }
}

/// The needs that a target declines, each with the reason.
pub(super) type Declines = &'static [(Need, &'static str)];

impl JetStreamInstance {
    /// Fails if the target declines this need.
    fn claimed(&self, need: Need) -> Result<(), TargetError> {
        if self.declines.iter().any(|(declined, _)| *declined == need) {
            return Err(Unclaimed(need).into());
        }
        Ok(())
    }

    /// Opens a client that can reach these servers only.
    pub(super) async fn connect(
        &self,
        servers: Vec<String>,
        read_mode: ReadMode,
    ) -> Result<Arc<dyn Store>, Error> {
        self.connect_as(JetStreamConfig { servers, read_mode, ..self.config.clone() }).await
    }

    async fn connect_as(&self, config: JetStreamConfig) -> Result<Arc<dyn Store>, Error> {
        let Opened { store, ours } = (self.connect)(config).await?;
        if let Some(store) = ours.upgrade() {
            self.count(&store);
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|store| store.strong_count() > 0);
        opened.push(ours);
        Ok(store)
    }

    /// Keeps the counts of a client for the report.
    fn count(&self, store: &JetStreamStore) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.push(store.counters().clone());
    }

    /// The name of the clients' connections.
    pub(super) fn client_name(&self) -> String {
        format!("membership {}", self.config.prefix)
    }

    async fn servers(&self) -> Result<Vec<String>, Error> {
        self.home.urls(&self.supply).await.map_err(Error::unavailable)
    }

    /// Opens a sound client, with access to functions that only tests may use.
    pub(super) async fn client(&self) -> Result<JetStreamStore, Error> {
        let servers = self.servers().await?;
        let config = JetStreamConfig { servers, ..self.config.clone() };
        let store = JetStreamStore::open(config).await?;
        self.count(&store);
        Ok(store)
    }
}

#[async_trait]
impl Instance for JetStreamInstance {
    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        self.connect(self.servers().await?, ReadMode::Linearizable).await
    }

    async fn open_bounded(&self, bound: Duration) -> Result<Arc<dyn Store>, Error> {
        self.connect(self.servers().await?, ReadMode::BoundedStaleness { bound }).await
    }

    async fn open_existing(&self) -> Result<Arc<dyn Store>, Error> {
        let servers = self.servers().await?;
        let config = JetStreamConfig { servers, must_exist: true, ..self.config.clone() };
        self.connect_as(config).await
    }

    async fn suspend(&self, time: Duration) -> Result<(), TargetError> {
        self.claimed(Need::Suspend)?;
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.iter().filter_map(Weak::upgrade).for_each(|store| store.suspend(time));
        Ok(())
    }

    async fn held(&self) -> Result<Option<usize>, TargetError> {
        Ok(self.home.connections(&self.supply, &self.client_name()).await?)
    }

    fn address(&self) -> Result<String, TargetError> {
        let mut lines = vec![self.config.prefix.clone()];
        lines.extend(self.home.known_urls()?);
        Ok(lines.join("\n"))
    }

    async fn record(&self, child: Command) -> Result<Recording, TargetError> {
        let node = self.home.cluster(&self.supply).await?.node(0)?;
        let server = node.process_id().await.ok_or("the server does not run")?;
        let files = Files { folder: node.store().to_owned(), scratch: &[] };
        tokio::task::spawn_blocking(move || power::record(child, &files, &[server])).await?
    }

    async fn put_back(&self, contents: &Contents) -> Result<(), TargetError> {
        let cluster = self.home.cluster(&self.supply).await?;
        cluster.kill(0).await?;
        let folder = cluster.node(0)?.store();
        std::fs::remove_dir_all(folder)?;
        std::fs::create_dir(folder)?;
        contents.lay_out(folder)?;
        // This does not wait until the server reports that it is healthy. If the folder of a
        // half-made bucket is there, the server reports that only after the store has made the
        // bucket.
        Ok(cluster.run(0).await?)
    }

    async fn inject(&self, fault: &Fault) -> Result<(), TargetError> {
        let cluster = self.home.cluster(&self.supply).await?;
        Ok(self.harmed.inject(cluster, fault).await?)
    }

    async fn heal(&self) -> Result<(), TargetError> {
        let cluster = self.home.cluster(&self.supply).await?;
        self.harmed.heal(cluster, &self.config.prefix).await
    }

    async fn corrupt(&self, record: &Stored) -> Result<(), TargetError> {
        use membership::Damage;

        let record = match record.clone() {
            Stored::Room(room) => Damage::Room(room),
            Stored::Member(room, endpoint) => Damage::Member(room, endpoint),
            Stored::Key(room, endpoint, epoch) => Damage::Keys(room, endpoint, Some(epoch)),
            Stored::User(key) => Damage::User(key),
            Stored::Version => Damage::Version,
            other => return Err(format!("there is no record to corrupt: {other:?}").into()),
        };
        let store = self.client().await?;
        store.corrupt(&record).await?;
        Ok(store.close().await?)
    }

    async fn remember(&self) -> Result<(), TargetError> {
        self.claimed(Need::Rewind)?;
        self.remember_servers().await
    }

    async fn rewind(&self, how: &Rewind) -> Result<(), TargetError> {
        self.claimed(Need::Rewind)?;
        self.rewind_servers(how).await
    }

    async fn replace(&self, how: &Replacement) -> Result<(), TargetError> {
        self.claimed(Need::Replace)?;
        self.replace_servers(how).await
    }

    async fn lose(&self, how: &Loss) -> Result<bool, TargetError> {
        self.claimed(Need::Vanish)?;
        self.lose_records(how).await
    }

    async fn downgrade(&self, to: &Downgrade) -> Result<(), TargetError> {
        self.claimed(Need::Downgrade)?;
        self.serve_with_older(to).await
    }

    async fn upgrade(&self) -> Result<(), TargetError> {
        self.claimed(Need::Downgrade)?;
        self.serve_again().await
    }

    fn replicas(&self) -> Result<&dyn Replicas, TargetError> {
        if self.config.replicas == 1 {
            return Err(Unclaimed(Need::Replicas).into());
        }
        Ok(self)
    }

    fn reached(&self) -> Reached {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |count: fn(&Counters) -> u64| counters.iter().map(count).sum();
        Reached::from([
            (BARRIERS_WAITED, sum(Counters::barriers_that_waited)),
            (RETRIES, sum(Counters::retries)),
            (STALE_REPLIES, sum(Counters::stale_replies)),
        ])
    }

    async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), TargetError> {
        let store = self.client().await?;
        store.plant_epoch(room, epoch).await?;
        Ok(store.close().await?)
    }
}

impl Drop for JetStreamInstance {
    fn drop(&mut self) {
        let spoiled = self.spoiled.load(Ordering::SeqCst);
        self.home.leave(&self.config.prefix, &self.supply, spoiled);
    }
}
