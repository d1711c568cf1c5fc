//! One real server for a test, found in the same way as the suite's servers.

use std::fs;
use std::path::PathBuf;

use membership::{JetStreamConfig, JetStreamStore};
use nats_cluster::{Cluster, ClusterOptions};

pub(crate) struct Server(Cluster);

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(ClusterOptions::servers(1)).await
    }

    pub(crate) async fn start_with(options: ClusterOptions) -> Self {
        Self(Cluster::start(options).await.unwrap_or_else(|error| panic!("{error}")))
    }

    pub(crate) async fn kill(&self) {
        self.0.kill(0).await.unwrap();
    }

    /// Starts the server again on its data, under the same URL.
    pub(crate) async fn run(&self) {
        self.0.run(0).await.unwrap();
    }

    /// Kills the server, changes its configuration file, and starts it again on its data.
    pub(crate) async fn run_with(&self, change: impl FnOnce(String) -> String) {
        self.kill().await;
        let file = self.dir().join("n0.conf");
        let changed = change(fs::read_to_string(&file).unwrap());
        fs::write(&file, changed).unwrap();
        self.run().await;
    }

    /// The directory of the server's configuration, log and certificates.
    pub(crate) fn dir(&self) -> PathBuf {
        self.log().parent().unwrap().to_owned()
    }

    /// The path of the server's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.node(0).unwrap().log().to_owned()
    }

    /// The number of clients that are connected.
    pub(crate) async fn clients(&self) -> usize {
        self.0.clients_of(0).await.unwrap()
    }

    /// The URL for clients.
    pub(crate) fn url(&self) -> String {
        self.0.client_url(0).unwrap()
    }

    pub(crate) fn config(&self) -> JetStreamConfig {
        JetStreamConfig::new([self.url()])
    }

    pub(crate) async fn open(&self, prefix: &str) -> JetStreamStore {
        let config = JetStreamConfig { prefix: prefix.to_owned(), ..self.config() };
        JetStreamStore::open(config).await.unwrap()
    }

    /// Connects an ordinary NATS client.
    pub(crate) async fn raw(&self) -> async_nats::Client {
        self.0.connect_options().unwrap().connect(self.url()).await.unwrap()
    }
}
