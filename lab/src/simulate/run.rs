//! Runs simulations on several threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::tally::Tally;
use super::world::play;

/// Called after each history with the counts so far.
pub type Progress<'a> = &'a (dyn Fn(&Tally) + Sync);

/// The result of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The counts of what the histories reached.
    pub tally: Tally,
    /// The seed of a wrong history, and what is wrong with it.
    pub failure: Option<(u64, String)>,
}

/// Plays the histories of `seed` and the following seeds, on `jobs` threads.
///
/// Ends after `histories` histories, when `limit` has passed, or when a history is wrong.
pub fn run(
    seed: u64,
    histories: u64,
    limit: Option<Duration>,
    jobs: usize,
    progress: Progress<'_>,
) -> Outcome {
    let (began, next, over) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
    let outcome = Mutex::new(Outcome::default());
    std::thread::scope(|threads| {
        for _ in 0..jobs.max(1) {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed)
                    && limit.is_none_or(|limit| began.elapsed() < limit)
                {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= histories {
                        break;
                    }
                    let seed = seed.wrapping_add(number);
                    let played = play(seed, false);
                    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    outcome.tally += played.tally;
                    if let Some(problem) = played.problem {
                        over.store(true, Ordering::Relaxed);
                        // Several threads may find one: the lowest seed makes runs repeatable.
                        if outcome.failure.as_ref().is_none_or(|(other, _)| seed < *other) {
                            outcome.failure = Some((seed, problem));
                        }
                    }
                    progress(&outcome.tally);
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Adds up what `count` returns for each of `all`, on several threads.
///
/// # Errors
/// Returns the first problem that any thread meets.
pub(super) fn sum<T: Send>(
    all: Vec<T>,
    jobs: usize,
    count: impl Fn(&T) -> Result<u64, String> + Sync,
) -> Result<u64, String> {
    let (all, sum) = (Mutex::new(all.into_iter()), Mutex::new(Ok(0)));
    std::thread::scope(|threads| {
        for _ in 0..jobs.max(1) {
            threads.spawn(|| {
                loop {
                    let next = all.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(next) = next else { break };
                    let counted = count(&next);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *sum, counted) {
                        (Ok(sum), Ok(counted)) => *sum += counted,
                        (sum @ Ok(_), Err(problem)) => {
                            *sum = Err(problem);
                            break;
                        }
                        (Err(_), _) => break,
                    }
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Disturbs a call in its first place, in its second place and so on. Returns how many places there
/// are.
///
/// `disturb` returns `false` for the first place that the call does not have.
///
/// # Errors
/// Returns a problem of `disturb`, put into words by `told`. Also fails if there is no place at
/// all, since then nothing was tested.
pub(super) fn everywhere(
    mut disturb: impl FnMut(u32) -> Result<bool, String>,
    told: impl Fn(u32, String) -> String,
) -> Result<u64, String> {
    for place in 0.. {
        if !disturb(place).map_err(|problem| told(place, problem))? {
            let none = || told(place, "there is no such place".to_owned());
            return if place == 0 { Err(none()) } else { Ok(place.into()) };
        }
    }
    Ok(0)
}
