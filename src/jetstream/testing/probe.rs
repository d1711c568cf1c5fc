//! Single exchanges with real or simulated servers, for tests that compare the two.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::jetstream::config::JetStreamConfig;
use crate::jetstream::gateway::exchange::{
    Ack, Delivery, Put, Reading, Reply, Servers, WriteError,
};
use crate::jetstream::gateway::nats::NatsServers;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key;
use crate::mutation::Mutation;

/// How long an exchange may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long an exchange that is sure to be answered may take, on a busy machine.
const MUCH_PATIENCE: Duration = Duration::from_secs(10);
/// The bucket that probes use.
const BUCKET: Bucket = Bucket::Members;

/// Makes single exchanges with servers, as the store does, about the bucket `members`.
#[doc(hidden)]
pub struct Probe {
    servers: Arc<dyn Servers>,
    patience: Duration,
}

/// The outcome of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Said {
    /// The write was stored; its last message has this sequence.
    Stored(u64),
    /// The write was refused, since an expectation does not hold.
    Refused,
    /// The server answered that no server can serve the request now.
    NoLeader,
    /// There was no answer.
    Silence,
    /// What a replica has: the sequence of its last message, and each key with its sequence.
    State(u64, Vec<(String, u64)>),
    /// More keys match than one answer may hold.
    TooMany,
    /// The server carried out the request.
    Done,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

impl Probe {
    pub(in crate::jetstream) fn new(servers: Arc<dyn Servers>) -> Self {
        Self { servers, patience: PATIENCE }
    }

    /// Returns a probe that waits long enough for an answer even on a slow machine. Use it for
    /// exchanges that servers always answer.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { servers: Arc::clone(&self.servers), patience: MUCH_PATIENCE }
    }

    /// Connects a probe to real servers.
    pub async fn connect(config: &JetStreamConfig) -> Result<Self, Error> {
        let deadline = Instant::now() + config.op_timeout;
        Ok(Self::new(Arc::new(NatsServers::connect(config, Mutation::NONE, deadline).await?)))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// Makes the bucket.
    pub async fn make(&self, replicas: u8) -> Said {
        replied(&self.servers.make_bucket(BUCKET, replicas, self.deadline()).await)
    }

    /// How many of the bucket's replicas have every message, as the leader says.
    pub async fn current(&self) -> Option<u8> {
        match self.servers.bucket(BUCKET, self.deadline()).await {
            Reply::Done(state) => Some(state?.status.current),
            _ => None,
        }
    }

    /// Stores a message under each key, if the key's newest message has the given sequence. Several
    /// messages are one atomic batch.
    pub async fn store(&self, puts: &[(&str, Option<u64>)]) -> Said {
        let put = |(key, expect): &(&str, Option<u64>)| Put {
            expect: *expect,
            ..Put::new((*key).to_owned(), bytes::Bytes::from_static(b"value"))
        };
        let puts: Vec<_> = puts.iter().map(put).collect();
        self.send(&puts).await
    }

    /// Stores a message, if nothing was ever stored in the bucket.
    pub async fn store_first(&self, key: &str) -> Said {
        self.send(&[Put::first(key.to_owned(), bytes::Bytes::from_static(b"value"))]).await
    }

    /// Marks a key as deleted.
    pub async fn remove(&self, key: &str) -> Said {
        self.send(&[Put::removal(key.to_owned(), bytes::Bytes::new())]).await
    }

    /// Stores a barrier, whose sequence proves how fresh a later answer is.
    pub async fn barrier(&self) -> Said {
        self.store(&[(bucket_key::FORMAT, None)]).await
    }

    async fn send(&self, puts: &[Put]) -> Said {
        let ack = match puts {
            [put] => self.servers.publish(BUCKET, put, self.deadline()).await,
            puts => self.servers.batch(BUCKET, puts, self.deadline()).await,
        };
        match ack {
            Ack::Stored(sequence) => Said::Stored(sequence),
            Ack::Not(WriteError::Refused) => Said::Refused,
            Ack::Again(_) => Said::NoLeader,
            Ack::Not(_) => Said::Silence,
        }
    }

    /// Reads the messages of some replica under the filters.
    pub async fn read(&self, filters: &[&str]) -> Said {
        let filters = filters.iter().copied().chain([bucket_key::FORMAT]);
        let filters: Vec<_> = filters.map(str::to_owned).collect();
        match self.servers.read(BUCKET, &filters, self.deadline()).await {
            Reading::State { up_to, entries } => {
                let asked = entries.into_iter().filter(|entry| entry.key != bucket_key::FORMAT);
                let mut all: Vec<_> = asked.map(|entry| (entry.key, entry.sequence)).collect();
                all.sort();
                Said::State(up_to, all)
            }
            Reading::TooMany => Said::TooMany,
            Reading::Again(Error::Timeout) => Said::Silence,
            Reading::Again(_) | Reading::Not(_) => Said::NoLeader,
        }
    }

    /// Purges the messages under a filter, up to a sequence if one is given.
    pub async fn purge(&self, filter: &str, up_to: Option<u64>) -> Said {
        replied(&self.servers.purge(BUCKET, filter, up_to, self.deadline()).await)
    }

    /// Makes a consumer of all messages after the sequence `after`, and returns its deliveries.
    ///
    /// Each delivery has its count, key and sequence. The list ends when nothing more is delivered.
    /// `None` if no consumer can be made.
    pub async fn listen(&self, after: u64) -> Option<Vec<(u64, String, u64)>> {
        let (all, from) = ([">".to_owned()], after + 1);
        let Reply::Done(mut deliveries) =
            self.servers.consume(BUCKET, &all, from, self.deadline()).await
        else {
            return None;
        };
        let mut all = Vec::new();
        while let Some(Delivery::Entry { count, entry, .. }) = deliveries.next().await {
            all.push((count, entry.key, entry.sequence));
        }
        deliveries.end().await;
        Some(all)
    }
}

fn replied(reply: &Reply<()>) -> Said {
    match reply {
        Reply::Done(()) => Said::Done,
        Reply::Again(Error::Timeout) => Said::Silence,
        Reply::Again(_) | Reply::Not(_) => Said::NoLeader,
    }
}
