//! Runs one case on one target.

use std::any::Any;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};

use crate::case::Case;
use crate::clock;
use crate::context::{Cx, SLOW};
use crate::history::Reached;
use crate::load;
use crate::target::{Claim, Need, Target};
use crate::transcript::Transcript;
use crate::verdict::{Failure, Verdict};
use crate::vet::{self, Claims};

/// A case's verdict.
#[derive(Debug)]
pub enum Status {
    /// The case passed.
    Pass,
    /// The case failed.
    Fail(Box<Report>),
    /// The target lacks an ability that the case needs, for this reason.
    NotClaimed(Need, &'static str),
    /// A deadline passed on every run of the case, each time on a starved machine. This says
    /// nothing about the store.
    Inconclusive(Box<Report>),
}

/// A case's verdict, and how long it took.
#[derive(Debug)]
pub struct Outcome {
    /// The verdict.
    pub status: Status,
    /// How long the case took, with making and closing the store.
    pub took: Duration,
    /// Counts of rare events in the case.
    pub reached: Reached,
    /// How many times slower than usual the machine computed, if it was starved.
    starved: Option<f64>,
}

impl Outcome {
    /// How starved the machine was, if the case must run again: it failed only because a deadline
    /// passed while the machine was starved. `None` if it must not.
    pub(crate) fn excuse(&self) -> Option<f64> {
        match &self.status {
            Status::Fail(report) if report.failure.timed_out && !report.blocked => self.starved,
            _ => None,
        }
    }

    /// The outcome of the last run of a case. A case that would have to run again is inconclusive.
    pub(crate) fn concluded(self) -> Self {
        let excused = self.excuse().is_some();
        match self.status {
            Status::Fail(report) if excused => {
                Self { status: Status::Inconclusive(report), ..self }
            }
            status => Self { status, ..self },
        }
    }
}

/// How many times a case runs again, at most, after its deadline passed on a starved machine.
pub(crate) const RUNS_AGAIN: usize = 2;

/// A failure, with everything that the report shows about it.
#[derive(Debug)]
pub struct Report {
    /// What was expected, and what the store did.
    pub failure: Failure,
    /// The case's calls, with their results.
    pub transcript: Vec<String>,
    /// The run's seed, with which the case draws the same numbers again.
    pub seed: u64,
    /// Whether a step of the case has blocked a thread of the process, and does not seem to end.
    /// Cases that run afterwards may hang only because of that thread.
    pub blocked: bool,
}

/// The first of the case's needs that the target does not claim, with the target's reason. Does no
/// I/O.
pub fn declined(case: &Case, target: &dyn Target) -> Option<(Need, &'static str)> {
    case.needs.iter().find_map(|need| match target.claims(*need) {
        Claim::Claimed => None,
        Claim::Declined(reason) => Some((*need, reason)),
    })
}

/// Runs `case` on a fresh store of `target`. A panic or a hang of the store is a failure of the
/// case, never of the run.
pub async fn run_case(case: &'static Case, target: &Arc<dyn Target>, seed: u64) -> Outcome {
    // The cases of a slow store wait longer for each deadline, and some cases wait for several
    // deadlines.
    let timeout = vet::caught("op_timeout", || target.op_timeout_for(case.needs));
    let deadline = case.deadline().saturating_add(2 * SLOW * timeout.unwrap_or_default());
    run_case_within(case, target, seed, deadline).await
}

/// As [`run_case`], with another deadline.
pub(crate) async fn run_case_within(
    case: &'static Case,
    target: &Arc<dyn Target>,
    seed: u64,
    deadline: Duration,
) -> Outcome {
    let began = Instant::now();
    let mut run = Run::new(case, target, seed, deadline);
    let status = match run.whole().await {
        Ok(None) => Status::Pass,
        Ok(Some((need, reason))) => Status::NotClaimed(need, reason),
        Err(failure) => {
            let (transcript, blocked) = (run.transcript.lines(), run.blocked);
            Status::Fail(Box::new(Report { failure, transcript, seed, blocked }))
        }
    };
    let starved = load::starved_since(began);
    Outcome { status, took: began.elapsed(), reached: run.reached, starved }
}

/// The longest that a target may take to make a store or to destroy one. The target may have to
/// start servers, and to wait for servers that other cases use.
const TARGETS_TIME: Duration = Duration::from_mins(5);
/// How often the run checks whether a case hangs.
const LOOK: Duration = Duration::from_millis(250);
/// How long an aborted task may take to end. The task ends when it next awaits something.
const ENDS: Duration = Duration::from_secs(5);

/// Runs one case on one target, step by step. Each step is a task of its own, so that a panic stays
/// in it. Each step has a deadline that the store cannot stop.
struct Run<'a> {
    case: &'static Case,
    target: &'a Arc<dyn Target>,
    seed: u64,
    deadline: Duration,
    transcript: Arc<Transcript>,
    reached: Reached,
    /// Whether a step has blocked its thread, and does not seem to end.
    blocked: bool,
}

impl<'a> Run<'a> {
    fn new(
        case: &'static Case,
        target: &'a Arc<dyn Target>,
        seed: u64,
        deadline: Duration,
    ) -> Self {
        let (transcript, reached) = (Arc::new(Transcript::new()), Reached::new());
        Self { case, target, seed, deadline, transcript, reached, blocked: false }
    }

