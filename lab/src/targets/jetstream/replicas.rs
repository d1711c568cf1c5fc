use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use membership::{Error, ReadMode, Store};

use super::faults;
use super::home::BUCKETS;
use super::instance::JetStreamInstance;
use membership_conformance::{Harm, Replicas, TargetError};

/// How long an election may take.
const PATIENCE: Duration = Duration::from_secs(15);

#[async_trait]
impl Replicas for JetStreamInstance {
    fn count(&self) -> usize {
        usize::from(self.config.replicas)
    }

    fn parts(&self) -> &[&'static str] {
        &BUCKETS
    }

    async fn open_at(&self, server: usize) -> Result<Arc<dyn Store>, Error> {
        self.connect(self.url(server).await?, ReadMode::Linearizable).await
    }

    async fn connected(&self) -> Result<usize, TargetError> {
        let cluster = self.home.cluster(&self.supply).await?;
        let nodes = cluster.nodes_of(&self.client_name()).await?;
        Ok(*nodes.first().ok_or("no client is connected")?)
    }

    async fn open_bounded_at(
        &self,
        server: usize,
        bound: Duration,
    ) -> Result<Arc<dyn Store>, Error> {
        self.connect(self.url(server).await?, ReadMode::BoundedStaleness { bound }).await
    }

    async fn lead(&self, server: usize, part: &str) -> Result<(), TargetError> {
        let cluster = self.home.cluster(&self.supply).await?;
        Ok(cluster.lead(server, &faults::stream(&self.config.prefix, part)).await?)
    }

    async fn leader(&self, part: &str) -> Result<usize, TargetError> {
        let cluster = self.home.cluster(&self.supply).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = faults::leader(cluster, &self.config.prefix, part).await {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                let logs = cluster.logs(5);
                return Err(format!("{part} has no leader after {PATIENCE:?}; {logs}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn harm(&self, server: usize, harm: Harm) -> Result<(), TargetError> {
        let cluster = self.home.cluster(&self.supply).await?;
        Ok(self.harmed.harm(cluster, server, harm).await?)
    }

    async fn heal(&self) -> Result<(), TargetError> {
        let cluster = self.home.cluster(&self.supply).await?;
        self.harmed.heal(cluster, &self.config.prefix).await
    }

    async fn keep_by(&self, count: usize) -> Result<(), TargetError> {
        let store = self.client().await?;
        store.set_replicas(u8::try_from(count)?, |_| {}).await?;
        Ok(store.close().await?)
    }
}

impl JetStreamInstance {
    async fn url(&self, server: usize) -> Result<Vec<String>, Error> {
        let cluster = self.home.cluster(&self.supply).await.map_err(Error::unavailable)?;
        Ok(vec![cluster.client_url(server).map_err(Error::unavailable)?])
    }
}
