use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use membership::{Error, Store};

use super::faults;
use super::home::BUCKETS;
use super::instance::JetStreamInstance;
use crate::target::{Harm, Replicas, TargetError};

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
        let unavailable = |error: TargetError| Error::unavailable(error.to_string());
        let cluster = self.home.cluster(&self.supply).await.map_err(unavailable)?;
        let url = cluster.client_url(server).map_err(|error| unavailable(error.into()))?;
        Ok(Arc::new(self.connect(vec![url]).await?))
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
}
