//! Single exchanges with the servers: the requests and their results.

use std::hash::{DefaultHasher, Hash, Hasher};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::Error;
use crate::jetstream::gateway::bucket_settings::{BucketState, Settings};
use crate::jetstream::gateway::clock::Clock;
use crate::jetstream::stored::bucket::Bucket;
#[cfg(feature = "testing")]
use crate::jetstream::stored::bucket_key;
use crate::jetstream::stored::codec;

/// A message to be stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::jetstream) struct Put {
    pub(in crate::jetstream) key: String,
    pub(in crate::jetstream) value: Bytes,
    /// Marks the key as deleted for every reader of the KV bucket.
    pub(in crate::jetstream) removal: bool,
    /// Store the message only if the key's newest message has this sequence (0: no message).
    pub(in crate::jetstream) expect: Option<u64>,
    /// Store the message only if nothing was ever stored in the bucket. A bucket that was used and emptied refuses it.
    pub(in crate::jetstream) first: bool,
}

impl Put {
    pub(in crate::jetstream) fn new(key: String, value: Bytes) -> Self {
        Self { key, value, removal: false, expect: None, first: false }
    }

    pub(in crate::jetstream) fn removal(key: String, value: Bytes) -> Self {
        Self { removal: true, ..Self::new(key, value) }
    }

    /// A record to be stored.
    pub(in crate::jetstream) fn record<T: Serialize>(
        bucket: Bucket,
        key: String,
        record: &T,
    ) -> Result<Self, Error> {
        let value = codec::seal_record(bucket, &key, record)?;
        Ok(Self::new(key, value))
    }

    /// A tombstone to be stored, with its record.
    pub(in crate::jetstream) fn tombstone<T: Serialize>(
        bucket: Bucket,
        key: String,
        record: &T,
    ) -> Result<Self, Error> {
        let value = codec::seal_record(bucket, &key, record)?;
        Ok(Self::removal(key, value))
    }

    /// A message that must be the first one ever stored in its bucket.
    pub(in crate::jetstream) fn first(key: String, value: Bytes) -> Self {
        Self { expect: Some(0), first: true, ..Self::new(key, value) }
    }

    pub(in crate::jetstream) fn expecting(self, sequence: u64) -> Self {
        Self { expect: Some(sequence), ..self }
    }

    /// Whether the message is a compare-and-set of a record. A barrier may have an expectation, too, but is no record.
    #[cfg(feature = "testing")]
    pub(in crate::jetstream) fn is_compare_and_set(&self) -> bool {
        self.expect.is_some() && !bucket_key::is_barrier(&self.key)
    }
}

/// A barrier of this client that was acknowledged.
///
/// A state that contains this message belongs to the history in which the message was acknowledged. The sequence alone
/// would not prove that: a server that lost its latest messages assigns the same sequences again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jetstream) struct Passed {
    /// The barrier's number, which this client gives to no other message.
    pub(in crate::jetstream) number: u64,
    /// The sequence of its message.
    pub(in crate::jetstream) sequence: u64,
}

impl Passed {
    /// Whether a state with this barrier is as fresh as one with the barrier `earlier`: this is that barrier or a later
    /// one, which may have replaced it.
    pub(in crate::jetstream) fn covers(self, earlier: Self) -> bool {
        self.number >= earlier.number && self.sequence >= earlier.sequence
    }
}

/// How fresh the state of a read must be.
#[derive(Clone, Copy, Debug)]
pub(in crate::jetstream) enum Fresh {
    /// Any state of any replica.
    Whatever,
    /// A state with everything up to this sequence.
    Since(u64),
    /// A state that contains this barrier.
    Barrier(Passed),
}

impl Fresh {
    /// A sequence that the state has at least.
    pub(in crate::jetstream) fn sequence(self) -> u64 {
        match self {
            Self::Whatever => 0,
            Self::Since(sequence) | Self::Barrier(Passed { sequence, .. }) => sequence,
        }
    }
}

/// A stored message: the newest of its key.
#[derive(Clone, Debug)]
pub(in crate::jetstream) struct Entry {
    pub(in crate::jetstream) key: String,
    pub(in crate::jetstream) sequence: u64,
    pub(in crate::jetstream) removal: bool,
    pub(in crate::jetstream) value: Bytes,
}

impl Entry {
    /// The record in the message.
    pub(in crate::jetstream) fn open<T: DeserializeOwned>(
        &self,
        bucket: Bucket,
    ) -> Result<T, Error> {
        codec::open_record(bucket, &self.key, &self.value)
    }
}

/// The result of a read that is fresh enough: one state of the bucket.
#[derive(Clone, Debug, Default)]
pub(in crate::jetstream) struct Snapshot {
    /// Every message that matches, in no particular order. A key without a message here had none.
    pub(in crate::jetstream) entries: Vec<Entry>,
}

