//! What a case has to work with: a fresh store, a seed, a transcript.

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

/// What every call may take beyond the store's `op_timeout` (clause TIME-1).
pub const GRACE: Duration = Duration::from_millis(250);
/// How many times `op_timeout` a rekey or a deletion may take (clause TIME-1).
pub const SLOW: u32 = 10;

/// The context of one run of one case. Cheap to clone into tasks.
#[derive(Clone)]
pub struct Cx(Arc<Inner>);

struct Inner {
    target: Arc<dyn Target>,
    instance: Box<dyn Instance>,
    /// What the case needs of every store it makes.
    needs: &'static [Need],
    seed: u64,
    transcript: Arc<Transcript>,
    clients: AtomicUsize,
    /// Closed when the case is over, whatever it did with them.
    opened: Mutex<Vec<Arc<dyn Store>>>,
    /// What the case met, for the report.
    reached: Mutex<Reached>,
}

impl Cx {
    /// Has `target` make a store for a case with these needs.
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

    /// Opens a client of data that must exist already.
    #[track_caller]
    pub fn open_existing(&self) -> impl Future<Output = Verdict<Client>> + Send + use<'_> {
        self.opens("to open what exists", self.0.instance.open_existing())
    }

    /// Opens a client that reaches this server and no other.
    #[track_caller]
    pub fn open_at(&self, server: usize) -> impl Future<Output = Verdict<Client>> + Send + use<'_> {
        let open = async move { self.servers()?.open_at(server).await };
        self.opens("to open at one server", open)
    }

    /// Opens a client whose decisions may be this much out of date.
    #[track_caller]
    pub fn open_bounded(
        &self,
        bound: Duration,
    ) -> impl Future<Output = Verdict<Client>> + Send + use<'_> {
        self.opens("to open with a bound", self.0.instance.open_bounded(bound))
    }

    /// The same, of a client that reaches this server and no other.
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

    /// Opens a client as [`open`](Self::open) does, but for the case to drop: the context keeps
    /// no handle of it.
    pub async fn open_unheld(&self) -> Verdict<Client> {
        let client = self.open().await?;
        self.opened(Vec::pop);
        Ok(client)
    }

    /// The context of a fresh store of the same target, with the same seed and transcript: for
    /// what can happen only once in a store's life. Whoever asks for it closes it.
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

    /// What all randomness of the case comes from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// A generator that gives the same numbers in every run with this seed; `stream` tells several
    /// of them apart.
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

    /// The most an ordinary call may take (clause TIME-1).
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.op_timeout() + GRACE
    }

    /// The most a rekey or a deletion may take (clause TIME-1).
    #[must_use]
    pub fn slow_bound(&self) -> Duration {
        self.op_timeout() * SLOW + GRACE
    }

    /// How often to do what is done `often` times where a call costs nothing: less the slower the
    /// target is, and three times at least.
    #[must_use]
    pub fn rounds(&self, often: u64) -> u64 {
        (often / u64::from(self.0.target.pace().max(1))).max(often.min(3))
    }

    /// Awaits an ordinary call, and fails if it takes longer than it may (clause TIME-1).
    pub async fn within_bound<T>(&self, call: impl Future<Output = T>) -> Verdict<T> {
        within(self.bound(), call).await
    }

    /// Awaits a rekey or a deletion, and fails if it takes longer than it may (clause TIME-1).
    pub async fn within_slow_bound<T>(&self, call: impl Future<Output = T>) -> Verdict<T> {
        within(self.slow_bound(), call).await
    }

    /// Asks again and again until it is so; fails, with `what` that is, when it does not come to be so
    /// within the time of a slow call. Otherwise a store that keeps it from coming would look like one
    /// that hangs.
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

    /// The case met these things, so often, beside what it met before: for the report.
    pub fn reached(&self, met: &Reached) {
        let mut reached = self.0.reached.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, times) in met {
            *reached.entry(what).or_default() += times;
        }
    }

    /// What the case met so far.
    #[must_use]
    pub fn met(&self) -> Reached {
        self.0.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes every client that was opened and is held here.
    pub async fn close_all(&self) {
        let opened = self.opened(std::mem::take);
        futures::future::join_all(opened.iter().map(|store| store.close())).await;
    }

    fn opened<T>(&self, with: impl FnOnce(&mut Vec<Arc<dyn Store>>) -> T) -> T {
        with(&mut self.0.opened.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A deadline is met by one thread and passed on by another: each may have to wait for its turn.
const HOPS: u32 = 2;
/// How often it is looked whether a call is past its bound.
const TICK: Duration = Duration::from_millis(20);

/// Whether a call that took so long is past `bound`, and by what it was excused.
///
/// The store is not to blame for a machine that is busy with other things: as late as that was meanwhile,
/// it may be, too, up to twice its bound. Another thread says how late, or a store that blocks the thread
/// it is called on would excuse itself.
pub(crate) fn past(bound: Duration, stopwatch: &Stopwatch) -> Option<String> {
    let took = stopwatch.took();
    if took <= bound {
        return None;
    }
    let late = clock::late_since(stopwatch.began());
    let excused = bound.saturating_add((HOPS * late).min(bound));
    (took > excused).then(|| format!("after {took:?}, while the machine was up to {late:?} late"))
}

/// A call that hangs is ended here, once it is past its bound.
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

/// A target's own trouble ends the case, and says whose it was.
impl From<TargetError> for Failure {
    #[track_caller]
    fn from(error: TargetError) -> Self {
        Self::new("the target to do its part", format!("its error: {error}")).of_deadline()
    }
}
