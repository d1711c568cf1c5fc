//! The JetStream store against bare calls to the same servers: one, and a cluster of three.

mod bare;
mod decisions;
mod reads;
mod rekeys;

use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::{JetStreamConfig, JetStreamStore, ReadMode, Store};
use membership_conformance::nats::{Cluster, ClusterOptions, NatsError, NatsServer, Provision};
use tokio::runtime::Runtime;

use crate::jetstream::bare::Bare;
use crate::lists;
use crate::measure::Row;
use crate::world::{ROOMS, USERS, big_room, fill_rooms, fill_users};

/// Callers that fill a store: enough to keep the servers busy.
const FILLERS: u32 = 256;
/// What the buckets of the large store begin with, and those of the one with a tenth of the rooms.
const LARGE: &str = "large-";
const SMALL: &str = "small-";

pub(crate) fn server() -> Result<NatsServer, NatsError> {
    NatsServer::find(Provision::Auto)
}

/// One cluster, and how it is reached.
struct Servers<'a> {
    runtime: &'a Runtime,
    /// The first word of every row.
    name: String,
    url: String,
    replicas: u8,
}

impl Servers<'_> {
    fn open(&self, prefix: &str, read_mode: ReadMode) -> JetStreamStore {
        let config = JetStreamConfig {
            prefix: prefix.to_owned(),
            replicas: self.replicas,
            read_mode,
            // Filling keeps everything busy at once: there is no hurry in a single call.
            op_timeout: Duration::from_secs(20),
            ..JetStreamConfig::new([self.url.clone()])
        };
        self.runtime.block_on(JetStreamStore::open(config)).unwrap()
    }
}

pub(crate) fn rows(runtime: &Runtime, server: &NatsServer) -> Vec<Row> {
    let mut rows = Vec::new();
    for replicas in [1, 3] {
        let options = ClusterOptions::servers(usize::from(replicas));
        let cluster = runtime.block_on(Cluster::start_with(server.clone(), options)).unwrap();
        let servers = Servers {
            runtime,
            name: format!("jetstream-r{replicas}"),
            // Not through the cluster's links: they would add to both sides.
            url: cluster.direct_url(0).unwrap(),
            replicas,
        };
        rows.extend(rows_of(&servers));
    }
    rows
}

fn rows_of(servers: &Servers<'_>) -> Vec<Row> {
    let Servers { runtime, name, .. } = servers;
    let began = Instant::now();
    let store: Arc<dyn Store> = Arc::new(servers.open(LARGE, ReadMode::Linearizable));
    let small: Arc<dyn Store> = Arc::new(servers.open(SMALL, ReadMode::Linearizable));
    // The members of one room come one after the other, so everything is filled at once.
    runtime.block_on(async {
        tokio::join!(
            fill_users(&store, FILLERS, USERS),
            fill_rooms(&store, FILLERS, ROOMS),
            big_room(&store, 1, "huge", rekeys::HUGE),
            big_room(&store, 1, "big", rekeys::BIG),
            fill_rooms(&small, FILLERS / 10, ROOMS / 10),
            big_room(&small, 1, "big", rekeys::BIG),
        );
    });
    eprintln!("{name} … filled in {:.0?}", began.elapsed());
    let bare = runtime.block_on(Bare::connect(&servers.url, LARGE));
    let mut rows = decisions::rows(servers, &store, &bare);
    rows.extend(reads::rows(servers, &store, &bare));
    rows.extend(lists::rows(runtime, name, 5, &small, &store));
    rows.extend(rekeys::rows(servers, &store, &bare));
    runtime.block_on(async {
        small.close().await.unwrap();
        store.close().await.unwrap();
    });
    eprintln!("{name} … measured after {:.0?}", began.elapsed());
    rows
}
