//! Stops a client dead between two exchanges with its servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Error;
use crate::jetstream::bucket::Bucket;
use crate::jetstream::gateway::{
    Ack, BucketState, Deliveries, Put, Reading, Reply, Servers, Settings, WriteError,
};

/// Servers, as seen by a client that can be stopped dead.
pub(in crate::jetstream) struct Fused {
    servers: Arc<dyn Servers>,
    /// How many exchanges are left.
    left: AtomicI64,
    /// Whether the one that is one too many is still sent, and its answer lost.
    sends_the_last: AtomicBool,
    stopped: Notify,
}

/// What becomes of an exchange.
enum Fate {
    Lives,
    AnswerLost,
    NotSent,
}

impl Fused {
    pub(in crate::jetstream) fn new(servers: Arc<dyn Servers>) -> Self {
        let (left, sends_the_last) = (AtomicI64::new(i64::MAX), AtomicBool::new(false));
        Self { servers, left, sends_the_last, stopped: Notify::new() }
    }

    /// Lets so many more exchanges happen, then none; with `sends_the_last` the one after them is
    /// sent, and nobody hears the answer.
    pub(in crate::jetstream) fn stop_after(&self, exchanges: u32, sends_the_last: bool) {
        self.sends_the_last.store(sends_the_last, Ordering::SeqCst);
        self.left.store(i64::from(exchanges), Ordering::SeqCst);
    }

    /// Whether an exchange did not happen, or its answer was lost.
    pub(in crate::jetstream) fn is_stopped(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// Returns once the client is stopped.
    pub(in crate::jetstream) async fn stopped(&self) {
        let mut stopped = std::pin::pin!(self.stopped.notified());
        stopped.as_mut().enable();
        if !self.is_stopped() {
            stopped.await;
        }
    }

    fn burn(&self) -> Fate {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1.. => Fate::Lives,
            left => {
                self.left.store(-1, Ordering::SeqCst);
                self.stopped.notify_waiters();
                if left == 0 && self.sends_the_last.load(Ordering::SeqCst) {
                    Fate::AnswerLost
                } else {
                    Fate::NotSent
                }
            }
        }
    }

    async fn exchange<T>(&self, exchange: impl Future<Output = T>, dead: impl Fn(Error) -> T) -> T {
        let stopped = || dead(Error::unavailable("stopped dead, as the test wants it"));
        match self.burn() {
            Fate::Lives => {
                let answer = exchange.await;
                // Whoever was stopped meanwhile hears nothing any more.
                if self.is_stopped() { stopped() } else { answer }
            }
            Fate::AnswerLost => {
                exchange.await;
                stopped()
            }
            Fate::NotSent => stopped(),
        }
    }
}

fn unknown(error: Error) -> Ack {
    Ack::Not(WriteError::Unknown(error))
}

#[async_trait]
impl Servers for Fused {
    async fn publish(&self, bucket: Bucket, put: &Put, by: Instant) -> Ack {
        self.exchange(self.servers.publish(bucket, put, by), unknown).await
    }

    async fn batch(&self, bucket: Bucket, puts: &[Put], by: Instant) -> Ack {
        self.exchange(self.servers.batch(bucket, puts, by), unknown).await
    }

    async fn read(&self, bucket: Bucket, filters: &[String], by: Instant) -> Reading {
        self.exchange(self.servers.read(bucket, filters, by), Reading::Not).await
    }

    async fn purge(
        &self,
        bucket: Bucket,
        filter: &str,
        up_to: Option<u64>,
        by: Instant,
    ) -> Reply<()> {
        self.exchange(self.servers.purge(bucket, filter, up_to, by), Reply::Not).await
    }

    async fn bucket(&self, bucket: Bucket, by: Instant) -> Reply<Option<BucketState>> {
        self.exchange(self.servers.bucket(bucket, by), Reply::Not).await
    }

    async fn make_bucket(&self, bucket: Bucket, replicas: u8, by: Instant) -> Reply<()> {
        self.exchange(self.servers.make_bucket(bucket, replicas, by), Reply::Not).await
    }

    async fn change_bucket(&self, bucket: Bucket, settings: &Settings, by: Instant) -> Reply<()> {
        self.exchange(self.servers.change_bucket(bucket, settings, by), Reply::Not).await
    }

    async fn consume(&self, bucket: Bucket, after: u64, by: Instant) -> Reply<Box<dyn Deliveries>> {
        self.exchange(self.servers.consume(bucket, after, by), Reply::Not).await
    }

    async fn shut(&self, by: Instant) {
        self.servers.shut(by).await;
    }
}
