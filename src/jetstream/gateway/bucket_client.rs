//! Reads that prove how fresh they are, and writes that need such a read to learn their outcome.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, future, stream};
use tokio::time::Instant;

use crate::Error;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::barrier::Barriers;
use crate::jetstream::gateway::exchange::{Fresh, Passed, Put, ReadError, Snapshot, WriteError};
use crate::jetstream::gateway::settings_watch::SettingsWatch;
use crate::jetstream::gateway::tries::{Gateway, WINDOW};
use crate::jetstream::stored::bucket::{Bucket, PerBucket};
use crate::mutation::Mutation;
use crate::trace::event;

/// Fails once another store's buckets have replaced those of the client.
pub(in crate::jetstream) type IsOurs = Box<dyn Fn() -> Result<(), Error> + Send + Sync>;

/// Reads and writes the five buckets, for one client.
pub(in crate::jetstream) struct BucketClient {
    pub(in crate::jetstream) gateway: Arc<Gateway>,
    barriers: PerBucket<Barriers>,
    watch: Arc<SettingsWatch>,
    is_ours: IsOurs,
    mutation: Mutation<JetStreamDefect>,
}

impl BucketClient {
    pub(in crate::jetstream) fn new(
        gateway: Arc<Gateway>,
        barriers: PerBucket<Barriers>,
        watch: Arc<SettingsWatch>,
        is_ours: IsOurs,
        mutation: Mutation<JetStreamDefect>,
    ) -> Self {
        Self { gateway, barriers, watch, is_ours, mutation }
    }

    /// Whether the store has this defect, which the suite must catch.
    pub(in crate::jetstream) fn is(&self, defect: JetStreamDefect) -> bool {
        self.mutation.is(defect)
    }

    /// Fails if the bucket's settings were wrong at the last check.
    pub(in crate::jetstream) fn fit(&self, bucket: Bucket) -> Result<(), Error> {
        self.watch.fit(bucket)
    }

    /// Sends a barrier, or shares one that is sent after this call began.
    pub(in crate::jetstream) async fn barrier(&self, bucket: Bucket) -> Result<Passed, Error> {
        self.watch.fit(bucket)?;
        (self.is_ours)()?;
        let passed = self.barriers.get(bucket).pass().await?;
        let Passed { number, sequence } = passed;
        event!(barrier: debug, "acknowledged", bucket, number, sequence);
        Ok(passed)
    }

    /// The freshness of a state that contains a barrier sent after this call began.
    pub(in crate::jetstream) async fn fresh(&self, bucket: Bucket) -> Result<Fresh, Error> {
        if self.is(JetStreamDefect::NoBarrier) {
            return Ok(Fresh::Whatever);
        }
        if self.is(JetStreamDefect::AnotherBucketsBarrier) && bucket == Bucket::Members {
            let passed = self.barrier(Bucket::Rooms).await?;
            return Ok(Fresh::Since(passed.sequence));
        }
        let passed = self.barrier(bucket).await?;
        if self.is(JetStreamDefect::BelievesSequences) {
            return Ok(Fresh::Since(passed.sequence));
        }
        Ok(Fresh::Barrier(passed))
    }

    /// Reads the messages under the filters, of a state at a moment after this call began.
    pub(in crate::jetstream) async fn read(
        &self,
        bucket: Bucket,
        filters: &[String],
        deadline: Instant,
    ) -> Result<Snapshot, ReadError> {
        if self.is(JetStreamDefect::BarrierAfterTheRead) {
            let snapshot = self.gateway.read(bucket, filters, Fresh::Whatever, deadline).await?;
            return self.barrier(bucket).await.map(|_| snapshot).map_err(ReadError::Failed);
        }
        let fresh = self.fresh(bucket).await.map_err(ReadError::Failed)?;
        self.read_since(bucket, filters, fresh, self.gateway.patience(), deadline).await
    }

    /// Reads the messages under the filters, of a state at least as fresh as `fresh`. Sends another barrier if no
    /// replica has such a state within `patience`, or if no replica ever will.
    pub(in crate::jetstream) async fn read_since(
        &self,
        bucket: Bucket,
        filters: &[String],
        mut fresh: Fresh,
        patience: Duration,
        deadline: Instant,
    ) -> Result<Snapshot, ReadError> {
        loop {
            let until = deadline.min(Instant::now() + patience);
            match self.gateway.read(bucket, filters, fresh, until).await {
                // The servers may have lost the barrier together with their latest messages, or an earlier barrier may
                // have replaced it.
                Err(ReadError::Late(error)) if Instant::now() < deadline => {
                    event!(exchange: debug, "no state is fresh enough", bucket, error);
                }
                read => return read,
            }
            fresh = self.fresh(bucket).await.map_err(ReadError::Failed)?;
        }
    }

    /// As [`read`](Self::read), for filters that match few keys.
    pub(in crate::jetstream) async fn read_few(
        &self,
        bucket: Bucket,
        filters: &[String],
        deadline: Instant,
    ) -> Result<Snapshot, Error> {
        self.read(bucket, filters, deadline).await.map_err(|error| error.for_few_keys(bucket))
    }

    /// The messages that any replica has under filters that match few keys, however old they are.
    pub(in crate::jetstream) async fn read_unproved(
        &self,
        bucket: Bucket,
        filters: &[String],
        deadline: Instant,
    ) -> Result<Snapshot, Error> {
        let read = self.gateway.read(bucket, filters, Fresh::Whatever, deadline).await;
        read.map_err(|error| error.for_few_keys(bucket))
    }

    /// Stores messages under new keys, many at once, in any order. Each message expects that its key has
    /// no message, so a late copy is refused once the message is stored.
    pub(in crate::jetstream) async fn publish_first(
        &self,
        bucket: Bucket,
        puts: Vec<Put>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let all = puts
            .into_iter()
            .map(|put| async move { self.publish_once(bucket, put, deadline).await });
        let all = stream::iter(all).buffer_unordered(WINDOW);
        all.try_for_each(|_| future::ok(())).await
    }

    /// Stores one message under a new key, and returns its revision.
    pub(in crate::jetstream) async fn publish_once(
        &self,
        bucket: Bucket,
        put: Put,
        deadline: Instant,
    ) -> Result<u64, Error> {
        let mut pause = Pause::new(deadline);
        loop {
            let error = match self.gateway.publish(bucket, put.clone().expecting(0), deadline).await
            {
                Ok(revision) => return Ok(revision),
                Err(WriteError::Unknown(error) | WriteError::Failed(error)) => error,
                Err(WriteError::Refused) => {
                    // The server had an earlier copy of this message. Either that copy is stored, or only a former
                    // leader has it, and the copy never will be stored.
                    let key = std::slice::from_ref(&put.key);
                    if self.is(JetStreamDefect::BelievesRefusedFirsts) {
                        let read = self.read_unproved(bucket, key, deadline).await?;
                        return Ok(read.find(&put.key).map_or(0, |entry| entry.sequence));
                    }
                    if let Some(entry) = self.read_few(bucket, key, deadline).await?.find(&put.key)
                    {
                        return Ok(entry.sequence);
                    }
                    Error::Timeout
                }
            };
            event!(exchange: debug, "a first message is sent again", bucket, error);
            pause.after(error).await?;
        }
    }

    /// Sends no more barriers; waiting callers fail.
    pub(in crate::jetstream) fn end_barriers(&self) {
        for bucket in Bucket::ALL {
            self.barriers.get(bucket).end();
        }
    }
}
