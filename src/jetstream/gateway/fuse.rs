//! Fault injection into a client's exchanges with its servers. The client is stopped or held
//! between two exchanges, or gets a wrong report of a write's outcome.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::Error;
use crate::jetstream::gateway::bucket_settings::{BucketState, Settings};
use crate::jetstream::gateway::clock::Clock;
use crate::jetstream::gateway::exchange::{
    Ack, Deliveries, Put, Reading, Reply, Servers, WriteError,
};
use crate::jetstream::stored::bucket::Bucket;

/// Servers whose exchanges with one client can be stopped, held or misreported.
pub(in crate::jetstream) struct Fused {
    servers: Arc<dyn Servers>,
    /// How many exchanges are left before the client is stopped.
    left: AtomicI64,
    /// Whether the exchange after those is still sent, while its answer is lost.
    sends_the_last: AtomicBool,
    /// How many exchanges are left before one is held.
    before_held: AtomicI64,
    /// Whether only one exchange is held, and later ones overtake it.
    holds_one: AtomicBool,
    /// Held exchanges wait for this semaphore, which is closed to release them.
    gate: Semaphore,
    /// How many conditional writes are still reported truthfully, before one is misreported.
    before_misheard: AtomicI64,
    misheard: OnceLock<Misheard>,
    /// The write that arrives late.
    late: Mutex<Option<(Bucket, Vec<Put>)>>,
    /// Notified when the client is stopped, and when it is held.
    stands: Notify,
}

/// The wrong report that a client gets of a write that was stored or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Misheard {
    /// A refusal, such as a former leader sends, or a leader that gets a second copy of the
    /// message.
    Refused,
    /// No answer.
    Unanswered,
    /// No answer, since the write is still in flight: it arrives when the client sends it a second
    /// time.
    Late,
}

/// What happens to an exchange.
enum ExchangeFate {
    Lives,
    AnswerLost,
    NotSent,
}

impl Fused {
    pub(in crate::jetstream) fn new(servers: Arc<dyn Servers>) -> Self {
        Self {
            servers,
            left: AtomicI64::new(i64::MAX),
            sends_the_last: AtomicBool::new(false),
            before_held: AtomicI64::new(i64::MAX),
            holds_one: AtomicBool::new(false),
            gate: Semaphore::new(0),
            before_misheard: AtomicI64::new(i64::MAX),
            misheard: OnceLock::new(),
            late: Mutex::default(),
            stands: Notify::new(),
        }
    }

    /// Lets this many more exchanges happen, then stops the client. With `sends_the_last` the
    /// exchange after these is still sent, and its answer is lost.
    pub(in crate::jetstream) fn stop_after(&self, exchanges: u32, sends_the_last: bool) {
        self.sends_the_last.store(sends_the_last, Ordering::SeqCst);
        self.left.store(i64::from(exchanges), Ordering::SeqCst);
    }

    /// Whether the client was stopped, which means that an exchange was not made or its answer was
    /// lost.
    pub(in crate::jetstream) fn is_stopped(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// Returns once the client is stopped.
    pub(in crate::jetstream) async fn stopped(&self) {
        self.until(Self::is_stopped).await;
    }

    /// Lets this many more exchanges happen, then holds all later ones like a paused process.
    pub(in crate::jetstream) fn hold_after(&self, exchanges: u32) {
        self.before_held.store(i64::from(exchanges), Ordering::SeqCst);
    }

    /// Lets this many more exchanges happen, then holds one, while later exchanges overtake it. The
    /// held exchange is like a message that is lost and sent again.
    pub(in crate::jetstream) fn hold_one_after(&self, exchanges: u32) {
        self.holds_one.store(true, Ordering::SeqCst);
        self.hold_after(exchanges);
    }

    /// Returns once an exchange is held, or was held.
    pub(in crate::jetstream) async fn held(&self) {
        self.until(|fused| fused.before_held.load(Ordering::SeqCst) < 0).await;
    }

    /// Releases the held exchanges. From now on no exchange is held.
    pub(in crate::jetstream) fn let_go(&self) {
        self.gate.close();
    }

    /// Reports `writes` stored conditional writes truthfully, and the next one as `as_if`.
    ///
    /// Then it [holds](Self::hold_after) the client. With [`Misheard::Late`], conditional writes
    /// that are not stored count, too.
    pub(in crate::jetstream) fn mishear_after(&self, writes: u32, as_if: Misheard) {
        let _ = self.misheard.set(as_if);
        self.before_misheard.store(i64::from(writes), Ordering::SeqCst);
    }

    /// Whether a write was misreported.
    pub(in crate::jetstream) fn has_misheard(&self) -> bool {
        self.before_misheard.load(Ordering::SeqCst) < 0
    }

    async fn write(&self, bucket: Bucket, puts: &[Put], deadline: Instant) -> Ack {
        if self.comes_again(bucket, puts) {
            let _ = self.send(bucket, puts, deadline).await;
        } else if self.misheard.get() == Some(&Misheard::Late) && self.is_misheard(puts) {
            *self.late() = Some((bucket, puts.to_vec()));
            return unknown(Error::Timeout);
        }
        let ack = self.exchange(self.send(bucket, puts, deadline), unknown).await;
        match (&ack, self.misheard.get()) {
            (Ack::Stored(_), Some(Misheard::Refused)) if self.is_misheard(puts) => {
                Ack::Not(WriteError::Refused)
            }
            (Ack::Stored(_), Some(Misheard::Unanswered)) if self.is_misheard(puts) => {
                unknown(Error::Timeout)
            }
            _ => ack,
        }
    }

    async fn send(&self, bucket: Bucket, puts: &[Put], deadline: Instant) -> Ack {
        match puts {
            [put] => self.servers.publish(bucket, put, deadline).await,
            all => self.servers.batch(bucket, all, deadline).await,
        }
    }

    /// Whether this write is to be misreported; if so, the client is held.
    fn is_misheard(&self, puts: &[Put]) -> bool {
        let expects = puts.iter().any(Put::is_compare_and_set);
        let is_misheard = expects && self.before_misheard.fetch_sub(1, Ordering::SeqCst) == 0;
        if is_misheard {
            self.hold_after(0);
        }
        is_misheard
    }

    /// Whether this write is the second try of the late one.
    fn comes_again(&self, bucket: Bucket, puts: &[Put]) -> bool {
        self.late().take_if(|(late, all)| *late == bucket && all == puts).is_some()
    }

    fn late(&self) -> MutexGuard<'_, Option<(Bucket, Vec<Put>)>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until(&self, stands: impl Fn(&Self) -> bool) {
        let mut told = std::pin::pin!(self.stands.notified());
        told.as_mut().enable();
        while !stands(self) {
            told.as_mut().await;
            told.set(self.stands.notified());
            told.as_mut().enable();
        }
    }

