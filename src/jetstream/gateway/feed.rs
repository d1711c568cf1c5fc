//! A copy of a bucket, kept in step with it.
//!
//! An ordered consumer of our own: every delivery carries the consumer's count, and a count that
//! is not the next one is a gap, after which the consumer is made anew from where the copy
//! stands. So the copy never leaves anything out; whether it is up to date, only a barrier tells.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::Error;
use crate::jetstream::bucket::Bucket;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::tries::until_answered;
use crate::jetstream::gateway::{Deliveries, Delivery, FeedSink, Servers};
use crate::mutation::Mutation;

/// How long a consumer may say nothing at all, not even that there is nothing to say.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long one try to make a consumer may take.
const SETUP: Duration = Duration::from_secs(3);
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
            tokio::time::sleep(pause).await;
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
        let by = Instant::now() + SETUP;
        let state = until_answered(self.attempt, by, |by| self.servers.bucket(self.bucket, by));
        let missing = || Error::unavailable(format!("there is no bucket {}", self.bucket));
        let state = state.await?.ok_or_else(missing)?;
        if created.as_ref() != Some(&state.created) {
            sink.reset();
            *created = Some(state.created);
        }
        let after = sink.position();
        let consumer = |by| self.servers.consume(self.bucket, after, by);
        let mut deliveries = until_answered(self.attempt, by, consumer).await?;
        self.trouble.set(None);
        let heard = self.listen(sink, &mut *deliveries).await;
        deliveries.end().await;
        Ok(heard)
    }

    /// Whether the consumer's count is the one that comes next: another one is a gap.
    fn is_next(&self, count: u64, next: u64) -> bool {
        count == next || self.mutation.is(JetStreamDefect::IgnoresGaps)
    }

    /// Returns whether anything came in order.
    async fn listen(&self, sink: &Arc<dyn FeedSink>, deliveries: &mut dyn Deliveries) -> bool {
        let (mut sent, mut heard) = (0, false);
        loop {
            let next = tokio::select! {
                biased;
                next = timeout(PATIENCE, deliveries.next()) => next,
                () = self.kick.notified() => return heard,
            };
            match next {
                Ok(Some(Delivery::Entry { count, entry, more }))
                    if self.is_next(count, sent + 1) && entry.sequence > sink.position() =>
                {
                    sent = count;
                    sink.entry(entry, more);
                }
                Ok(Some(Delivery::Idle { count }))
                    if count.is_none_or(|count| self.is_next(count, sent)) => {}
                _ => return heard,
            }
            heard = true;
        }
    }
}
