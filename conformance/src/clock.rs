//! A clock that the stores under test cannot stop: a thread that does nothing but sleep and wake.
//!
//! A store that blocks the threads on which it is called stops tokio's timers too. A deadline kept
//! by such a timer would never pass. A delay measured on those threads would excuse the very call
//! that caused it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// How often the thread wakes, and so how late a deadline may be noticed.
const TICK: Duration = Duration::from_millis(10);
/// Shorter delays are not recorded: they occur on every machine.
const WORTH_NOTING: Duration = Duration::from_millis(2);
/// How long a delay is remembered: longer than any call may take.
const REMEMBERED: Duration = Duration::from_mins(15);

#[derive(Default)]
struct Clock {
    /// When the thread is due to wake next.
    due: Option<Instant>,
    /// When the thread woke late, and by how much.
    late: VecDeque<(Instant, Duration)>,
    /// The tasks that wait, by number, each with the moment for which it waits.
    waiting: BTreeMap<u64, (Instant, Waker)>,
    next: u64,
}

static CLOCK: Mutex<Clock> =
    Mutex::new(Clock { due: None, late: VecDeque::new(), waiting: BTreeMap::new(), next: 0 });

fn clock() -> MutexGuard<'static, Clock> {
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread, once. Fails if the system has no thread left: then nothing could be timed.
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
        // Outside the lock: a woken task may use the clock at once.
        woken.into_iter().for_each(Waker::wake);
    }
}

/// The longest delay of this machine in waking a thread since `began`.
pub(crate) fn late_since(began: Instant) -> Duration {
    let clock = clock();
    // The thread may be late at this very moment.
    let now = clock.due.map_or(Duration::ZERO, |due| due.elapsed());
    let then = clock.late.iter().rev().take_while(|(when, _)| *when >= began);
    then.map(|(_, late)| *late).fold(now, Duration::max)
}

/// Waits until `when`.
pub(crate) async fn until(when: Instant) {
    struct Number(Option<u64>);
    impl Drop for Number {
        fn drop(&mut self) {
            // Dropped outside the lock: dropping the last waker of a task drops the task, which may
            // need the lock.
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

/// Awaits `call` for at most `limit`; `None` if it takes longer.
pub(crate) async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> Option<T> {
    let deadline = Instant::now().checked_add(limit);
    let over = async {
        match deadline {
            Some(deadline) => until(deadline).await,
            // The deadline is later than any `Instant`.
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = call => Some(result),
        () = over => None,
    }
}

/// Measures how long a call takes, without the time between each wake-up and the next poll: a task
/// that waits for a thread of the runtime is not the store's fault.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    began: Instant,
    delay: Arc<DelayWaker>,
}

/// The call's waker: it wakes the caller, and notes when.
#[derive(Debug, Default)]
struct DelayWaker(Mutex<Delay>);

#[derive(Debug, Default)]
struct Delay {
    caller: Option<Waker>,
    /// When the caller was woken, if it has not polled the call since.
    woken: Option<Instant>,
    waited: Duration,
}

impl DelayWaker {
    fn lock(&self) -> MutexGuard<'_, Delay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for DelayWaker {
    fn wake(self: Arc<Self>) {
        let caller = {
            let mut delay = self.lock();
            delay.woken.get_or_insert_with(Instant::now);
            delay.caller.clone()
        };
        if let Some(caller) = caller {
            caller.wake();
        }
    }
}

impl Stopwatch {
    /// Starts a stopwatch.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), delay: Arc::default() }
    }

    /// When the stopwatch was started.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Awaits the call to be measured.
    pub(crate) async fn time<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        let waker = Waker::from(Arc::clone(&self.delay));
        std::future::poll_fn(|cx| {
            {
                let mut delay = self.delay.lock();
                let waited = delay.woken.take().map_or(Duration::ZERO, |woken| woken.elapsed());
                delay.waited += waited;
                delay.caller = Some(cx.waker().clone());
            }
            call.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }

    /// How long the call has taken so far.
    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.delay.lock().waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_passes_while_the_runtimes_only_thread_is_blocked() {
        start().unwrap();
        let began = Instant::now();
        let (told, hears) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let own = tokio::runtime::Builder::new_current_thread().build().unwrap();
            own.block_on(until(began + Duration::from_millis(50)));
            told.send(Instant::now()).unwrap();
        });
        // This blocks the runtime and its timers.
        let came = hears.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(came.duration_since(began) >= Duration::from_millis(50));
        waiting.join().unwrap();
        assert_eq!(within(Duration::from_millis(20), std::future::pending::<()>()).await, None);
        assert_eq!(within(Duration::MAX, std::future::ready(7)).await, Some(7));
    }

    #[tokio::test]
    async fn blocking_the_thread_counts_and_waiting_to_be_polled_does_not() {
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
