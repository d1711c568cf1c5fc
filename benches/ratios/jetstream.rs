//! The JetStream store against bare calls to the same servers: one server, and three.

mod bare;
mod decisions;
mod many;
mod reads;
mod rekeys;

use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::{JetStreamConfig, JetStreamStore, ReadMode, Store};
use nats_cluster::{Cluster, ClusterOptions, NatsError, NatsServer, Provision};
use tokio::runtime::Runtime;

use crate::jetstream::bare::Bare;
use crate::lists;
use crate::measure::Row;
use crate::world::{ROOMS, USERS, big_room, fill_rooms, fill_users};

/// How many callers fill a store: enough to keep the servers busy.
const FILLERS: u32 = 256;
/// The bucket prefixes of the large store, and of the store with a tenth of its rooms.
const LARGE: &str = "large-";
const SMALL: &str = "small-";

pub(crate) fn server() -> Result<NatsServer, NatsError> {
    NatsServer::find(Provision::Auto)
}

/// A cluster, its URL, and two stores on it.
struct Servers<'a> {
    runtime: &'a Runtime,
    /// The first word of every row.
    name: String,
    url: String,
    replicas: u8,
    large: Arc<dyn Store>,
    small: Arc<dyn Store>,
    cluster: Cluster,
}

pub(crate) fn rows(runtime: &Runtime, server: &NatsServer) -> Vec<Row> {
    // The cluster's links have threads of their own, like links between machines.
    let links = Runtime::new().unwrap();
    let began = Instant::now();
    let both = [1, 3].map(|replicas| {
        let options = ClusterOptions::servers(usize::from(replicas));
        let cluster = links.block_on(Cluster::start_with(server.clone(), options)).unwrap();
        Servers::new(runtime, replicas, cluster)
    });
    // The two clusters are filled at the same time, since a single server mostly waits for its
    // disk, and three servers mostly for one another.
    let [one, three] = &both;
    runtime.block_on(async { tokio::join!(one.fill(), three.fill()) });
    eprintln!("jetstream … filled after {:.0?}", began.elapsed());
    let mut rows = Vec::new();
    for servers in &both {
        rows.extend(servers.rows());
        eprintln!("{} … measured after {:.0?}", servers.name, began.elapsed());
    }
    rows
}

async fn open(url: &str, replicas: u8, prefix: &str, read_mode: ReadMode) -> JetStreamStore {
    let config = JetStreamConfig {
        prefix: prefix.to_owned(),
        replicas,
        read_mode,
        // Filling makes single calls slow, since it keeps everything busy.
        op_timeout: Duration::from_secs(20),
        ..JetStreamConfig::new([url])
    };
    JetStreamStore::open(config).await.unwrap()
}

impl<'a> Servers<'a> {
    fn new(runtime: &'a Runtime, replicas: u8, cluster: Cluster) -> Self {
        // The URL is direct: the cluster's client links would add to both sides of a ratio.
        let url = cluster.direct_url(0).unwrap();
        let store = |prefix| -> Arc<dyn Store> {
            let open = open(&url, replicas, prefix, ReadMode::Linearizable);
            Arc::new(runtime.block_on(open))
        };
        let (large, small) = (store(LARGE), store(SMALL));
        let name = format!("jetstream-r{replicas}");
        Self { runtime, name, url, replicas, large, small, cluster }
    }

    async fn fill(&self) {
        // Concurrent additions to one room share a batch.
        tokio::join!(
            fill_users(&self.large, FILLERS, USERS),
            fill_rooms(&self.large, FILLERS, ROOMS),
            big_room(&self.large, FILLERS, "huge", rekeys::HUGE),
            big_room(&self.large, FILLERS, "big", rekeys::BIG),
            fill_rooms(&self.small, FILLERS, ROOMS / 10),
            big_room(&self.small, FILLERS, "big", rekeys::BIG),
        );
    }

    fn rows(&self) -> Vec<Row> {
        let bare = self.runtime.block_on(Bare::connect(&self.url, LARGE));
        let mut rows = decisions::rows(self, &bare);
        rows.extend(reads::rows(self, &bare));
        rows.extend(lists::rows(self.runtime, &self.name, 5, &self.small, &self.large));
        rows.extend(rekeys::rows(self, &bare));
        rows.extend(many::rows(self, &bare));
        self.runtime.block_on(async {
            self.small.close().await.unwrap();
            self.large.close().await.unwrap();
        });
        rows
    }
}
