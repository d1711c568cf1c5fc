//! Single exchanges with servers, real or simulated, for the tests that hold the one to the other.

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
/// How long one that is sure to be answered may take, on a busy machine.
const MUCH_PATIENCE: Duration = Duration::from_secs(10);
/// The bucket that is asked.
const BUCKET: Bucket = Bucket::Members;

/// Asks servers as the store does, one exchange at a time, about the bucket `members`.
#[doc(hidden)]
pub struct Probe {
    servers: Arc<dyn Servers>,
    patience: Duration,
}

/// What an exchange comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Said {
    /// It is stored; the sequence of its last message.
    Stored(u64),
    /// An expectation was refused.
    Refused,
    /// It was heard, and there is nobody to do it.
    NoLeader,
    /// There was no answer.
    Silence,
    /// What some replica has: up to which sequence, and each key with its sequence.
    State(u64, Vec<(String, u64)>),
    /// More than one answer may hold.
    TooMany,
    /// It was done.
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

    /// The same, for exchanges that are sure to be answered, however slow the machine: waits for
    /// long before it takes a silence for one.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { servers: Arc::clone(&self.servers), patience: MUCH_PATIENCE }
    }

    /// Asks real servers.
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

    /// How many of its replicas have everything, as the leader says.
    pub async fn current(&self) -> Option<u8> {
        match self.servers.bucket(BUCKET, self.deadline()).await {
            Reply::Done(state) => Some(state?.status.current),
            _ => None,
        }
    }

    /// Stores a message under each key, where its newest has the sequence that goes with it; of
    /// several all or none.
    pub async fn store(&self, puts: &[(&str, Option<u64>)]) -> Said {
        let put = |(key, expect): &(&str, Option<u64>)| Put {
            expect: *expect,
            ..Put::new((*key).to_owned(), bytes::Bytes::from_static(b"value"))
        };
        let puts: Vec<_> = puts.iter().map(put).collect();
        self.send(&puts).await
    }

    /// Stores a message only where nothing was ever stored.
    pub async fn store_first(&self, key: &str) -> Said {
        self.send(&[Put::first(key.to_owned(), bytes::Bytes::from_static(b"value"))]).await
    }

    /// Marks a key as deleted.
    pub async fn remove(&self, key: &str) -> Said {
        self.send(&[Put::removal(key.to_owned(), bytes::Bytes::new())]).await
    }

    /// Stores the message whose sequence proves how fresh an answer is.
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

    /// What some replica has under the filters.
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

    /// Removes the messages under a filter up to a sequence, without a trace.
    pub async fn purge(&self, filter: &str, up_to: Option<u64>) -> Said {
        replied(&self.servers.purge(BUCKET, filter, up_to, self.deadline()).await)
    }

    /// The first deliveries to a consumer of what is above the sequence `after`, until there is
    /// nothing to deliver: each with its count, key and sequence. `None` where there is no consumer.
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
