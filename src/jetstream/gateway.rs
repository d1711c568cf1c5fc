//! The gateway: the store's only way to its servers.
//!
//! The store calls [`Gateway`], which decides what is tried again and until when. Below it, each method of the trait
//! [`Servers`] is one exchange with the servers. Only keys, values, sequences and errors of our own cross that trait.
//! Driver types, subjects, headers, wire formats and the server's error codes stay behind it. The simulated servers
//! implement it, too.

mod api;
mod complaint;
mod connect;
mod consumer;
mod feed;
mod identity;
mod mux;
mod nats;
mod rotation;
mod tries;
mod wire;

use std::hash::{DefaultHasher, Hash, Hasher};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::Error;
use crate::jetstream::clock::Clock;
use crate::jetstream::stored::bucket::Bucket;

#[cfg(feature = "testing")]
pub(super) use api::BucketStatus;
pub(super) use api::{BucketState, Settings};
pub(super) use nats::NatsServers;
pub(super) use tries::{Gateway, Pause, WINDOW, barrier_number};

/// A message to be stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) key: String,
    pub(super) value: Bytes,
    /// Marks the key as deleted for every reader of the KV bucket.
    pub(super) removal: bool,
    /// Store the message only if the key's newest message has this sequence (0: no message).
    pub(super) expect: Option<u64>,
    /// Store the message only if nothing was ever stored in the bucket. A bucket that was used and emptied refuses it.
    pub(super) first: bool,
}

impl Put {
    pub(super) fn new(key: String, value: Bytes) -> Self {
        Self { key, value, removal: false, expect: None, first: false }
    }

    pub(super) fn removal(key: String, value: Bytes) -> Self {
        Self { removal: true, ..Self::new(key, value) }
    }

    /// A message that must be the first one ever stored in its bucket.
    pub(super) fn first(key: String, value: Bytes) -> Self {
        Self { expect: Some(0), first: true, ..Self::new(key, value) }
    }

    pub(super) fn expecting(self, sequence: u64) -> Self {
        Self { expect: Some(sequence), ..self }
    }
}

/// An acknowledged barrier of this client.
///
/// A state that contains this message belongs to the history in which it was acknowledged. Its sequence alone would
/// not prove that: a server that lost its latest messages gives the same sequences out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// The barrier's number, which this client gives to no other message.
    pub(super) number: u64,
    /// The sequence of its message.
    pub(super) sequence: u64,
}

/// How fresh the state of a read must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fresh {
    /// Any state of any replica.
    Whatever,
    /// A state with everything up to this sequence.
    Since(u64),
    /// A state that contains this barrier.
    Barrier(Passed),
}

/// A stored message: the newest of its key.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) sequence: u64,
    pub(super) removal: bool,
    pub(super) value: Bytes,
}

/// The result of a read that is fresh enough: one state of the bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Every message that matches, in no particular order. A key without a message here had none.
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
    /// A leader, possibly a former one, refused an expectation. Nothing was stored. That proves nothing about the
    /// bucket's content.
    Refused,
    /// The message may have been stored, or may be stored later.
    Unknown(Error),
    /// The message was not stored and will not be.
    Failed(Error),
}

/// Why a read gave no result.
#[derive(Debug)]
pub(super) enum ReadError {
    /// More messages match the filters than one answer may hold.
    TooMany,
    /// No replica answered with a state that is fresh enough before the deadline.
    Late(Error),
    Failed(Error),
}

/// The newest message of a copy that is no barrier. A consumer may go on behind it only if the bucket still holds this
/// very message: servers that lost messages give out the same sequences again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) sequence: u64,
    /// A hash of the message's key, value and time of storing.
    pub(super) mark: u64,
}

impl Anchor {
    /// The anchor at a delivered message.
    pub(super) fn of(entry: &Entry, stored: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        (&entry.key, entry.removal, &*entry.value, stored).hash(&mut hasher);
        Self { sequence: entry.sequence, mark: hasher.finish() }
    }
}