    /// Runs all steps. Returns the first need of the case that the target declines, if there is
    /// one.
    async fn whole(&mut self) -> Verdict<Option<(Need, &'static str)>> {
        clock::start().and_then(|()| load::start()).map_err(|error| nowhere("a clock", error))?;
        let claims = self.claims()?;
        if let Some(declined) = claims.declined(self.case.needs) {
            return Ok(Some(declined));
        }
        let cx = self.make().await?;
        // The case is a task of its own, so that a panic stays in the task, and a hanging case can
        // be aborted.
        let task = tokio::spawn((self.case.run)(cx.clone()));
        let verdict = self.step("the case", self.deadline, task).await;
        self.reached = cx.met();
        let verdict = in_time(verdict.and_then(|verdict| verdict), &self.transcript);
        if self.blocked {
            // Closing is skipped, since it may need the blocked thread.
            return verdict.map(|()| None);
        }
        let closing = cx.clone();
        let closing = tokio::spawn(async move { closing.close_all().await });
        let closed = self.step("close", self.deadline, closing).await;
        let gone = tokio::task::spawn_blocking(move || drop(cx));
        let gone = self.step("the store's end", self.targets_time(), gone).await;
        verdict.and(closed).and(gone)?;
        match claims.changed(&self.claims()?) {
            Some(changed) => Err(nowhere("a target to claim the same each time", changed)),
            None => Ok(None),
        }
    }

    fn claims(&self) -> Verdict<Claims> {
        Claims::of(&**self.target).map_err(|panic| nowhere("no panic", panic))
    }

    fn targets_time(&self) -> Duration {
        TARGETS_TIME.min(3 * self.deadline)
    }

    async fn make(&mut self) -> Verdict<Cx> {
        let (target, needs) = (Arc::clone(self.target), self.case.needs);
        let (seed, transcript) = (case_seed(self.seed, self.case), Arc::clone(&self.transcript));
        let making = async move { Cx::make(&target, needs, seed, transcript).await };
        let made = self.step("create", self.targets_time(), tokio::spawn(making)).await?;
        Ok(made?)
    }

    /// Awaits a task until `limit` has passed or a call in the task hangs. Then it fails, and the
    /// failure names the step.
    ///
    /// On a starved machine the limit is longer by the factor of the slowdown. A call that has no
    /// answer even then is the store's fault.
    async fn step<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut task: JoinHandle<T>,
    ) -> Verdict<T> {
        let began = Instant::now();
        loop {
            match clock::within(LOOK, &mut task).await {
                Some(Ok(done)) => return Ok(done),
                Some(Err(panic)) => {
                    let got = format!("{}, in {what}", panic_text(panic));
                    return Err(nowhere("no panic", got));
                }
                None => {}
            }
            if self.transcript.hangs() || began.elapsed() > load::patience(limit, began) {
                break;
            }
        }
        let overdue = self.transcript.overdue().map(|late| Failure { timed_out: false, ..late });
        let mut failure = overdue.unwrap_or_else(|| {
            let expected = format!("{what} to end within {limit:?}");
            nowhere(expected, "it hangs; the last call without an answer tells where")
        });
        task.abort();
        if clock::within(ENDS, &mut task).await.is_none() {
            self.blocked = true;
            failure.got += "; it blocks its thread, and cannot be ended";
        }
        Err(failure)
    }
}

/// Adds a call that took too long (clause TIME-1) to the verdict. A case that otherwise passed
/// fails because of that call. A failure mentions the call, since it may be the cause.
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

/// How long `prepare` may take: a target may have to fetch a server's program.
const PREPARES: Duration = Duration::from_mins(15);

/// Calls [`Target::prepare`]. An error names the target, and says what to do.
pub(crate) async fn prepare(target: &Arc<dyn Target>) -> Result<Option<String>, String> {
    let asked = Arc::clone(target);
    let preparing = tokio::spawn(async move { asked.prepare().await });
    let prepared = outside("prepare", PREPARES, preparing).await;
    let prepared = prepared.and_then(|found| found.map_err(|error| error.to_string()));
    prepared.map_err(|error| format!("{}: {error}", target.name()))
}

/// Calls [`Target::finish`] of each target. An error names the first target that failed.
pub(crate) async fn finish(targets: &[Arc<dyn Target>]) -> Result<(), String> {
    for target in targets {
        let asked = Arc::clone(target);
        let finishing = tokio::spawn(async move { asked.finish().await });
        let finished = outside("finish", TARGETS_TIME, finishing).await;
        finished.map_err(|error| format!("{}: {error}", target.name()))?;
    }
    Ok(())
}

async fn outside<T>(what: &str, limit: Duration, mut task: JoinHandle<T>) -> Result<T, String> {
    clock::start()?;
    match clock::within(limit, &mut task).await {
        Some(Ok(done)) => Ok(done),
        Some(Err(panic)) => Err(format!("{}, in {what}", panic_text(panic))),
        None => {
            task.abort();
            Err(format!("{what} has not ended within {limit:?}"))
        }
    }
}

#[track_caller]
fn nowhere(expected: impl Into<String>, got: impl Into<String>) -> Failure {
    Failure { at: Location::caller(), ..Failure::new(expected, got) }
}

fn panic_text(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "the case was aborted".to_owned() };
    format!("a panic: {}", panic_message(&*panic))
}

/// A panic's message.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// A case's own seed, which does not depend on the other cases of the run.
fn case_seed(seed: u64, case: &Case) -> u64 {
    // FNV-1a never changes; the hasher of the standard library may.
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    case.name().bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, fnv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_target_that_never_ends_is_told_of_also_when_it_blocks_its_thread() {
        let limit = Duration::from_millis(50);
        let told = outside("finish", limit, tokio::spawn(std::future::pending::<()>())).await;
        assert_eq!(told, Err("finish has not ended within 50ms".to_owned()));
        let (over, waits) = std::sync::mpsc::channel::<()>();
        let blocks = tokio::spawn(async move { waits.recv().unwrap_err() });
        let told = outside("prepare", limit, blocks).await.map(drop);
        assert_eq!(told, Err("prepare has not ended within 50ms".to_owned()));
        drop(over);
    }
}
