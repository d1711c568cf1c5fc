//! Clients that make random calls concurrently, and the history of their calls.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use membership::{Error, Store};
use tokio::task::JoinSet;

use super::{Caller, History, Mix, Recorder, Scene};
use crate::verdict::{Failure, Verdict};

/// The settings of concurrent clients.
#[derive(Clone, Debug)]
pub struct Play {
    /// Which calls the clients make.
    pub mix: Mix,
    /// The seed of all random choices.
    pub seed: u64,
    /// The number of clients; they share the given stores.
    pub clients: usize,
    /// How many calls the clients make in all, unless they are stopped earlier.
    pub calls: usize,
    /// The number of calls after which the clients switch to fresh rooms, endpoints and users.
    pub turn: u64,
    /// How many of a hundred calls are dropped after a few polls, unless they end before that.
    pub dropped: u32,
    /// The longest pause of a client between two calls.
    pub rest: Duration,
}

/// Running clients.
pub struct Playing {
    recorder: Recorder,
    clients: JoinSet<()>,
    stop: Arc<AtomicUsize>,
    pulse: Arc<Pulse>,
}

/// Counts of failed, slow and answered calls, kept while the clients run.
#[derive(Debug, Default)]
pub struct Pulse {
    failed: AtomicU64,
    slow: AtomicU64,
    answered: AtomicU64,
    /// The total duration of the calls that were not slow, and their number. A std lock: held
    /// briefly.
    usual: Mutex<(Duration, u32)>,
}

impl Pulse {
    /// How many calls failed (`Timeout`, `Unavailable` or `Corrupt`), or took much longer than
    /// usual.
    pub fn hits(&self) -> u64 {
        self.failed.load(Ordering::SeqCst) + self.slow.load(Ordering::SeqCst)
    }

    /// How many calls did not fail, slow ones included.
    pub fn answers(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    fn ended(&self, took: Duration, error: Option<&Error>) {
        let failed = |error: &Error| error.outcome_unknown() || matches!(error, Error::Corrupt(_));
        if error.is_some_and(failed) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return;
        }
        self.answered.fetch_add(1, Ordering::SeqCst);
        let mut usual = self.usual.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, calls) = *usual;
        if calls >= 20 && took > (all / calls * 5).max(Duration::from_millis(20)) {
            self.slow.fetch_add(1, Ordering::SeqCst);
        } else {
            *usual = (all + took, calls + 1);
        }
    }
}

impl Play {
    /// Starts the clients: the first one on the first of `stores`, and so on in turn.
    #[must_use]
    pub fn begin(&self, stores: &[Arc<dyn Store>]) -> Playing {
        let (recorder, pulse) = (Recorder::new(), Arc::<Pulse>::default());
        let stop = Arc::new(AtomicUsize::new(self.calls));
        let scene = Arc::new(Scene::new(self.turn));
        let mut clients = JoinSet::new();
        for (number, store) in (1..=self.clients).zip(stores.iter().cycle()) {
            let stream = u64::try_from(number).unwrap_or_default();
            let client = Client {
                number,
                caller: Caller::new(self.seed, stream, self.mix, &scene),
                store: Arc::clone(store),
                scene: Arc::clone(&scene),
                recorder: recorder.clone(),
                left: Arc::clone(&stop),
                pulse: Arc::clone(&pulse),
                dropped: self.dropped,
                rest: self.rest,
            };
            clients.spawn(client.work());
        }
        Playing { recorder, clients, stop, pulse }
    }
}

impl Playing {
    /// The counts of calls so far.
    #[must_use]
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Tells the clients to make no more calls.
    pub fn stop(&self) {
        self.stop.store(0, Ordering::SeqCst);
    }

    /// Waits until every client has made its calls, and returns their history.
    pub async fn end(mut self) -> Verdict<History> {
        while let Some(ended) = self.clients.join_next().await {
            ended.map_err(|error| Failure::new("no panic", error.to_string()))?;
        }
        Ok(self.recorder.history())
    }
}

struct Client {
    number: usize,
    caller: Caller,
    store: Arc<dyn Store>,
    scene: Arc<Scene>,
    recorder: Recorder,
    left: Arc<AtomicUsize>,
    pulse: Arc<Pulse>,
    dropped: u32,
    rest: Duration,
}

impl Client {
    async fn work(mut self) {
        let one_less = |left: usize| left.checked_sub(1);
        while self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            let op = self.caller.next_call();
            let call = self.recorder.begin(self.number, op.clone());
            // Lets other clients run, so that calls overlap even if each completes at once.
            self.sometimes_yield().await;
            let began = Instant::now();
            let polls = (self.caller.number(100) < self.dropped).then(|| self.caller.number(6));
            let Some(answer) = at_most(polls, op.apply(&*self.store)).await else { continue };
            self.pulse.ended(began.elapsed(), answer.error());
            self.sometimes_yield().await;
            self.recorder.end(call, answer.clone());
            self.scene.learn(&op, &answer);
            if !self.rest.is_zero() {
                tokio::time::sleep(self.rest * self.caller.number(100) / 100).await;
            }
        }
    }

    async fn sometimes_yield(&mut self) {
        if self.caller.number(3) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Awaits `future`; drops it and returns `None` if it has not completed after `polls` polls.
async fn at_most<T>(polls: Option<u32>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(|context| {
        if polls.is_some_and(|polls| polled >= polls) {
            return Poll::Ready(None);
        }
        polled += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
