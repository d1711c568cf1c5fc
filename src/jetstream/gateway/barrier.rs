//! Barriers: proof that a read is fresh, shared by the callers that need one at the same time.
//!
//! A barrier is a message that the client publishes to a key of its own. Once a quorum acknowledges the barrier, it
//! follows in the stream every message that was acknowledged before it was sent. A state that contains the barrier is
//! fresh enough for every call that began before the barrier was sent.
//!
//! A caller joins the next barrier to be sent, never one in flight: a barrier in flight may stand before a write that
//! the caller knows of. The next barrier is sent at once while few are in flight.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Error;
use crate::jetstream::counters::Counters;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::exchange::Passed;
use crate::jetstream::stored::bucket::Bucket;
use crate::mutation::Mutation;
use crate::trace::event;

/// Barriers of one bucket in flight at once, while they are answered quickly.
const YOUNG: usize = 4;
/// A barrier that is in flight for longer than this does not hold up others, since its answer may be lost.
const OLD: Duration = Duration::from_millis(20);
/// Barriers of one bucket in flight at once, at most.
const MOST: usize = 64;

type Sent = Pin<Box<dyn Future<Output = Result<Passed, Error>> + Send>>;
/// Sends one barrier and waits for its acknowledgement until the deadline.
pub(in crate::jetstream) type Sender = Box<dyn Fn(Instant) -> Sent + Send + Sync>;

/// The barriers of one bucket.
pub(in crate::jetstream) struct Barriers {
    shared: Arc<Shared>,
    op_timeout: Duration,
    task: tokio::task::AbortHandle,
}

struct Shared {
    bucket: Bucket,
    /// A std lock: held for a moment, never across an await.
    next: Mutex<Next>,
    wanted: Notify,
    counters: Counters,
    mutation: Mutation<JetStreamDefect>,
}

#[derive(Default)]
struct Next {
    /// The next barrier, if a caller waits for one.
    round: Option<Arc<Round>>,
    /// Whether the sending of barriers has ended for good.
    ended: bool,
}

/// One barrier and its outcome.
struct Round {
    /// The moment at which the callers stop waiting: `op_timeout` after the first of them began to wait.
    deadline: Instant,
    outcome: OnceLock<Result<Passed, Error>>,
    known: Notify,
}

impl Round {
    fn new(deadline: Instant) -> Self {
        Self { deadline, outcome: OnceLock::new(), known: Notify::new() }
    }

    fn tell(&self, outcome: Result<Passed, Error>) {
        // Only the first outcome counts.
        let _ = self.outcome.set(outcome);
        self.known.notify_waiters();
    }

    async fn outcome(&self) -> Result<Passed, Error> {
        let mut known = pin!(self.known.notified());
        known.as_mut().enable();
        if self.outcome.get().is_none() {
            known.await;
        }
        self.outcome.get().cloned().unwrap_or_else(|| Err(gone()))
    }
}

/// Fails the waiting callers when it is dropped without an outcome: a panic must not leave them waiting (clause
/// AUTH-2).
struct Told(Arc<Round>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.tell(Err(gone()));
    }
}

fn gone() -> Error {
    Error::unavailable("the task that sends barriers has ended")
}

impl Barriers {
    /// Barriers of this bucket that are sent by `send`, each with `op_timeout` to succeed.
    pub(in crate::jetstream) fn new(
        bucket: Bucket,
        send: Sender,
        op_timeout: Duration,
        counters: Counters,
        mutation: Mutation<JetStreamDefect>,
    ) -> Self {
        let next = Mutex::default();
        let shared = Arc::new(Shared { bucket, next, wanted: Notify::new(), counters, mutation });
        // The guard is made here and moved into the task. A guard that the task made itself would not exist if the task
        // is aborted before its first poll, and waiting callers would not fail.
        let abandoned = Abandoned(Arc::clone(&shared));
        let task = tokio::spawn(async move { abandoned.0.run(send).await }).abort_handle();
        Self { shared, op_timeout, task }
    }

    /// Waits for a barrier that is sent after this call began.
    pub(in crate::jetstream) async fn pass(&self) -> Result<Passed, Error> {
        let round = {
            let mut next = self.shared.next();
            if next.ended {
                return Err(gone());
            }
            Arc::clone(next.round.get_or_insert_with(|| {
                self.shared.wanted.notify_one();
                Arc::new(Round::new(Instant::now() + self.op_timeout))
            }))
        };
        round.outcome().await
    }

    /// Sends no more barriers; waiting callers fail.
    pub(in crate::jetstream) fn end(&self) {
        self.task.abort();
    }
}

impl Drop for Barriers {
    fn drop(&mut self) {
        self.end();
    }
}

/// Fails the callers of a barrier that will never be sent.
struct Abandoned(Arc<Shared>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        let mut next = self.0.next();
        next.ended = true;
        if let Some(round) = next.round.take() {
            round.tell(Err(gone()));
        }
    }
}

