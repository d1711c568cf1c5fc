//! Runs the suite on a broken store until a case catches it.

use std::time::{Duration, Instant};

use super::Control;
use crate::case::{Case, Company, registry};
use crate::run::{Report, Status, run_case_within};
use crate::schedule::Schedule;
use crate::target::{Claim, Need};

/// How long to wait for a store in this process, which is done long before, also on a busy machine, if
/// it does not lock up.
const PATIENCE: Duration = Duration::from_secs(45);

/// A busy machine must not catch a broken store.
pub(super) static SCHEDULE: Schedule = Schedule::new(None);

/// Groups that catch a store by what else happens in them: they do not count, since each law must have a case
/// that names it.
const NO_LAW: [&str; 3] = ["sequences", "histories", "golden"];

/// How a broken store was caught.
pub struct Kill {
    /// The case that failed on it; it cites the clause that the store breaks.
    pub case: &'static Case,
    /// How it failed.
    pub report: Box<Report>,
    /// How long the hunt took, with the cases before.
    pub took: Duration,
}

/// No case that cites the broken clause failed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} breaks {clause} ({what}), and no case that cites it noticed: {}; write one that does",
    said(.passed)
)]
pub struct Survived {
    /// The store.
    pub name: &'static str,
    /// The clause it breaks.
    pub clause: &'static str,
    pub(super) what: &'static str,
    pub(super) passed: Vec<String>,
}

fn said(passed: &[String]) -> String {
    if passed.is_empty() {
        "there is none that it can run".to_owned()
    } else {
        format!("{} passed", passed.join(", "))
    }
}

/// Runs the cases that cite the clause `control` breaks until one fails: those that cite it first
/// before the others, those that need much after those that need little. What is random does not
/// count, the sequences and the histories: each law must have a case that names it.
pub async fn hunt(control: &Control, seed: u64) -> Result<Kill, Survived> {
    let began = Instant::now();
    let mut passed = Vec::new();
    for case in chosen(control) {
        match try_case(case, control, seed, PATIENCE).await {
            Status::Fail(report) => return Ok(Kill { case, report, took: began.elapsed() }),
            Status::Pass => passed.push(case.name()),
            Status::NotClaimed(..) | Status::Inconclusive(_) => {}
        }
    }
    let Control { name, clause, what, .. } = *control;
    Err(Survived { name, clause, what, passed })
}

/// All cases that cite the clause `control` breaks and fail on it.
pub async fn all_kills(control: &Control, seed: u64) -> Vec<&'static Case> {
    let mut kills = Vec::new();
    for case in chosen(control) {
        // One that locks up is met by many of them.
        if let Status::Fail(_) = try_case(case, control, seed, PATIENCE / 3).await {
            kills.push(case);
        }
    }
    kills
}

/// The cases that may catch it, the likeliest first.
fn chosen(control: &Control) -> Vec<&'static Case> {
    let cites =
        |case: &&Case| case.clauses.contains(&control.clause) && !NO_LAW.contains(&case.group);
    let mut cases: Vec<_> = registry().filter(cites).collect();
    let costly = |case: &Case| {
        case.needs
            .iter()
            .any(|need| matches!(need, Need::Faults | Need::Replicas | Need::Processes))
    };
    cases.sort_by_key(|case| {
        let first = case.clauses.first() == Some(&control.clause);
        // What breaks only on several servers is sought where several servers are broken.
        let severe = case.company() != Company::Working || costly(case);
        let named = control.first.is_some_and(|name| case.name() == name);
        (!named, severe != (control.target.claims(Need::Replicas) == Claim::Claimed), !first)
    });
    cases
}

async fn try_case(case: &'static Case, control: &Control, seed: u64, patience: Duration) -> Status {
    let _inside = SCHEDULE.enter(case.company()).await;
    let patience = if control.target.pace() == 1 { patience } else { case.deadline() };
    run_case_within(case, &control.target, seed, patience).await.status
}
