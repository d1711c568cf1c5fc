//! What all clusters of a run have in common.

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
    /// Looked for once, also where there is none: it takes long to find that out.
    found: OnceCell<Result<NatsServer, String>>,
    /// Those that are broken, one case after the other.
    pub(super) pool: Arc<Pool>,
    prefixes: AtomicU64,
    /// Buckets on their way out. A std lock: never held across an await.
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

    /// Whether the server is somebody else's. No I/O.
    pub(super) fn is_elsewhere(&self) -> bool {
        let named = || std::env::var_os("MEMBERSHIP_NATS_URL").is_some_and(|url| !url.is_empty());
        match self.provision {
            Provision::Url => true,
            Provision::Auto => named(),
            Provision::Binary | Provision::Docker => false,
        }
    }

    /// Whether servers are processes of ours, unless no binary is found. No I/O.
    pub(super) fn is_process(&self) -> bool {
        !self.is_elsewhere() && self.provision != Provision::Docker
    }

    /// The server that clusters of this many are made of.
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

    /// What no other instance's buckets begin with: not on a server that others use, either.
    pub(super) fn prefix(&self) -> String {
        let number = self.prefixes.fetch_add(1, Ordering::Relaxed);
        format!("c{}-{number}-", std::process::id())
    }

    /// Has it done in the background; not at all where no runtime is left to do it.
    pub(super) fn leave(&self, removal: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that are done.
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
