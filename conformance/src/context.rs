//! The context of a case: a fresh store, a seed, a transcript.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use membership::{Error, Store};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use crate::clock::{self, Stopwatch};
use crate::history::Reached;
use crate::load;
use crate::target::{Instance, Need, Replicas, Target, TargetError};
use crate::transcript::{Client, Transcript};
use crate::verdict::{Failure, Verdict};

/// The time that every call may take beyond the store's `op_timeout` (clause TIME-1).
pub(crate) const GRACE: Duration = Duration::from_millis(250);
/// How many times `op_timeout` a rekey or a deletion may take (clause TIME-1).
pub(crate) const SLOW: u32 = 10;

/// The context of one run of one case. Cheap to clone into tasks.
#[derive(Clone)]
pub struct Cx(Arc<Inner>);

struct Inner {
    target: Arc<dyn Target>,
    instance: Box<dyn Instance>,
    /// The case's needs, for every store that it makes.
    needs: &'static [Need],
    seed: u64,
    transcript: Arc<Transcript>,
    clients: AtomicUsize,
    /// The clients that are closed when the case ends.
    opened: Mutex<Vec<Arc<dyn Store>>>,
    /// Counts of rare events in the case, for the report.
    reached: Mutex<Reached>,
}

impl Cx {
    /// Makes a store of `target` for a case with these needs.
    pub(crate) async fn make(
        target: &Arc<dyn Target>,
        needs: &'static [Need],
        seed: u64,
        transcript: Arc<Transcript>,
    ) -> Result<Self, TargetError> {
        let instance = target.create_for(needs).await?;
        let ordinary = target.op_timeout_for(needs);
        transcript.bounds(ordinary + GRACE, ordinary * SLOW + GRACE);
        let (target, clients, opened) = (Arc::clone(target), AtomicUsize::new(0), Mutex::default());
        let reached = Mutex::default();
        let inner = Inner { target, instance, needs, seed, transcript, clients, opened, reached };
        Ok(Self(Arc::new(inner)))
    }

