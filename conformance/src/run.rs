//! Runs one case on one target.

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::clock;
use crate::context::Cx;
use crate::history::Reached;
use crate::target::{Claim, Need, Target};
use crate::transcript::Transcript;
use crate::verdict::{Failure, Verdict};

/// How a case ended.
#[derive(Debug)]
pub enum Status {
    /// Everything held.
    Pass,
    /// Something did not.
    Fail(Box<Report>),
    /// The target declines what the case needs, for this reason.
    NotClaimed(Need, &'static str),
}

/// How a case ended, and after how long.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// How long it took, with making the store and closing it.
    pub took: Duration,
    /// What it met, and how often, where that is counted.
    pub reached: Reached,
}

/// All there is to say of a failure.
#[derive(Debug)]
pub struct Report {
    /// What did not hold.
    pub failure: Failure,
    /// The case's calls, with their results.
    pub transcript: Vec<String>,
    /// The run's seed: with it the same case does the same again.
    pub seed: u64,
}

/// What the target declines of what the case needs, if anything. No I/O.
pub fn declined(case: &Case, target: &dyn Target) -> Option<(Need, &'static str)> {
    case.needs.iter().find_map(|need| match target.claims(*need) {
        Claim::Claimed => None,
        Claim::Declined(reason) => Some((*need, reason)),
    })
}

/// Runs `case` on a fresh store of `target`. A panic or a hang of the store is a failure of the
/// case, never of the run.
pub async fn run_case(case: &'static Case, target: &Arc<dyn Target>, seed: u64) -> Outcome {
    run_case_within(case, target, seed, case.deadline()).await
}

/// The same, with a deadline of the caller's.
pub(crate) async fn run_case_within(
    case: &'static Case,
    target: &Arc<dyn Target>,
    seed: u64,
    deadline: Duration,
) -> Outcome {
    let began = Instant::now();
    if let Some((need, reason)) = declined(case, &**target) {
        let status = Status::NotClaimed(need, reason);
        return Outcome { status, took: Duration::ZERO, reached: Reached::new() };
    }
    let transcript = Arc::new(Transcript::new());
    let mut reached = Reached::new();
    let status = match attempt(case, target, seed, deadline, &transcript, &mut reached).await {
        Ok(()) => Status::Pass,
        Err(failure) => {
            Status::Fail(Box::new(Report { failure, transcript: transcript.lines(), seed }))
        }
    };
    Outcome { status, took: began.elapsed(), reached }
}

async fn attempt(
    case: &'static Case,
    target: &Arc<dyn Target>,
    seed: u64,
    deadline: Duration,
    transcript: &Arc<Transcript>,
    reached: &mut Reached,
) -> Result<(), Failure> {
    clock::start().map_err(|error| nowhere("a clock", error))?;
    let seed = case_seed(seed, case);
    let cx = Cx::make(target, case.needs, seed, Arc::clone(transcript)).await?;
    // A task of its own, so that a panic stays in it; aborted, so that a hang ends with it.
    let mut task = tokio::spawn((case.run)(cx.clone()));
    let began = Instant::now();
    let verdict = loop {
        match clock::within(LOOK, &mut task).await {
            Some(Ok(verdict)) => break verdict,
            Some(Err(panic)) => break Err(nowhere("no panic", panic_text(panic))),
            None if transcript.hangs() || began.elapsed() > deadline => {
                let hangs = transcript.overdue().unwrap_or_else(|| {
                    let expected = format!("the case to end within {deadline:?}");
                    nowhere(expected, "it hangs; the last call without an answer tells where")
                });
                task.abort();
                break Err(hangs);
            }
            None => {}
        }
    };
    *reached = cx.met();
    let closing = clock::within(deadline, cx.close_all()).await;
    in_time(verdict, transcript)?;
    closing.ok_or_else(|| nowhere("close to return", "it hangs"))
}

/// How often it is looked whether a case hangs.
const LOOK: Duration = Duration::from_millis(250);

/// A case that held failed all the same where a call of it took longer than it may (clause TIME-1), and
/// one that failed may have failed for that.
fn in_time(verdict: Verdict, transcript: &Transcript) -> Verdict {
    match (verdict, transcript.overdue()) {
        (verdict, None) => verdict,
        (Ok(()), Some(overdue)) => Err(overdue),
        (Err(failure), Some(_)) if failure.clause.is_some() => Err(failure),
        (Err(failure), Some(overdue)) => {
            let got = format!("{} · and {}: {}", failure.got, overdue.expected, overdue.got);
            Err(Failure { got, clause: overdue.clause, ..failure })
        }
    }
}

#[track_caller]
fn nowhere(expected: impl Into<String>, got: impl Into<String>) -> Failure {
    Failure { at: Location::caller(), ..Failure::new(expected, got) }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "the case was aborted".to_owned() };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", text.unwrap_or("without a message"))
}

/// Each case draws from its own numbers, whichever others run beside it.
fn case_seed(seed: u64, case: &Case) -> u64 {
    // FNV-1a: fixed for ever, which the standard library's hasher is not.
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    case.name().bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, fnv)
}
