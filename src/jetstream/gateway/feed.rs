//! A feed: keeps a copy of a bucket up to date.
//!
//! A consumer counts its deliveries. After a gap in the counts the feed makes another consumer. A consumer begins at
//! the copy's newest message, its *anchor*, and the copy goes on only if the bucket still holds that very message. So
//! the copy misses nothing, and never goes on after a history that the servers lost. Only a barrier shows whether the
//! copy is up to date.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::Error;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::until_answered;
use crate::jetstream::gateway::bucket_settings::BucketState;
use crate::jetstream::gateway::exchange::{Anchor, Deliveries, Delivery, FeedSink, Reply, Servers};
use crate::jetstream::stored::bucket::Bucket;
use crate::mutation::Mutation;
use crate::trace::event;

/// How long a consumer may send neither a message nor a heartbeat.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long one search for a consumer may take.
const SETUP: Duration = Duration::from_secs(3);
/// How often the feed asks which server leads the bucket.
const WATCH: Duration = Duration::from_secs(2);
/// A copy that is more than this many sequences behind the bucket is loaded first.
///
/// nats-server (2.15.1) spends some 100 µs on each message of a consumer with several filters that begins far behind:
/// for each message, it compares the filters with all subjects of a block. A consumer with one filter reads on from the
/// last message.
const FAR: u64 = 100;
/// How many consumers one search makes, at most, until one is on the leader.
const PLACES: usize = 12;
/// The shortest and the longest wait between two searches for a consumer.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(640));

/// Why the feed has no consumer; empty while it has one.
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
    /// The filters for the keys that the copy has: all but this client's barriers, and those barriers.
    pub(super) filters: [String; 2],
    /// How long one exchange may take before it is tried again.
    pub(super) attempt: Duration,
    /// Notified to make another consumer.
    pub(super) kick: Arc<Notify>,
    pub(super) trouble: Trouble,
    pub(super) mutation: Mutation<JetStreamDefect>,
}

/// Consumers that are being made.
type Candidates<'a> = FuturesUnordered<BoxFuture<'a, Reply<Box<dyn Deliveries>>>>;

/// A consumer, and the bucket's state when the consumer was made.
struct Source<'a> {
    state: BucketState,
    deliveries: Box<dyn Deliveries>,
    /// Whether this consumer only loads the copy. Such a consumer delivers no barriers.
    loads: bool,
    /// Requested consumers that the servers have not made yet. Each is removed once it is made.
    late: Candidates<'a>,
}

/// Why a consumer ended.
enum ConsumerEnd<'a> {
    /// A delivery was missing or out of order, or the connection failed. `heard` says whether the consumer had
    /// delivered anything in order before.
    Failed { heard: bool },
    /// Another consumer takes over.
    Replaced(Box<Source<'a>>),
    /// The consumer has delivered everything that the server reported as pending. If the server reported too little, the
    /// next consumer delivers the rest.
    Loaded,
}

