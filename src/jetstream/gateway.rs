//! All traffic of the store to its buckets, through one narrow gate.
//!
//! [`Gateway`] is what the store calls: it knows what is tried again, and until when. Below it is
//! the trait [`Servers`]: one exchange with the servers a call. What crosses that is ours: keys,
//! values, sequences, errors. Driver types, subjects, headers and wire formats stay on its far
//! side, and so does the mapping of the server's errors; a simulation of servers stands there, too.

mod address;
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
use crate::jetstream::bucket::Bucket;
use crate::jetstream::clock::Clock;

pub(super) use address::check_servers;
#[cfg(feature = "testing")]
pub(super) use api::BucketStatus;
pub(super) use api::{BucketState, Settings};
pub(super) use nats::NatsServers;
pub(super) use tries::{Gateway, Pause, WINDOW, barrier_number};

/// One message to be stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) key: String,
    pub(super) value: Bytes,
    /// Marks the key as deleted, for every reader of the KV bucket.
    pub(super) removal: bool,
    /// Store it only where the key's newest message has this sequence (0: there is none).
    pub(super) expect: Option<u64>,
    /// Store it only if nothing was ever stored in the bucket; a bucket that was emptied refuses it.
    pub(super) first: bool,
}

impl Put {
    pub(super) fn new(key: String, value: Bytes) -> Self {
        Self { key, value, removal: false, expect: None, first: false }
    }

    pub(super) fn removal(key: String, value: Bytes) -> Self {
        Self { removal: true, ..Self::new(key, value) }
    }

    /// A message that must be the first ever stored in its bucket.
    pub(super) fn first(key: String, value: Bytes) -> Self {
        Self { expect: Some(0), first: true, ..Self::new(key, value) }
    }

    pub(super) fn expecting(self, sequence: u64) -> Self {
        Self { expect: Some(sequence), ..self }
    }
}

/// A barrier of this client that was acknowledged.
///
/// A state that holds this very message is of the history in which it was acknowledged. A sequence
/// alone proves no such thing: a server that lost or regained its latest messages counts the same
/// numbers a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// The barrier's own number, which this client gives to no other.
    pub(super) number: u64,
    /// The sequence of its message.
    pub(super) sequence: u64,
}

/// How fresh the state must be that answers a read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fresh {
    /// Any replica may answer, from whatever it has.
    Whatever,
    /// The state has everything up to this sequence.
    Since(u64),
    /// The state holds this barrier.
    Barrier(Passed),
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
#[derive(Clone, Debug, Default)]
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
    /// No replica answered with a state that is fresh enough, for as long as was given.
    Late(Error),
    Failed(Error),
}

/// The newest message of a copy that stays in the bucket. A consumer may go on behind it only
/// where the bucket still holds that very message: sequences alone are the same in two histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) sequence: u64,
    /// A hash of its key, its value and the time at which it was stored.
    pub(super) mark: u64,
}

impl Anchor {
    /// That of a delivered message.
    pub(super) fn of(entry: &Entry, stored: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        (&entry.key, entry.removal, &*entry.value, stored).hash(&mut hasher);
        Self { sequence: entry.sequence, mark: hasher.finish() }
    }
}

/// Who keeps a copy of a bucket.
pub(super) trait FeedSink: Send + Sync + 'static {
    /// The copy begins anew: everything so far may be wrong.
    fn reset(&self);
    /// Where the next consumer begins; `None` where the copy is empty.
    fn anchor(&self) -> Option<Anchor>;
    /// Another consumer goes on from the anchor, which the bucket still holds.
    fn resume(&self);
    /// The next message in the bucket's order, and when it was stored (nanoseconds since 1970).
    fn entry(&self, entry: Entry, stored: u64);
}

/// What came of one try to store something.
#[derive(Debug)]
pub(super) enum Ack {
    /// A quorum has it; the sequence of the last message of it.
    Stored(u64),
    /// Nothing of it is stored or ever will be, and it is safe and useful to send it again.
    Again(Error),
    Not(WriteError),
}

/// What came of one try to read.
#[derive(Debug)]
pub(super) enum Reading {
    /// What some replica has; whether that is fresh, `up_to` must tell.
    State {
        /// The sequence of the last message the replica has.
        up_to: u64,
        entries: Vec<Entry>,
    },
    /// The filters match more than one answer may hold.
    TooMany,
    /// There was no answer, or none that says anything.
    Again(Error),
    Not(Error),
}

/// What came of one try to have something done, or to learn something.
#[derive(Debug)]
pub(super) enum Reply<T> {
    Done(T),
    /// It may help to ask again, and does no harm.
    Again(Error),
    Not(Error),
}

/// What a consumer of a bucket sends.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A message, the `count`-th of this consumer, and when it was stored.
    Entry { count: u64, entry: Entry, stored: u64 },
    /// There is nothing to send; so many messages were sent until now, where it says so.
    Idle { count: Option<u64> },
}

/// A consumer of a bucket, as seen by who listens.
#[async_trait]
pub(super) trait Deliveries: Send {
    /// The next delivery; `None` when something went wrong that another consumer may not meet.
    async fn next(&mut self) -> Option<Delivery>;

    /// The server whose replica it reads from; `None` where there are no replicas.
    fn place(&self) -> Option<&str>;

    /// Says that nobody listens any more.
    async fn end(&mut self);
}

/// The servers that keep the buckets: one exchange a call, answered by `by` or not at all.
#[async_trait]
pub(super) trait Servers: Send + Sync + 'static {
    /// The clock of whoever asks.
    fn clock(&self) -> Clock {
        Clock::default()
    }

    /// Whether the server that we are connected to knows what the store relies on.
    fn fit(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Stores one message.
    async fn publish(&self, bucket: Bucket, put: &Put, by: Instant) -> Ack;

    /// Stores up to [`MAX_BATCH`] messages, all or none of them, seen by all readers at one
    /// moment.
    async fn batch(&self, bucket: Bucket, puts: &[Put], by: Instant) -> Ack;

    /// The newest message of every key that a filter matches, of one state of the bucket that
    /// some replica is in. Where there is none, the replica does not say which state that is.
    async fn read(&self, bucket: Bucket, filters: &[String], by: Instant) -> Reading;

    /// Removes, without a trace, the messages under the filter up to the sequence `up_to`.
    async fn purge(
        &self,
        bucket: Bucket,
        filter: &str,
        up_to: Option<u64>,
        by: Instant,
    ) -> Reply<()>;

    /// The bucket's settings and replicas, `None` where there is no such bucket.
    async fn bucket(&self, bucket: Bucket, by: Instant) -> Reply<Option<BucketState>>;

    /// Makes the bucket, if nobody else just did.
    async fn make_bucket(&self, bucket: Bucket, replicas: u8, by: Instant) -> Reply<()>;

    /// Gives the bucket these settings.
    async fn change_bucket(&self, bucket: Bucket, settings: &Settings, by: Instant) -> Reply<()>;

    /// A consumer of the bucket's messages that a filter matches, from the sequence `from` on, in
    /// their order, and of all that come.
    async fn consume(
        &self,
        bucket: Bucket,
        filters: &[String],
        from: u64,
        by: Instant,
    ) -> Reply<Box<dyn Deliveries>>;

    /// Why there are no answers, where a server or the driver told of it lately.
    fn reason(&self) -> Option<Error> {
        None
    }

    /// Sends what is still to be sent, as far as that is possible until then, and lets go of the
    /// connection.
    async fn shut(&self, by: Instant);
}

/// The most messages one atomic batch may have.
pub(super) const MAX_BATCH: usize = 1000;