    /// Opens a client; each one after the first needs [`Need::Clients`], or
    /// [`Need::Reopen`] once the others are closed.
    #[track_caller]
    pub fn open(&self) -> impl Future<Output = Verdict<Client>> + Send + use<'_> {
        self.opens("to open", self.0.instance.open())
    }

    /// Opens a client; fails if there are no data yet.
    #[track_caller]
    pub fn open_existing(&self) -> impl Future<Output = Verdict<Client>> + Send + use<'_> {
        self.opens("to open existing data", self.0.instance.open_existing())
    }

    /// Opens a client that can reach this server only.
    #[track_caller]
    pub fn open_at(&self, server: usize) -> impl Future<Output = Verdict<Client>> + Send + use<'_> {
        let open = async move { self.servers()?.open_at(server).await };
        self.opens("to open at one server", open)
    }

    /// Opens a client whose decisions may be out of date by up to `bound`.
    #[track_caller]
    pub fn open_bounded(
        &self,
        bound: Duration,
    ) -> impl Future<Output = Verdict<Client>> + Send + use<'_> {
        self.opens("to open with a bound", self.0.instance.open_bounded(bound))
    }

    /// As [`open_bounded`](Self::open_bounded), for a client that can reach this server only.
    #[track_caller]
    pub fn open_bounded_at(
        &self,
        server: usize,
        bound: Duration,
    ) -> impl Future<Output = Verdict<Client>> + Send + use<'_> {
        let open = async move { self.servers()?.open_bounded_at(server, bound).await };
        self.opens("to open with a bound at one server", open)
    }

    #[track_caller]
    fn opens<'a>(
        &'a self,
        how: &'static str,
        open: impl Future<Output = Result<Arc<dyn Store>, Error>> + Send + 'a,
    ) -> impl Future<Output = Verdict<Client>> + Send + 'a {
        let at = std::panic::Location::caller();
        async move {
            let number = self.0.clients.fetch_add(1, Ordering::Relaxed) + 1;
            match open.await {
                Ok(store) => {
                    self.opened(|all| all.push(Arc::clone(&store)));
                    Ok(self.0.transcript.record(number, store))
                }
                Err(error) => {
                    let expected = format!("client {number} {how}");
                    Err(Failure { at, ..Failure::answer(expected, &error) })
                }
            }
        }
    }

    fn servers(&self) -> Result<&dyn Replicas, Error> {
        self.0.instance.replicas().map_err(Error::unavailable)
    }

    /// Opens a client as [`open`](Self::open) does. The context keeps no handle of it, so the case
    /// can drop it.
    pub async fn open_unheld(&self) -> Verdict<Client> {
        let client = self.open().await?;
        self.opened(Vec::pop);
        Ok(client)
    }

    /// The context of another fresh store of the same target, with the same seed and transcript:
    /// for events that can happen only once in a store's life. The caller closes that store's
    /// clients.
    pub async fn another(&self) -> Verdict<Self> {
        let Inner { target, needs, seed, transcript, .. } = &*self.0;
        Ok(Self::make(target, needs, *seed, Arc::clone(transcript)).await?)
    }

    /// The data under test.
    #[must_use]
    pub fn instance(&self) -> &dyn Instance {
        &*self.0.instance
    }

    /// The kind of store under test.
    #[must_use]
    pub fn target(&self) -> &Arc<dyn Target> {
        &self.0.target
    }

    /// The seed of the case's random numbers.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// A generator that gives the same numbers in every run with this seed. Another `stream` gives
    /// other numbers.
    #[must_use]
    pub fn rng(&self, stream: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.0.seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The calls so far.
    #[must_use]
    pub fn transcript(&self) -> &Transcript {
        &self.0.transcript
    }

    /// The store's `op_timeout` (clause TIME-1).
    #[must_use]
    pub fn op_timeout(&self) -> Duration {
        self.0.target.op_timeout_for(self.0.needs)
    }

    /// The longest time that an ordinary call may take (clause TIME-1).
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.op_timeout() + GRACE
    }

    /// The longest time that a rekey or a deletion may take (clause TIME-1).
    #[must_use]
    pub fn slow_bound(&self) -> Duration {
        self.op_timeout() * SLOW + GRACE
    }

    /// The number of rounds for this target: `often` for a store in memory, fewer for a slower
    /// target, at least three.
    #[must_use]
    pub fn rounds(&self, often: u64) -> u64 {
        (often / u64::from(self.0.target.pace().max(1))).max(often.min(3))
    }

    /// Awaits an ordinary call. Fails if the call takes too long (clause TIME-1).
    pub async fn within_bound<T>(&self, call: impl Future<Output = T>) -> Verdict<T> {
        within(self.bound(), call).await
    }

    /// Awaits a rekey or a deletion. Fails if the call takes too long (clause TIME-1).
    pub async fn within_slow_bound<T>(&self, call: impl Future<Output = T>) -> Verdict<T> {
        within(self.slow_bound(), call).await
    }

    /// Repeats `asked` until the answer is `true`. Fails, naming `what`, after the time of a slow
    /// call. Without this limit, a store whose answer never becomes `true` would look like one that
    /// hangs.
    pub async fn until<Asked: Future<Output = bool>>(
        &self,
        what: &str,
        mut asked: impl FnMut() -> Asked,
    ) -> Verdict {
        let by = Instant::now() + self.slow_bound();
        while !asked().await {
            if Instant::now() > by {
                return Err(Failure::new(what, format!("not within {:?}", self.slow_bound())));
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Adds these counts to the case's, for the report.
    pub fn reached(&self, met: &Reached) {
        let mut reached = self.0.reached.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, times) in met {
            *reached.entry(what).or_default() += times;
        }
    }

    /// The case's counts so far.
    #[must_use]
    pub fn met(&self) -> Reached {
        self.0.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes every open client that the context holds.
    pub async fn close_all(&self) {
        let opened = self.opened(std::mem::take);
        futures::future::join_all(opened.iter().map(|store| store.close())).await;
    }

    fn opened<T>(&self, with: impl FnOnce(&mut Vec<Arc<dyn Store>>) -> T) -> T {
        with(&mut self.0.opened.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One thread notices that a deadline passed, and another tells the caller: each may have to wait
/// for a processor.
const HOPS: u32 = 2;
/// How often the suite checks whether a call is past its bound.
const TICK: Duration = Duration::from_millis(20);

/// If a call is past `bound`, a text that says after how long, and how late the machine was.
///
/// If the machine was late during the call, the call may take as much longer, up to twice the
/// bound. A thread of its own measures the lateness: otherwise a store that blocks its caller's
/// thread would excuse itself.
pub(crate) fn past(bound: Duration, stopwatch: &Stopwatch) -> Option<String> {
    let took = stopwatch.took();
    if took <= bound {
        return None;
    }
    let late = clock::late_since(stopwatch.began());
    let excused = bound.saturating_add((HOPS * late).min(bound));
    (took > excused).then(|| format!("after {took:?}, while the machine was up to {late:?} late"))
}

/// Awaits a call and measures it. A call without an answer is given up after its bound, or later on
/// a starved machine.
async fn within<T>(bound: Duration, call: impl Future<Output = T>) -> Verdict<T> {
    let stopwatch = Stopwatch::start();
    let mut call = pin!(stopwatch.time(call));
    loop {
        let answer = clock::within(TICK, &mut call).await;
        let Some(when) = past(bound, &stopwatch) else {
            if let Some(result) = answer {
                return Ok(result);
            }
            continue;
        };
        let late =
            |got| Failure::new(format!("an answer within {bound:?}"), format!("{got} {when}"));
        match answer {
            Some(_) => return Err(late("one").of_time()),
            None if stopwatch.took() > load::patience(bound, stopwatch.began()) => {
                return Err(Failure { timed_out: false, ..late("none").of_time() });
            }
            None => {}
        }
    }
}

/// An error of the target ends the case. The failure says that the target is at fault, not the
/// store.
impl From<TargetError> for Failure {
    #[track_caller]
    fn from(error: TargetError) -> Self {
        Self::new("the target to do its part", format!("its error: {error}")).of_deadline()
    }
}