impl Feed {
    /// Keeps the copy up to date, whatever happens to the connection or in the copy's code.
    pub(super) async fn keep(self, sink: Arc<dyn FeedSink>) {
        let (mut created, mut source, mut loaded) = (None, None, false);
        let mut pause = PAUSE.0;
        loop {
            let round = self.round(&sink, &mut created, source.take(), loaded);
            let round = std::panic::AssertUnwindSafe(round).catch_unwind().await;
            loaded = matches!(round, Ok(Ok(ConsumerEnd::Loaded)));
            let (heard, trouble) = match round {
                Ok(Ok(ConsumerEnd::Replaced(next))) => {
                    source = Some(*next);
                    continue;
                }
                Ok(Ok(ConsumerEnd::Loaded)) => continue,
                Ok(Ok(ConsumerEnd::Failed { heard })) => (heard, None),
                Ok(Err(error)) => (false, Some(error)),
                Err(_) => {
                    event!(users: warn, "the code of the copy panicked: the copy begins anew");
                    // A panic may have left a half-written entry in the copy.
                    created = None;
                    (false, None)
                }
            };
            // The feed backs off while no consumer delivers. Otherwise a feed that cannot get a consumer would keep the
            // servers busy with requests for one.
            pause = if heard { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            if let Some(error) = trouble {
                event!(users: debug, "the copy has no consumer", error);
                self.trouble.set((error != Error::Timeout).then_some(error));
            }
            sleep(pause).await;
        }
    }

    /// Uses one consumer until its first irregularity, or until another consumer is there to take over.
    async fn round<'a>(
        &'a self,
        sink: &'a Arc<dyn FeedSink>,
        created: &mut Option<String>,
        source: Option<Source<'a>>,
        loaded: bool,
    ) -> Result<ConsumerEnd<'a>, Error> {
        // This consumer also fulfils earlier requests for another one.
        let _ = self.kick.notified().now_or_never();
        let mut source = match source {
            Some(source) => source,
            None => self.source(sink, created.as_deref(), loaded).await?,
        };
        if created.as_ref() != Some(&source.state.created) {
            match created {
                None => event!(users: debug, "the copy begins"),
                Some(_) => event!(users: info, "the copy begins anew: another bucket has the name"),
            }
            sink.reset();
            *created = Some(source.state.created.clone());
        }
        self.trouble.set(None);
        // The copy's anchor may have advanced while the consumer was made.
        let anchor = sink.anchor();
        if let Some(Anchor { sequence, .. }) = anchor {
            event!(users: debug, "another consumer goes on", from = sequence);
            sink.resume();
        }
        let round = self.listen(sink, &mut source, anchor).await;
        source.deliveries.end().await;
        Ok(round)
    }

    async fn state(&self) -> Result<BucketState, Error> {
        let deadline = Instant::now() + SETUP;
        let state = until_answered(self.attempt, deadline, |deadline| {
            self.servers.bucket(self.bucket, deadline)
        });
        let missing = || Error::unavailable(format!("there is no bucket {}", self.bucket));
        state.await?.ok_or_else(missing)
    }

    /// Makes a consumer on the server that leads the bucket, for a copy of the bucket that was made at `created`. After
    /// servers lost their latest messages and another server came back with them, a follower may differ from its leader
    /// for good (nats-server 2.15.1). A consumer on such a follower would deliver messages that the leader does not
    /// have.
    ///
    /// The servers pick a consumer's replica at random, so the feed requests as many consumers as there are replicas at
    /// once. If none is made in time, it requests another one and still waits for the earlier ones.
    ///
    /// Unless the copy was just `loaded`, a copy that is far behind gets a consumer that loads it.
    async fn source<'a>(
        &'a self,
        sink: &Arc<dyn FeedSink>,
        created: Option<&str>,
        loaded: bool,
    ) -> Result<Source<'a>, Error> {
        let state = self.state().await?;
        let anchor = sink.anchor().filter(|_| created == Some(&state.created));
        let from = anchor.map_or(1, |anchor| anchor.sequence);
        let deadline = Instant::now() + SETUP;
        let loads = !loaded && state.last.saturating_sub(from) >= FAR;
        let [keys, _] = &self.filters;
        let filters = if loads { std::slice::from_ref(keys) } else { &self.filters };
        let candidate = || self.servers.consume(self.bucket, filters, from, deadline);
        let at_once = usize::from(state.status.replicas.max(1));
        let mut candidates: Candidates<'_> = (0..at_once).map(|_| candidate()).collect();
        let mut left = PLACES.saturating_sub(at_once);
        let mut trouble = Error::Timeout;
        loop {
            let late = Instant::now() + self.attempt;
            match timeout_at(late.min(deadline), candidates.next()).await {
                Ok(Some(Reply::Done(deliveries))) if self.is_led_at(&state, deliveries.place()) => {
                    return Ok(Source { state, deliveries, loads, late: candidates });
                }
                Ok(Some(Reply::Done(mut deliveries))) => {
                    deliveries.end().await;
                    trouble =
                        Error::unavailable(format!("no consumer where {} is led", self.bucket));
                }
                Ok(Some(Reply::Again(error))) => {
                    trouble = error;
                    sleep_until(late.min(deadline)).await;
                }
                Ok(Some(Reply::Not(error))) => return Err(error),
                // No request is in flight, or none was answered in time.
                Ok(None) | Err(_) => {}
            }
            if Instant::now() >= deadline || (left == 0 && candidates.is_empty()) {
                return Err(trouble);
            }
            if left > 0 {
                left -= 1;
                candidates.push(candidate());
            }
        }
    }

    fn is_led_at(&self, state: &BucketState, place: Option<&str>) -> bool {
        leads(state, place) || self.mutation.is(JetStreamDefect::ListensAnywhere)
    }

    /// Whether `count` is the consumer's next count. Any other count means a gap.
    fn is_next(&self, count: u64, next: u64) -> bool {
        count == next || self.mutation.is(JetStreamDefect::IgnoresGaps)
    }

    fn minds_history(&self) -> bool {
        !self.mutation.is(JetStreamDefect::GoesOnAnywhere)
    }

    /// Applies deliveries as long as they come in order. Once another consumer is wanted, goes on until that consumer
    /// is made.
    async fn listen<'a>(
        &'a self,
        sink: &'a Arc<dyn FeedSink>,
        source: &mut Source<'a>,
        mut anchor: Option<Anchor>,
    ) -> ConsumerEnd<'a> {
        let Source { state, deliveries, loads, late } = source;
        let (mut sent, mut heard) = (0, false);
        let mut moved = pin!(self.moved(state, deliveries.place().map(str::to_owned)));
        let mut search: Option<BoxFuture<'_, Result<Source<'a>, Error>>> = None;
        let another = || Some(self.source(sink, Some(&state.created), false).boxed());
        let mut has_moved = false;
        loop {
            let mut next = pin!(timeout(PATIENCE, deliveries.next()));
            // A delivery in flight must not be dropped.
            let next = loop {
                tokio::select! {
                    biased;
                    Some(next) = async { Some(search.as_mut()?.await) } => {
                        return match next {
                            Ok(next) => ConsumerEnd::Replaced(Box::new(next)),
                            Err(_) => ConsumerEnd::Failed { heard },
                        };
                    }
                    () = &mut moved, if !has_moved => (search, has_moved) = (another(), true),
                    () = self.kick.notified(), if search.is_none() => search = another(),
                    next = &mut next => break next,
                    Some(late) = late.next() => {
                        if let Reply::Done(mut late) = late {
                            late.end().await;
                        }
                    }
                }
            };
            match next {
                Ok(Some(Delivery::Entry { count, entry, stored, pending }))
                    if self.is_next(count, sent + 1) =>
                {
                    sent = count;
                    if !has_moved {
                        // This consumer delivers, so no other one is needed.
                        search = None;
                    }
                    if anchor.is_some_and(|anchor| entry.sequence < anchor.sequence) {
                        continue;
                    }
                    let differs = |anchor| anchor != Anchor::of(&entry, stored);
                    if anchor.take().is_some_and(differs) && self.minds_history() {
                        // The message at the anchor's sequence is another one, so the bucket has another history than
                        // the copy.
                        event!(users: info, "the copy begins anew: the bucket has another history");
                        sink.reset();
                        return ConsumerEnd::Failed { heard };
                    }
                    sink.entry(entry, stored);
                    if *loads && pending == 0 {
                        return ConsumerEnd::Loaded;
                    }
                }
                Ok(Some(Delivery::Idle { count }))
                    if count.is_none_or(|count| self.is_next(count, sent)) =>
                {
                    if anchor.is_some() && count.is_some() && self.minds_history() {
                        // The bucket's last message is older than the copy's anchor.
                        event!(users: info, "the copy begins anew: the bucket lost its end");
                        sink.reset();
                        return ConsumerEnd::Failed { heard };
                    }
                    if *loads && count.is_some() {
                        return ConsumerEnd::Loaded;
                    }
                }
                // This consumer is silent and may still deliver, so it is kept while another one is made.
                Err(_) => {
                    event!(users: debug, "the consumer is silent: the feed looks for another one");
                    search = search.or_else(another);
                    continue;
                }
                Ok(Some(_)) => {
                    event!(users: debug, "the consumer ends: a delivery is missing");
                    return ConsumerEnd::Failed { heard };
                }
                Ok(None) => {
                    event!(users: debug, "the consumer ends: the connection was lost");
                    return ConsumerEnd::Failed { heard };
                }
            }
            heard = true;
        }
    }

    /// Waits until another server leads the bucket, or another bucket has its name.
    async fn moved(&self, then: &BucketState, place: Option<String>) {
        loop {
            sleep(WATCH).await;
            let Ok(now) = self.state().await else { continue };
            let led = now.leader.is_some();
            if now.created != then.created || (led && !leads(&now, place.as_deref())) {
                event!(users: debug, "another server leads the bucket, or it was made anew");
                return;
            }
        }
    }
}

/// Whether the server `place`, which holds a consumer, leads the bucket. With one replica, servers do not report which
/// of them holds a consumer.
fn leads(state: &BucketState, place: Option<&str>) -> bool {
    state.status.replicas <= 1 || (state.leader.is_some() && state.leader.as_deref() == place)
}
