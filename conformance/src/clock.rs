//! A clock that the stores under test cannot stop: a thread of its own, which only sleeps and wakes.
//!
//! A store that blocks the threads it is called on stops tokio's timers too. A deadline that such a timer
//! had to keep would never pass, and a lateness measured beside the call would excuse the call that
//! caused it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// How often the thread wakes: what a deadline kept here may be late.
const TICK: Duration = Duration::from_millis(10);
/// Less than this is what any machine is late.
const WORTH_NOTING: Duration = Duration::from_millis(2);
/// How long it is remembered how late the machine was: longer than any call may take.
const REMEMBERED: Duration = Duration::from_mins(15);

#[derive(Default)]
struct Clock {
    /// When the thread means to wake next.
    due: Option<Instant>,
    /// When it woke late, and by how much.
    late: VecDeque<(Instant, Duration)>,
    /// Who waits for a moment, by number.
    waiting: BTreeMap<u64, (Instant, Waker)>,
    next: u64,
}

static CLOCK: Mutex<Clock> =
    Mutex::new(Clock { due: None, late: VecDeque::new(), waiting: BTreeMap::new(), next: 0 });

fn clock() -> MutexGuard<'static, Clock> {
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread, once. An error says that there is none to be had: then nothing could be timed.
pub(crate) fn start() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let start = || {
        let thread = std::thread::Builder::new().name("clock".to_owned());
        let started = thread.spawn(run).map(drop);
        started.map_err(|error| format!("cannot start a thread for the clock: {error}"))
    };
    STARTED.get_or_init(start).clone()
}

fn run() {
    loop {
        clock().due = Some(Instant::now() + TICK);
        std::thread::sleep(TICK);
        let now = Instant::now();
        let woken: Vec<_> = {
            let mut clock = clock();
            let late = clock.due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
            if late > WORTH_NOTING {
                clock.late.push_back((now, late));
            }
            let over = |(when, _): &(Instant, Duration)| now.duration_since(*when) > REMEMBERED;
            while clock.late.front().is_some_and(over) {
                clock.late.pop_front();
            }
            let over = |_: &u64, (when, _): &mut (Instant, Waker)| *when <= now;
            clock.waiting.extract_if(.., over).map(|(_, (_, waker))| waker).collect()
        };
        // Outside the lock: whoever is woken may ask for the time at once.
        woken.into_iter().for_each(Waker::wake);
    }
}

/// The most that this machine has been late in waking a thread since `began`.
pub(crate) fn late_since(began: Instant) -> Duration {
    let clock = clock();
    // It may be late at this very moment.
    let now = clock.due.map_or(Duration::ZERO, |due| due.elapsed());
    let then = clock.late.iter().rev().take_while(|(when, _)| *when >= began);
    then.map(|(_, late)| *late).fold(now, Duration::max)
}

/// Waits for a moment.
pub(crate) async fn until(when: Instant) {
    struct Number(Option<u64>);
    impl Drop for Number {
        fn drop(&mut self) {
            // Dropped outside the lock: the last waker of a task takes the task with it.
            let _waker = self.0.and_then(|number| clock().waiting.remove(&number));
        }
    }
    let mut number = Number(None);
    std::future::poll_fn(|cx| {
        if Instant::now() >= when {
            return Poll::Ready(());
        }
        let _former = {
            let mut clock = clock();
            let number = *number.0.get_or_insert(clock.next);
            clock.next = clock.next.max(number + 1);
            clock.waiting.insert(number, (when, cx.waker().clone()))
        };
        Poll::Pending
    })
    .await;
}

/// Awaits `call` for as long as `limit`; `None` once that is over.
pub(crate) async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> Option<T> {
    let deadline = Instant::now().checked_add(limit);
    let over = async {
        match deadline {
            Some(deadline) => until(deadline).await,
            // Further away than a clock can say.
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = call => Some(result),
        () = over => None,
    }
}

/// How long a call has taken, without the time in which it was ready to go on and its caller was not:
/// a task that waits for its turn is not the store's fault.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    began: Instant,
    turns: Arc<Turns>,
}

#[derive(Debug, Default)]
struct Turns(Mutex<Turn>);

#[derive(Debug, Default)]
struct Turn {
    caller: Option<Waker>,
    /// Since when the caller is to go on, and has not.
    woken: Option<Instant>,
    waited: Duration,
}

impl Turns {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        let caller = {
            let mut turn = self.turn();
            turn.woken.get_or_insert_with(Instant::now);
            turn.caller.clone()
        };
        if let Some(caller) = caller {
            caller.wake();
        }
    }
}

impl Stopwatch {
    /// One that starts now.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), turns: Arc::default() }
    }

    /// When it was started.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Awaits the call that it measures.
    pub(crate) async fn time<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        let waker = Waker::from(Arc::clone(&self.turns));
        std::future::poll_fn(|cx| {
            {
                let mut turn = self.turns.turn();
                let waited = turn.woken.take().map_or(Duration::ZERO, |woken| woken.elapsed());
                turn.waited += waited;
                turn.caller = Some(cx.waker().clone());
            }
            call.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }

    /// How long the call has taken by now.
    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.turns.turn().waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moment_comes_while_the_runtimes_only_thread_is_blocked() {
        start().unwrap();
        let began = Instant::now();
        let (told, hears) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let own = tokio::runtime::Builder::new_current_thread().build().unwrap();
            own.block_on(until(began + Duration::from_millis(50)));
            told.send(Instant::now()).unwrap();
        });
        // This blocks the runtime, timers and all.
        let came = hears.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(came.duration_since(began) >= Duration::from_millis(50));
        waiting.join().unwrap();
        assert_eq!(within(Duration::from_millis(20), std::future::pending::<()>()).await, None);
        assert_eq!(within(Duration::MAX, std::future::ready(7)).await, Some(7));
    }

    #[tokio::test]
    async fn a_call_that_blocks_its_thread_took_as_long_and_one_that_was_not_asked_did_not() {
        let long = Duration::from_millis(100);
        let blocks = Stopwatch::start();
        blocks.time(async { std::thread::sleep(long) }).await;
        assert!(blocks.took() >= long);

        let (told, hears) = tokio::sync::oneshot::channel();
        let waits = Stopwatch::start();
        let mut call = pin!(waits.time(hears));
        assert!(futures::poll!(&mut call).is_pending());
        told.send(()).unwrap();
        std::thread::sleep(long);
        assert!(futures::poll!(&mut call).is_ready());
        assert!(waits.took() < long, "{:?}", waits.took());
    }
}