    async fn pass(&self) {
        let left = self.before_held.fetch_sub(1, Ordering::SeqCst);
        if left > 0 || (left < 0 && self.holds_one.load(Ordering::SeqCst)) {
            return;
        }
        self.before_held.store(-1, Ordering::SeqCst);
        self.stands.notify_waiters();
        // The semaphore has no permits: `acquire` returns, with an error, once `let_go` closes it.
        let _ = self.gate.acquire().await;
    }

    fn burn(&self) -> ExchangeFate {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1.. => ExchangeFate::Lives,
            left => {
                self.left.store(-1, Ordering::SeqCst);
                self.stands.notify_waiters();
                if left == 0 && self.sends_the_last.load(Ordering::SeqCst) {
                    ExchangeFate::AnswerLost
                } else {
                    ExchangeFate::NotSent
                }
            }
        }
    }

    async fn exchange<T>(&self, exchange: impl Future<Output = T>, dead: impl Fn(Error) -> T) -> T {
        let stopped = || dead(Error::unavailable("stopped dead, as the test wants it"));
        self.pass().await;
        match self.burn() {
            ExchangeFate::Lives => {
                let answer = exchange.await;
                // A client that was stopped meanwhile gets no answer.
                if self.is_stopped() { stopped() } else { answer }
            }
            ExchangeFate::AnswerLost => {
                exchange.await;
                stopped()
            }
            ExchangeFate::NotSent => stopped(),
        }
    }
}

fn unknown(error: Error) -> Ack {
    Ack::Not(WriteError::Unknown(error))
}

#[async_trait]
impl Servers for Fused {
    fn clock(&self) -> Clock {
        self.servers.clock()
    }

    fn fit(&self) -> Result<(), Error> {
        self.servers.fit()
    }

    async fn publish(&self, bucket: Bucket, put: &Put, deadline: Instant) -> Ack {
        self.write(bucket, std::slice::from_ref(put), deadline).await
    }

    async fn batch(&self, bucket: Bucket, puts: &[Put], deadline: Instant) -> Ack {
        self.write(bucket, puts, deadline).await
    }

    async fn read(&self, bucket: Bucket, filters: &[String], deadline: Instant) -> Reading {
        self.exchange(self.servers.read(bucket, filters, deadline), Reading::Not).await
    }

    async fn purge(
        &self,
        bucket: Bucket,
        filter: &str,
        up_to: Option<u64>,
        deadline: Instant,
    ) -> Reply<()> {
        self.exchange(self.servers.purge(bucket, filter, up_to, deadline), Reply::Not).await
    }

    async fn bucket(&self, bucket: Bucket, deadline: Instant) -> Reply<Option<BucketState>> {
        self.exchange(self.servers.bucket(bucket, deadline), Reply::Not).await
    }

    async fn make_bucket(&self, bucket: Bucket, replicas: u8, deadline: Instant) -> Reply<()> {
        self.exchange(self.servers.make_bucket(bucket, replicas, deadline), Reply::Not).await
    }

    async fn change_bucket(
        &self,
        bucket: Bucket,
        settings: &Settings,
        deadline: Instant,
    ) -> Reply<()> {
        self.exchange(self.servers.change_bucket(bucket, settings, deadline), Reply::Not).await
    }

    async fn consume(
        &self,
        bucket: Bucket,
        filters: &[String],
        from: u64,
        deadline: Instant,
    ) -> Reply<Box<dyn Deliveries>> {
        self.exchange(self.servers.consume(bucket, filters, from, deadline), Reply::Not).await
    }

    fn reason(&self) -> Option<Error> {
        self.servers.reason()
    }

    async fn shut(&self, deadline: Instant) {
        self.servers.shut(deadline).await;
    }
}
