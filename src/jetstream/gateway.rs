//! All traffic of the store to its buckets, as one narrow trait.
//!
//! What crosses it is ours: keys, values, sequences, errors. Driver types, subjects, headers and
//! wire formats stay on the far side, and so do deadlines of single exchanges, retries that are
//! always safe, and the mapping of the server's errors.

mod api;
mod connect;
mod feed;
mod mux;
mod nats;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Error;
use crate::jetstream::bucket::Bucket;

pub(super) use api::{BucketState, Settings};
pub(super) use nats::{NatsGateway, Pause};

/// One message to be stored under a key.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) key: String,
    pub(super) value: Bytes,
    /// Marks the key as deleted, for every reader of the KV bucket.
    pub(super) removal: bool,
    /// Store it only where the key's newest message has this sequence (0: there is none).
    pub(super) expect: Option<u64>,
}

impl Put {
    pub(super) fn new(key: String, value: Bytes) -> Self {
        Self { key, value, removal: false, expect: None }
    }

    pub(super) fn removal(key: String, value: Bytes) -> Self {
        Self { key, value, removal: true, expect: None }
    }

    pub(super) fn expecting(self, sequence: u64) -> Self {
        Self { expect: Some(sequence), ..self }
    }
}

/// One stored message: the newest of its key.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) sequence: u64,
    pub(super) removal: bool,
    pub(super) value: Bytes,
}

/// A read that proved to be fresh enough: one state of the bucket.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Everything that was asked for and is there, in no particular order. What is not here was
    /// not there.
    pub(super) entries: Vec<Entry>,
}

impl Snapshot {
    pub(super) fn find(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Why a write was not acknowledged.
#[derive(Debug)]
pub(super) enum WriteError {
    /// An expectation was refused, by a leader that may be a former one: nothing of it is stored,
    /// and nothing is proved by that about what is.
    Refused,
    /// It may have been stored, or may still be.
    Unknown(Error),
    /// Nothing of it is stored or will be.
    Failed(Error),
}

/// Why a read gave nothing.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The filters match more than one answer may hold.
    TooMany,
    Failed(Error),
}

/// Who keeps a copy of a bucket.
pub(super) trait FeedSink: Send + Sync + 'static {
    /// The copy begins anew: everything so far may be wrong.
    fn reset(&self);
    /// The next message in the bucket's order; nothing was left out since the last.
    fn entry(&self, entry: Entry);
    /// The sequence of the last entry, 0 after a reset.
    fn position(&self) -> u64;
}

#[async_trait]
pub(super) trait Gateway: Send + Sync + 'static {
    /// Stores one message, and returns its sequence once a quorum has it. Without an expectation
    /// it is repeated until it is acknowledged: the keys of such messages are written by nobody
    /// else, or their content does not matter.
    async fn publish(&self, bucket: Bucket, put: Put, by: Instant) -> Result<u64, WriteError>;

    /// Stores many messages without an expectation, many at once, in any order.
    async fn publish_all(&self, bucket: Bucket, puts: Vec<Put>, by: Instant) -> Result<(), Error>;

    /// Stores up to [`MAX_BATCH`] messages, all or none of them, seen by all readers at one
    /// moment. Returns the sequence of the last.
    async fn batch(&self, bucket: Bucket, puts: Vec<Put>, by: Instant) -> Result<u64, WriteError>;

    /// The newest message of every key that a filter matches, from a state of the bucket that
    /// has everything up to the sequence `at_least`.
    async fn read(
        &self,
        bucket: Bucket,
        filters: &[String],
        at_least: u64,
        by: Instant,
    ) -> Result<Snapshot, ReadError>;

    /// Removes, without a trace, the messages under the filter up to the sequence `up_to`.
    async fn purge(
        &self,
        bucket: Bucket,
        filter: &str,
        up_to: Option<u64>,
        by: Instant,
    ) -> Result<(), Error>;

    /// Keeps `sink` in step with the bucket, from now until the gateway is shut.
    /// Returns what to notify to have the copy begin to listen anew.
    fn feed(&self, bucket: Bucket, sink: Arc<dyn FeedSink>) -> Arc<Notify>;

    /// The bucket's settings and replicas, `None` where there is no such bucket.
    async fn bucket(&self, bucket: Bucket, by: Instant) -> Result<Option<BucketState>, Error>;

    /// Makes the bucket, if nobody else just did.
    async fn make_bucket(&self, bucket: Bucket, replicas: u8, by: Instant) -> Result<(), Error>;

    /// Has the bucket kept by so many servers.
    async fn set_replicas(&self, bucket: Bucket, replicas: u8, by: Instant) -> Result<(), Error>;

    /// Sends what is still to be sent, as far as that is possible until then, and lets go of the
    /// connection.
    async fn shut(&self, by: Instant);
}

/// The most messages one atomic batch may have.
pub(super) const MAX_BATCH: usize = 1000;
