//! How starved the machine is: a thread computes for a known time, again and again, and measures how much
//! longer that takes.
//!
//! On a machine whose processors are taken by others, the suite's tasks and the stores' servers run late,
//! and a deadline that passes then says nothing of the store.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What a probe computes, on a processor of its own. Longer than a scheduler's time slice (3 to 4 ms): a
/// shorter one is done before it is the others' turn, however many wait.
const WORK: Duration = Duration::from_millis(5);
/// The wait between two probes.
const REST: Duration = Duration::from_millis(195);
/// How long a probe is remembered: longer than any case takes.
const REMEMBERED: Duration = Duration::from_hours(1);
/// A machine on which work takes this many times as long is starved. An idle one has 1.0 to 1.5, also where
/// two processors share a core; four busy processes on two processors have 2.6, sixteen 7.
const STARVED: f64 = 3.0;
/// How many times as long as usual a starved machine is waited for, at most.
const SLOWEST: f64 = 20.0;

#[derive(Default)]
struct Probes {
    /// When the probe under way began.
    began: Option<Instant>,
    /// When each probe ended, and how many times as long it took.
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
        let stretch = times(now.duration_since(began));
        {
            let mut probes = probes();
            probes.began = None;
            probes.done.push_back((now, stretch));
            while probes.done.front().is_some_and(|(at, _)| now.duration_since(*at) > REMEMBERED) {
                probes.done.pop_front();
            }
        }
        std::thread::sleep(REST);
    }
}

/// How many steps take [`WORK`] on a processor of their own: by the fastest of many short tries, which
/// nothing interrupted.
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

fn times(took: Duration) -> f64 {
    took.as_secs_f64() / WORK.as_secs_f64()
}

/// How many times as long as on a processor of its own something took to compute, at worst, since `since`.
pub(crate) fn worst_since(since: Instant) -> f64 {
    let probes = probes();
    let now = probes.began.map_or(1.0, |began| times(began.elapsed()));
    let then = probes.done.iter().rev().take_while(|(at, _)| *at >= since);
    then.map(|(_, stretch)| *stretch).fold(now.max(1.0), f64::max)
}

/// The same, if that is so much that deadlines say nothing.
pub(crate) fn starved_since(since: Instant) -> Option<f64> {
    Some(worst_since(since)).filter(|stretch| *stretch >= STARVED)
}

/// How long something is waited for that began at `since` and takes as long as `limit` on a machine that is not
/// starved. What is not there even then hangs.
pub(crate) fn patience(limit: Duration, since: Instant) -> Duration {
    Duration::try_from_secs_f64(limit.as_secs_f64() * worst_since(since).min(SLOWEST))
        .unwrap_or(Duration::MAX)
}
