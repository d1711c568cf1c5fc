//! Measures how starved the machine is, by timing a known amount of work again and again.
//!
//! On a machine whose processors are busy with other work, the suite's tasks and the stores'
//! servers run late. A deadline that passes then says nothing about the store.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a probe computes on an idle processor. This time must be longer than a time slice of
/// the scheduler (3 to 4 ms): a shorter probe ends before another thread gets the processor,
/// however many wait.
const WORK: Duration = Duration::from_millis(5);
/// The pause between two probes.
const REST: Duration = Duration::from_millis(195);
/// How long a probe is remembered: longer than any case takes.
const REMEMBERED: Duration = Duration::from_hours(1);
/// A machine with this slowdown or more counts as starved. The slowdown of an idle machine is 1.0
/// to 1.5, even if two processors share a core. On two processors the slowdown is 2.6 beside four
/// busy processes, and 7 beside sixteen.
const STARVED: f64 = 3.0;
/// The largest slowdown for which deadlines are extended.
const SLOWEST: f64 = 20.0;

#[derive(Default)]
struct Probes {
    /// When the running probe began.
    began: Option<Instant>,
    /// When each probe ended, and its slowdown.
    done: VecDeque<(Instant, f64)>,
}

static PROBES: Mutex<Probes> = Mutex::new(Probes { began: None, done: VecDeque::new() });

fn probes() -> MutexGuard<'static, Probes> {
    PROBES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread, once.
pub(crate) fn start() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let start = || {
        let thread = std::thread::Builder::new().name("load".to_owned());
        let started = thread.spawn(run).map(drop);
        started.map_err(|error| format!("cannot start a thread that measures load: {error}"))
    };
    STARTED.get_or_init(start).clone()
}

fn run() {
    let steps = calibrated();
    loop {
        let began = Instant::now();
        probes().began = Some(began);
        compute(steps);
        let now = Instant::now();
        let slowdown = slowdown_of(now.duration_since(began));
        {
            let mut probes = probes();
            probes.began = None;
            probes.done.push_back((now, slowdown));
            while probes.done.front().is_some_and(|(at, _)| now.duration_since(*at) > REMEMBERED) {
                probes.done.pop_front();
            }
        }
        std::thread::sleep(REST);
    }
}

/// How many steps take [`WORK`] on an idle processor. The fastest of many short tries gives the
/// number, since nothing interrupted that try.
fn calibrated() -> u32 {
    const TRY: u32 = 20_000;
    let fastest = (0..50).map(|_| {
        let began = Instant::now();
        compute(TRY);
        began.elapsed()
    });
    let fastest = fastest.min().unwrap_or_default().max(Duration::from_nanos(1));
    let tries = WORK.as_secs_f64() / fastest.as_secs_f64();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to fit")]
    let steps = (f64::from(TRY) * tries).clamp(1.0, f64::from(u32::MAX)) as u32;
    steps
}

fn compute(steps: u32) {
    let mut number = 1_u64;
    for step in 0..steps {
        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005) ^ u64::from(step));
    }
}

fn slowdown_of(took: Duration) -> f64 {
    took.as_secs_f64() / WORK.as_secs_f64()
}

/// The largest slowdown since `since`: how many times as long work took as on an idle processor.
pub(crate) fn worst_since(since: Instant) -> f64 {
    let probes = probes();
    let now = probes.began.map_or(1.0, |began| slowdown_of(began.elapsed()));
    let then = probes.done.iter().rev().take_while(|(at, _)| *at >= since);
    then.map(|(_, slowdown)| *slowdown).fold(now.max(1.0), f64::max)
}

/// The largest slowdown since `since`, if the machine was starved then.
pub(crate) fn starved_since(since: Instant) -> Option<f64> {
    Some(worst_since(since)).filter(|slowdown| *slowdown >= STARVED)
}

/// How long to wait for something that began at `since` and takes at most `limit` on an idle
/// machine. If it takes longer, it hangs.
pub(crate) fn patience(limit: Duration, since: Instant) -> Duration {
    Duration::try_from_secs_f64(limit.as_secs_f64() * worst_since(since).min(SLOWEST))
        .unwrap_or(Duration::MAX)
}
