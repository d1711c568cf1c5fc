//! The resources that all clusters of a run share: the server's program, the pool and the bucket
//! prefixes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::pool::Pool;
use membership_conformance::TargetError;
use nats_cluster::{Cluster, ClusterOptions, NatsServer, Provision, Sync};

/// Where servers come from.
pub(super) struct Supply {
    provision: Provision,
    /// The server that was found, or why there is none. The search takes long, so it is done once.
    found: OnceCell<Result<NatsServer, String>>,
    /// The clusters that cases break, one case after the other.
    pub(super) pool: Arc<Pool>,
    prefixes: AtomicU64,
    /// Removals of buckets in the background. A std lock: never held across an await.
    leaving: Mutex<JoinSet<()>>,
}

impl Supply {
    pub(super) fn new(provision: Provision) -> Self {
        Self {
            provision,
            found: OnceCell::new(),
            pool: Arc::default(),
            prefixes: AtomicU64::new(0),
            leaving: Mutex::default(),
        }
    }

    /// Whether the suite uses a server that it did not start. Does no I/O.
    pub(super) fn is_elsewhere(&self) -> bool {
        let named = || std::env::var_os("MEMBERSHIP_NATS_URL").is_some_and(|url| !url.is_empty());
        match self.provision {
            Provision::Url => true,
            Provision::Auto => named(),
            Provision::Binary | Provision::Docker => false,
        }
    }

    /// Whether the suite runs servers as processes of its own, if a binary is found. Does no I/O.
    pub(super) fn is_process(&self) -> bool {
        !self.is_elsewhere() && self.provision != Provision::Docker
    }

    /// The server that clusters of this size are made of.
    pub(super) async fn server(&self, servers: u8) -> Result<NatsServer, TargetError> {
        let provision = self.provision;
        let find = || async move {
            let find = tokio::task::spawn_blocking(move || NatsServer::find(provision));
            let found = find.await.map_err(|error| error.to_string())?;
            found.map_err(|error| error.to_string())
        };
        let server = self.found.get_or_init(find).await.clone()?;
        if servers > 1 && !server.is_ours() {
            return Err(format!(
                "no cluster of {servers} can be made of the server at MEMBERSHIP_NATS_URL: unset \
                 it to have one started, or run --store jetstream-r1"
            )
            .into());
        }
        Ok(server)
    }

    pub(super) async fn start(&self, servers: u8, sync: Sync) -> Result<Cluster, TargetError> {
        let server = self.server(servers).await?;
        let options =
            ClusterOptions::servers(usize::from(servers)).provision(self.provision).sync(sync);
        Ok(Cluster::start_with(server, options).await?)
    }

    /// A bucket prefix that no other instance has, also on a server that other processes use.
    pub(super) fn prefix(&self) -> String {
        let number = self.prefixes.fetch_add(1, Ordering::Relaxed);
        format!("c{}-{number}-", std::process::id())
    }

    /// Runs a removal in the background; drops it if there is no runtime any more.
    pub(super) fn leave(&self, removal: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            // The results of finished removals are taken here. Otherwise they would pile up until
            // the end of the run.
            while leaving.try_join_next().is_some() {}
            leaving.spawn_on(removal, &runtime);
        }
    }

    pub(super) async fn finish(&self) {
        let leaving =
            std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        leaving.join_all().await;
        self.pool.empty().await;
    }
}
