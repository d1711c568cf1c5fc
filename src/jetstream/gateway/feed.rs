//! A copy of a bucket, kept in step with it.
//!
//! An ordered consumer of our own: every delivery carries the consumer's count, and a count that
//! is not the next one is a gap, after which the consumer is made anew. It begins at the copy's
//! newest message, its *anchor*, and goes on only if the bucket still holds that very message. So the
//! copy never leaves anything out, and never goes on behind a history that was lost; whether it is up
//! to date, only a barrier tells.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::Error;
use crate::jetstream::bucket::Bucket;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::tries::until_answered;
use crate::jetstream::gateway::{Anchor, BucketState, Deliveries, Delivery, FeedSink, Servers};
use crate::mutation::Mutation;

/// How long a consumer may say nothing at all, not even that there is nothing to say.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long one try to make a consumer may take.
const SETUP: Duration = Duration::from_secs(3);
/// How often it is asked which server leads the bucket.
const WATCH: Duration = Duration::from_secs(2);
/// How many consumers are made at once until one reads from the replica that leads.
const PLACES: usize = 12;
/// The wait between two consumers, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(640));

/// Why a feed has no consumer, while it has none.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<Error>>>);

impl Trouble {
    pub(super) fn get(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, why: Option<Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

pub(super) struct Feed {
    pub(super) servers: Arc<dyn Servers>,
    pub(super) bucket: Bucket,
    /// What the copy is of.
    pub(super) filters: Vec<String>,
    /// How long one exchange may take before it is tried again.
    pub(super) attempt: Duration,
    /// Told to make the consumer anew.
    pub(super) kick: Arc<Notify>,
    pub(super) trouble: Trouble,
    pub(super) mutation: Mutation<JetStreamDefect>,
}

impl Feed {
    /// Keeps the copy, whatever happens to the connection or in the copy's own code.
    pub(super) async fn keep(self, sink: Arc<dyn FeedSink>) {
        let mut created = None;
        let mut pause = PAUSE.0;
        loop {
            let round = self.round(&sink, &mut created);
            let round = std::panic::AssertUnwindSafe(round).catch_unwind().await;
            if round.is_err() {
                // Half an entry may be in the copy.
                created = None;
            }
            // Whoever is refused, or hears nothing that counts, asks ever more rarely: otherwise a
            // feed that cannot be made keeps the servers busy with consumers.
            let went_well = matches!(round, Ok(Ok(true)));
            pause = if went_well { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            if let Ok(Err(error)) = round {
                self.trouble.set((error != Error::Timeout).then_some(error));
            }
            sleep(pause).await;
        }
    }

    /// One consumer's life. Ends at the first irregularity; returns whether anything came before.
    async fn round(
        &self,
        sink: &Arc<dyn FeedSink>,
        created: &mut Option<String>,
    ) -> Result<bool, Error> {
        // Whoever asked for another consumer until now gets this one.
        let _ = self.kick.notified().now_or_never();
        let state = self.state().await?;
        if created.as_ref() != Some(&state.created) {
            sink.reset();
            *created = Some(state.created.clone());
        }
        let anchor = sink.anchor();
        let Some(mut deliveries) = self.consume(anchor, &state).await? else { return Ok(false) };
        self.trouble.set(None);
        if anchor.is_some() {
            sink.resume();
        }
        let heard = self.listen(sink, &state, anchor, &mut *deliveries).await;
        deliveries.end().await;
        Ok(heard)
    }

    async fn state(&self) -> Result<BucketState, Error> {
        let by = Instant::now() + SETUP;
        let state = until_answered(self.attempt, by, |by| self.servers.bucket(self.bucket, by));
        let missing = || Error::unavailable(format!("there is no bucket {}", self.bucket));
        state.await?.ok_or_else(missing)
    }

    /// A consumer on the server that leads the bucket. A follower may differ from its leader for
    /// good, after servers lost their latest messages and another one came back with them
    /// (nats-server 2.15.1), and its deliveries do not show that.
    async fn consume(
        &self,
        anchor: Option<Anchor>,
        state: &BucketState,
    ) -> Result<Option<Box<dyn Deliveries>>, Error> {
        let from = anchor.map_or(1, |anchor| anchor.sequence);
        let by = Instant::now() + SETUP;
        for _ in 0..PLACES {
            let consumer = |by| self.servers.consume(self.bucket, &self.filters, from, by);
            let mut deliveries = until_answered(self.attempt, by, consumer).await?;
            if leads(state, deliveries.place())
                || self.mutation.is(JetStreamDefect::ListensAnywhere)
            {
                return Ok(Some(deliveries));
            }
            deliveries.end().await;
        }
        Ok(None)
    }

    /// Whether the consumer's count is the one that comes next: another one is a gap.
    fn is_next(&self, count: u64, next: u64) -> bool {
        count == next || self.mutation.is(JetStreamDefect::IgnoresGaps)
    }

    fn minds_history(&self) -> bool {
        !self.mutation.is(JetStreamDefect::GoesOnAnywhere)
    }

    /// Returns whether anything came in order.
    async fn listen(
        &self,
        sink: &Arc<dyn FeedSink>,
        state: &BucketState,
        mut anchor: Option<Anchor>,
        deliveries: &mut dyn Deliveries,
    ) -> bool {
        let (mut sent, mut heard) = (0, false);
        let mut moved = pin!(self.moved(state, deliveries.place().map(str::to_owned)));
        loop {
            let next = tokio::select! {
                biased;
                next = timeout(PATIENCE, deliveries.next()) => next,
                () = self.kick.notified() => return heard,
                () = &mut moved => return heard,
            };
            match next {
                Ok(Some(Delivery::Entry { count, entry, stored }))
                    if self.is_next(count, sent + 1) =>
                {
                    sent = count;
                    let differs = |anchor| anchor != Anchor::of(&entry, stored);
                    if anchor.take().is_some_and(differs) && self.minds_history() {
                        // The bucket holds another history than the copy.
                        sink.reset();
                        return heard;
                    }
                    sink.entry(entry, stored);
                }
                Ok(Some(Delivery::Idle { count }))
                    if count.is_none_or(|count| self.is_next(count, sent)) =>
                {
                    if anchor.is_some() && count.is_some() && self.minds_history() {
                        // The bucket ends before the copy does.
                        sink.reset();
                        return heard;
                    }
                }
                _ => return heard,
            }
            heard = true;
        }
    }

    /// Returns once another server leads the bucket, or another bucket has its name.
    async fn moved(&self, then: &BucketState, place: Option<String>) {
        loop {
            sleep(WATCH).await;
            let Ok(now) = self.state().await else { continue };
            let led = now.leader.is_some();
            if now.created != then.created || (led && !leads(&now, place.as_deref())) {
                return;
            }
        }
    }
}

/// Whether a consumer at this place reads from the replica that leads. Where there is one, a server does not
/// say who holds the consumer.
fn leads(state: &BucketState, place: Option<&str>) -> bool {
    state.status.replicas <= 1 || (state.leader.is_some() && state.leader.as_deref() == place)
}
