use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Config, CreateErrorKind, Store, UpdateErrorKind};
use futures::TryStreamExt;
use membership::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A bucket of JSON records.
pub(super) struct Bucket(Store);

impl Bucket {
    pub(super) async fn open(
        jetstream: &Context,
        name: String,
        replicas: u8,
    ) -> Result<Self, Error> {
        let num_replicas = usize::from(replicas);
        let config = Config { bucket: name, num_replicas, ..Config::default() };
        let made = jetstream.create_or_update_key_value(config).await;
        Ok(Self(made.map_err(Error::unavailable)?))
    }

    /// A record and its revision.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<(T, u64)>, Error> {
        let entry = self.0.entry(key).await.map_err(Error::unavailable)?;
        let live = |entry: &async_nats::jetstream::kv::Entry| {
            entry.operation == async_nats::jetstream::kv::Operation::Put
        };
        let Some(entry) = entry.filter(live) else { return Ok(None) };
        let record = serde_json::from_slice(&entry.value)
            .map_err(|problem| Error::corrupt(&self.0.name, key, problem.to_string()))?;
        Ok(Some((record, entry.revision)))
    }

    pub(super) async fn put(&self, key: &str, record: &impl Serialize) -> Result<(), Error> {
        self.0.put(key, json(record)?.into()).await.map_err(Error::unavailable)?;
        Ok(())
    }

    /// Stores a record under a free key. Returns `false` if the key is in use.
    pub(super) async fn create(&self, key: &str, record: &impl Serialize) -> Result<bool, Error> {
        match self.0.create(key, json(record)?.into()).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::unavailable(error)),
        }
    }

    /// Replaces a record if it still has this revision. Returns `false` if it was written since.
    pub(super) async fn update(
        &self,
        key: &str,
        record: &impl Serialize,
        revision: u64,
    ) -> Result<bool, Error> {
        match self.0.update(key, json(record)?.into(), revision).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(Error::unavailable(error)),
        }
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.delete(key).await.map_err(Error::unavailable)
    }

    /// The keys that begin with `prefix`.
    pub(super) async fn keys(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let keys = self.0.keys().await.map_err(Error::unavailable)?;
        let keys: Vec<String> = keys.try_collect().await.map_err(Error::unavailable)?;
        Ok(keys.into_iter().filter(|key| key.starts_with(prefix)).collect())
    }
}

fn json(record: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(record).map_err(Error::unavailable)
}