impl Shared {
    fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, send: Sender) {
        let mut under_way = FuturesUnordered::new();
        // When each barrier in flight was sent, the oldest first.
        let mut sent_at: Vec<Instant> = Vec::new();
        let (mut wanted, mut told) = (false, false);
        loop {
            let now = Instant::now();
            let young = sent_at.len().checked_sub(YOUNG).and_then(|n| sent_at.get(n));
            let free = match young {
                _ if sent_at.len() >= MOST => None,
                Some(oldest_young) => Some(*oldest_young + OLD),
                None => Some(now),
            };
            if wanted && free.is_some_and(|free| free <= now) {
                // Lets callers that are ready now join this barrier.
                tokio::task::yield_now().await;
                (wanted, told) = (false, false);
                let Some(round) = self.next().round.take() else { continue };
                let callers = Arc::strong_count(&round) - 1;
                if callers > 1 {
                    event!(barrier: debug, "one for several calls", bucket = self.bucket, callers);
                }
                if self.mutation.is(JetStreamDefect::JoinsBarriersUnderWay) {
                    self.next().round = Some(Arc::clone(&round));
                }
                let (barrier, told, at) = (send(round.deadline), Told(round), Instant::now());
                sent_at.push(at);
                under_way.push(async move {
                    told.0.tell(barrier.await);
                    self.next().round.take_if(|next| Arc::ptr_eq(next, &told.0));
                    at
                });
                continue;
            }
            if wanted && !told {
                told = true;
                self.counters.barrier_waits();
                event!(
                    barrier: debug,
                    "the next one waits",
                    bucket = self.bucket,
                    in_flight = sent_at.len(),
                );
            }
            let late = self.next().round.as_ref().map(|round| round.deadline);
            let wake = late.map(|late| free.map_or(late, |free| free.min(late)));
            tokio::select! {
                biased;
                () = self.wanted.notified() => wanted = true,
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    if let Some(n) = sent_at.iter().position(|at| *at == done) {
                        sent_at.remove(n);
                    }
                }
                () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => {
                    if late.is_some_and(|late| late <= Instant::now())
                        && let Some(round) = self.next().round.take()
                    {
                        round.tell(Err(Error::Timeout));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    fn passed(number: u64) -> Passed {
        Passed { number, sequence: number }
    }

    fn sent_by(send: Sender) -> Barriers {
        let (timeout, counters) = (Duration::from_secs(5), Counters::default());
        Barriers::new(Bucket::Users, send, timeout, counters, Mutation::NONE)
    }

    /// Barriers numbered in the order they are sent, each of which ends when a permit is added.
    fn barriers() -> (Arc<Barriers>, Arc<AtomicU64>, Arc<Semaphore>) {
        let (sent, permits) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let (count, gate) = (Arc::clone(&sent), Arc::clone(&permits));
        let sender: Sender = Box::new(move |deadline| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                match tokio::time::timeout_at(deadline, gate.acquire()).await {
                    Ok(permit) => permit.unwrap().forget(),
                    Err(_) => return Err(Error::Timeout),
                }
                Ok(passed(number))
            })
        });
        let barriers = sent_by(sender);
        (Arc::new(barriers), sent, permits)
    }

    async fn until(sent: &AtomicU64, number: u64) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while sent.load(Ordering::SeqCst) < number {
            assert!(Instant::now() < deadline, "barrier {number} was not sent");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_comes_while_one_is_under_way_gets_the_next_at_once() {
        let (barriers, sent, permits) = barriers();
        let pass = || {
            let barriers = Arc::clone(&barriers);
            tokio::spawn(async move { barriers.pass().await })
        };
        let first = pass();
        until(&sent, 1).await;
        let second = pass();
        until(&sent, 2).await;
        permits.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(passed(1)));
        assert_eq!(second.await.unwrap(), Ok(passed(2)));
    }

    #[tokio::test]
    async fn those_who_wait_together_share_one() {
        let (barriers, sent, permits) = barriers();
        permits.add_permits(10);
        let all = (0..64).map(|_| barriers.pass()).collect::<FuturesUnordered<_>>();
        let outcomes: Vec<_> = all.collect().await;
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(passed(1))), "{outcomes:?}");
        assert_eq!(sent.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_timeout_though_none_is_answered() {
        let (barriers, _, _permits) = barriers();
        let begun = Instant::now();
        let mut all = FuturesUnordered::new();
        for n in 0..200 {
            let barriers = Arc::clone(&barriers);
            let comes = begun + Duration::from_millis(30) * n;
            all.push(tokio::spawn(async move {
                tokio::time::sleep_until(comes).await;
                let outcome = tokio::time::timeout(Duration::from_millis(5001), barriers.pass());
                outcome.await.map(|outcome| outcome.is_err())
            }));
        }
        while let Some(ended) = all.next().await {
            assert_eq!(ended.unwrap(), Ok(true));
        }
    }

    #[tokio::test]
    async fn a_panic_leaves_nobody_waiting() {
        let send: Sender = Box::new(|_| Box::pin(async { panic!("as the test wants it") }));
        let barriers = sent_by(send);
        assert!(matches!(barriers.pass().await, Err(Error::Unavailable(_))));
        assert!(matches!(barriers.pass().await, Err(Error::Unavailable(_))));
    }

    #[tokio::test]
    async fn none_is_sent_once_they_have_ended() {
        let (barriers, sent, permits) = barriers();
        permits.add_permits(10);
        barriers.end();
        assert!(matches!(barriers.pass().await, Err(Error::Unavailable(_))));
        assert_eq!(sent.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn their_task_ends_with_them() {
        let (barriers, sent, _permits) = barriers();
        assert_eq!(Arc::strong_count(&sent), 2);
        drop(barriers);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&sent), 1);
    }
}