/// A copy of a bucket, as its feed sees it.
pub(super) trait FeedSink: Send + Sync + 'static {
    /// Empties the copy: its content may be wrong.
    fn reset(&self);
    /// The message at which the next consumer begins; `None` if the copy is empty.
    fn anchor(&self) -> Option<Anchor>;
    /// Another consumer goes on at the anchor.
    fn resume(&self);
    /// Takes the next message in the bucket's order, with its time of storing (nanoseconds since 1970).
    fn entry(&self, entry: Entry, stored: u64);
}

/// The result of one try to store messages.
#[derive(Debug)]
pub(super) enum Ack {
    /// A quorum has the messages; the sequence of the last one.
    Stored(u64),
    /// Nothing was stored or ever will be. Sending it again is safe and may help.
    Again(Error),
    Not(WriteError),
}

/// The result of one try to read.
#[derive(Debug)]
pub(super) enum Reading {
    /// The messages that some replica has. `up_to` tells how fresh they are.
    State {
        /// The sequence of the replica's last message.
        up_to: u64,
        entries: Vec<Entry>,
    },
    /// More messages match the filters than one answer may hold.
    TooMany,
    /// No answer, or none of use.
    Again(Error),
    Not(Error),
}

/// The result of one request to a server.
#[derive(Debug)]
pub(super) enum Reply<T> {
    Done(T),
    /// Asking again is safe and may help.
    Again(Error),
    Not(Error),
}

/// What a consumer sends.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A message, the `count`-th of this consumer, with its time of storing.
    Entry { count: u64, entry: Entry, stored: u64 },
    /// A heartbeat; with the number of messages sent so far, if the server says it.
    Idle { count: Option<u64> },
}

/// A consumer of a bucket, on the listening side.
#[async_trait]
pub(super) trait Deliveries: Send {
    /// The next delivery; `None` after an error that a new consumer may not meet.
    async fn next(&mut self) -> Option<Delivery>;

    /// The server that holds the consumer; `None` if there is only one replica.
    fn place(&self) -> Option<&str>;

    /// Removes the consumer.
    async fn end(&mut self);
}

/// The servers that keep the buckets. Each call is one exchange, with the deadline `deadline`.
#[async_trait]
pub(super) trait Servers: Send + Sync + 'static {
    /// The caller's clock.
    fn clock(&self) -> Clock {
        Clock::default()
    }

    /// Whether the connected server has the abilities that the store relies on.
    fn fit(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Stores one message.
    async fn publish(&self, bucket: Bucket, put: &Put, deadline: Instant) -> Ack;

    /// Stores up to [`MAX_BATCH`] messages atomically: all or none of them, at one moment for all readers.
    async fn batch(&self, bucket: Bucket, puts: &[Put], deadline: Instant) -> Ack;

    /// The newest message of every key that matches a filter, all of one state of some replica. If none matches, the
    /// replica does not say which state it answered from.
    async fn read(&self, bucket: Bucket, filters: &[String], deadline: Instant) -> Reading;

    /// Purges the messages under the filter up to the sequence `up_to`.
    async fn purge(
        &self,
        bucket: Bucket,
        filter: &str,
        up_to: Option<u64>,
        deadline: Instant,
    ) -> Reply<()>;

    /// The bucket's settings and replicas; `None` if there is no such bucket.
    async fn bucket(&self, bucket: Bucket, deadline: Instant) -> Reply<Option<BucketState>>;

    /// Makes the bucket, unless another client just did.
    async fn make_bucket(&self, bucket: Bucket, replicas: u8, deadline: Instant) -> Reply<()>;

    /// Changes the bucket's settings.
    async fn change_bucket(
        &self,
        bucket: Bucket,
        settings: &Settings,
        deadline: Instant,
    ) -> Reply<()>;

    /// Makes a consumer of the bucket's messages that match a filter, from the sequence `from` on, in order.
    async fn consume(
        &self,
        bucket: Bucket,
        filters: &[String],
        from: u64,
        deadline: Instant,
    ) -> Reply<Box<dyn Deliveries>>;

    /// Why there are no answers, if a server or the driver told lately.
    fn reason(&self) -> Option<Error> {
        None
    }

    /// Sends pending messages until the deadline, and closes the connection.
    async fn shut(&self, deadline: Instant);
}

/// The most messages one atomic batch may have.
pub(super) const MAX_BATCH: usize = 1000;