impl Snapshot {
    pub(in crate::jetstream) fn find(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Why a write was not acknowledged.
#[derive(Debug)]
pub(in crate::jetstream) enum WriteError {
    /// A leader, possibly a former one, refused an expectation. Nothing was stored. The refusal proves nothing about
    /// the bucket's content, since a former leader may have sent it.
    Refused,
    /// The message may have been stored, or may be stored later.
    Unknown(Error),
    /// The message was not stored and will not be.
    Failed(Error),
}

/// Makes an error of which the outcome stays unknown, from an error during the search for the outcome.
pub(in crate::jetstream) fn in_doubt(error: Error) -> Error {
    if error.outcome_unknown() { error } else { Error::unavailable(error) }
}

/// Why a read gave no result.
#[derive(Debug)]
pub(in crate::jetstream) enum ReadError {
    /// More messages match the filters than one answer may hold.
    TooMany,
    /// No replica answered with a state that is fresh enough before the deadline, or no replica ever will have one.
    Late(Error),
    Failed(Error),
}

impl ReadError {
    /// The error for a caller whose filters match few keys.
    pub(in crate::jetstream) fn for_few_keys(self, bucket: Bucket) -> Error {
        match self {
            Self::Failed(error) | Self::Late(error) => error,
            Self::TooMany => Error::unavailable(format!(
                "{bucket} holds more under one key than can be read at once"
            )),
        }
    }
}

/// The newest message of a copy that is no barrier. A consumer may go on behind the anchor only if the bucket still
/// holds this very message: servers that lost messages assign the same sequences again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jetstream) struct Anchor {
    pub(in crate::jetstream) sequence: u64,
    /// A hash of the message's key, value and time of storing.
    pub(in crate::jetstream) mark: u64,
}

impl Anchor {
    /// The anchor at a delivered message.
    pub(in crate::jetstream) fn of(entry: &Entry, stored: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        (&entry.key, entry.removal, &*entry.value, stored).hash(&mut hasher);
        Self { sequence: entry.sequence, mark: hasher.finish() }
    }
}

/// The copy of a bucket that a feed keeps up to date.
pub(in crate::jetstream) trait FeedSink: Send + Sync + 'static {
    /// Empties the copy: its content may be wrong.
    fn reset(&self);
    /// The message at which the next consumer begins; `None` if the copy is empty.
    fn anchor(&self) -> Option<Anchor>;
    /// Prepares the copy for another consumer, which begins at the anchor.
    fn resume(&self);
    /// Takes the next message in the bucket's order, with its time of storing (nanoseconds since 1970).
    fn entry(&self, entry: Entry, stored: u64);
}

/// The result of one try to store messages.
#[derive(Debug)]
pub(in crate::jetstream) enum Ack {
    /// A quorum has the messages; the sequence of the last one.
    Stored(u64),
    /// Nothing was stored or ever will be. The client may safely send the messages again, and the next try may succeed.
    Again(Error),
    Not(WriteError),
}

/// The result of one try to read.
#[derive(Debug)]
pub(in crate::jetstream) enum Reading {
    /// The messages that some replica has. `up_to` tells how fresh they are.
    State {
        /// The sequence of the replica's last message.
        up_to: u64,
        entries: Vec<Entry>,
    },
    /// More messages match the filters than one answer may hold.
    TooMany,
    /// No replica answered, or the answer is unusable.
    Again(Error),
    Not(Error),
}

/// The result of one request to a server.
#[derive(Debug)]
pub(in crate::jetstream) enum Reply<T> {
    Done(T),
    /// The client may safely send the request again, and the next try may succeed.
    Again(Error),
    Not(Error),
}

/// What a consumer sends.
#[derive(Debug)]
pub(in crate::jetstream) enum Delivery {
    /// The `count`-th message of this consumer, with its time of storing. `pending` is the number of further messages
    /// that the server knew of when it sent this one; servers are known to report 0 too early.
    Entry { count: u64, entry: Entry, stored: u64, pending: u64 },
    /// A heartbeat, with the number of messages sent so far if the server reports it.
    Idle { count: Option<u64> },
}

/// A consumer of a bucket, on the listening side.
#[async_trait]
pub(in crate::jetstream) trait Deliveries: Send {
    /// Returns the next delivery; `None` after an error that may not happen again with a new consumer.
    async fn next(&mut self) -> Option<Delivery>;

    /// The server that holds the consumer; `None` if there is only one replica.
    fn place(&self) -> Option<&str>;

    /// Removes the consumer.
    async fn end(&mut self);
}

/// The servers that keep the buckets. Each call is one exchange, with the deadline `deadline`.
#[async_trait]
pub(in crate::jetstream) trait Servers: Send + Sync + 'static {
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

    /// Stores up to [`MAX_BATCH`] messages atomically: all of them or none, at one moment for all readers.
    async fn batch(&self, bucket: Bucket, puts: &[Put], deadline: Instant) -> Ack;

    /// Reads the newest message of every key that matches a filter, all of one state of some replica. If no key
    /// matches, the replica does not say which state it answered from.
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

    /// Why exchanges get no answer, if a server or the driver reported a reason lately.
    fn reason(&self) -> Option<Error> {
        None
    }

    /// Sends pending messages until the deadline, and closes the connection.
    async fn shut(&self, deadline: Instant);
}

/// The most messages one atomic batch may have.
pub(in crate::jetstream) const MAX_BATCH: usize = 1000;
