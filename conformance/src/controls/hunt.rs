//! Runs the suite on a broken store until a case catches it.

use std::time::{Duration, Instant};

use super::Control;
use crate::case::{Case, Company, registry};
use crate::run::{Report, Status, run_case_within};
use crate::schedule::Schedule;
use crate::target::{Claim, Need};

/// The deadline of a case on a store in this process.
///
/// Unless the store hangs, a case ends long before this deadline, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(45);

/// Keeps cases apart that must not run at the same time.
///
/// Otherwise a deadline that passes on a busy machine would count as a catch.
pub(super) static SCHEDULE: Schedule = Schedule::new(None);

/// Groups whose catches do not count.
///
/// Each law must have a case of its own, and a case of these groups catches a store by accident.
const NO_LAW: [&str; 3] = ["sequences", "histories", "golden"];

/// The case that caught a broken store.
pub struct Kill {
    /// The case that failed on it; it cites the clause that the store breaks.
    pub case: &'static Case,
    /// The failure.
    pub report: Box<Report>,
    /// How long the hunt took, with the cases that passed before.
    pub took: Duration,
}

/// No case that cites the broken clause failed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} breaks {clause} ({what}), and no case that cites it noticed: {}; write one that does",
    said(.passed)
)]
pub struct Survived {
    /// The store's name.
    pub name: &'static str,
    /// The clause that the store breaks.
    pub clause: &'static str,
    pub(super) what: &'static str,
    pub(super) passed: Vec<String>,
}

fn said(passed: &[String]) -> String {
    if passed.is_empty() {
        "none can run on it".to_owned()
    } else {
        format!("{} passed", passed.join(", "))
    }
}

/// Runs the cases that cite the clause that `control` breaks, the likeliest first, until one fails.
///
/// Random sequences, histories and golden transcripts are left out: each law must have a case of
/// its own.
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

/// All cases that cite the clause that `control` breaks and fail on it.
pub async fn all_kills(control: &Control, seed: u64) -> Vec<&'static Case> {
    let mut kills = Vec::new();
    for case in chosen(control) {
        // A store that hangs makes many of the cases wait until their deadline.
        if let Status::Fail(_) = try_case(case, control, seed, PATIENCE / 3).await {
            kills.push(case);
        }
    }
    kills
}

/// The cases that may catch a broken store, the likeliest first.
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
        // The defect of a replicated store most likely shows in cases that harm servers; any other
        // store is likely caught by a case that needs little.
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
