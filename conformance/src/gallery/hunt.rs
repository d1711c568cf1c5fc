//! Runs the suite on a broken store until a case catches it.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use super::{Mutant, all, control};
use crate::case::{Case, registry};
use crate::golden;
use crate::report;
use crate::run::{Report, Status, run_case};

/// How a broken store was caught.
pub struct Kill {
    /// The case that failed on it; it cites the clause that the store breaks.
    pub case: &'static Case,
    /// How it failed.
    pub report: Box<Report>,
}

/// No case that cites the broken clause failed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} breaks {clause} ({what}), and no case that cites it noticed: {}; write one that does",
    said(.passed)
)]
pub struct Survived {
    name: &'static str,
    clause: &'static str,
    what: &'static str,
    passed: Vec<String>,
}

fn said(passed: &[String]) -> String {
    if passed.is_empty() {
        "there is none that it can run".to_owned()
    } else {
        format!("{} passed", passed.join(", "))
    }
}

/// Runs the cases that cite the clause `mutant` breaks, those that cite it first before the
/// others, until one fails. The random sequences do not count: each law must have a case that names
/// it.
pub async fn hunt(mutant: &Mutant, seed: u64) -> Result<Kill, Survived> {
    let cites = |case: &&Case| case.clauses.contains(&mutant.clause) && case.group != "sequences";
    let mut cases: Vec<_> = registry().filter(cites).collect();
    cases.sort_by_key(|case| case.clauses.first() != Some(&mutant.clause));
    let mut passed = Vec::new();
    for case in cases {
        match run_case(case, &mutant.target, seed).await.status {
            Status::Fail(report) => return Ok(Kill { case, report }),
            Status::Pass => passed.push(case.name()),
            Status::NotClaimed(..) => {}
        }
    }
    let Mutant { name, clause, what, .. } = *mutant;
    Err(Survived { name, clause, what, passed })
}

/// What no golden transcript shows: it takes a fault, a race, the last epoch, thousands of
/// members, or a store that is opened again.
const UNSEEN_BY_GOLDENS: &[&str] = &[
    "no_admin_on_error",
    "stop_stops_nothing",
    "hangs_on_a_fault",
    "refuses_large_rekeys",
    "goes_past_the_last_epoch",
    "loses_the_last_write",
    "tears_pages",
    "lets_two_rekeys_win",
    "adds_with_the_old_key",
    "deletes_in_steps",
    "rekeys_in_steps",
    "bootstraps_in_steps",
];

/// A defect that a caller can see must change a golden transcript.
async fn seen_by_a_golden(mutant: &Mutant) -> Result<(), String> {
    for scenario in golden::all() {
        let sound = golden::play(&scenario, &*control()).await.map_err(|e| e.to_string())?;
        let target = Arc::clone(&mutant.target);
        // A task of its own: a panic of the store is as good as another answer.
        let told = tokio::spawn(async move { golden::play(&scenario, &*target).await }).await;
        if !matches!(told, Ok(Ok(told)) if told == sound) {
            return Ok(());
        }
    }
    Err(format!("{} ({}) changes no golden transcript", mutant.name, mutant.what))
}

/// The gallery as a test binary with `harness = false`: a test for each broken store, which
/// passes when the store is caught, and one for each case on the sound one beside them. The seed
/// is `MEMBERSHIP_SEED`, as for [`harness::main`](crate::harness::main).
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Some of these stores panic on purpose. A case that ends so reports it; nobody else need.
    std::panic::set_hook(Box::new(|_| {}));
    let seed = match crate::seed::from_environment() {
        Ok(seed) => seed,
        Err(error) => return report::refuse(&error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => return report::refuse(&format!("cannot start a tokio runtime: {error}")),
    };
    let mut trials = Vec::new();
    for mutant in all() {
        if !UNSEEN_BY_GOLDENS.contains(&mutant.name) {
            let (runtime, mutant) = (Arc::clone(&runtime), mutant.clone());
            trials.push(Trial::test(format!("golden::{}", mutant.name), move || {
                runtime.block_on(seen_by_a_golden(&mutant)).map_err(Failed::from)
            }));
        }
        let runtime = Arc::clone(&runtime);
        trials.push(Trial::test(format!("gallery::{}", mutant.name), move || {
            match runtime.block_on(hunt(&mutant, seed)) {
                Ok(_) => Ok(()),
                Err(survived) => Err(Failed::from(format!("{survived} (seed {seed:#x})"))),
            }
        }));
    }
    for case in registry().filter(|case| !case.alone()) {
        let (runtime, target) = (Arc::clone(&runtime), control());
        let ignored = crate::run::declined(case, &*target).is_some();
        let test = move || match runtime.block_on(run_case(case, &target, seed)).status {
            Status::Fail(failed) => {
                Err(Failed::from(report::failure(case, target.name(), &failed)))
            }
            Status::Pass | Status::NotClaimed(..) => Ok(()),
        };
        trials.push(
            Trial::test(format!("control::{}", case.name()), test).with_ignored_flag(ignored),
        );
    }
    #[cfg(all(feature = "jetstream", unix))]
    trials.push(Trial::test("gallery::naive-kv", move || {
        runtime.block_on(naive_is_caught(seed)).map_err(Failed::from)
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs every case that harms servers on the naive store, whatever it is about: the one of the
/// partitions that watches decisions must be among those that fail, for its own clause.
#[cfg(all(feature = "jetstream", unix))]
async fn naive_is_caught(seed: u64) -> Result<(), String> {
    let mutant = super::naive::mutant();
    mutant.target.prepare().await.map_err(|error| error.to_string())?;
    let needs = |case: &&Case| case.needs.contains(&crate::target::Need::Replicas);
    let mut passed = Vec::new();
    let mut caught = None;
    for case in registry().filter(needs) {
        match run_case(case, &mutant.target, seed).await.status {
            Status::Fail(report) => {
                let cites = case.clauses.contains(&mutant.clause);
                if case.group == "partitions" && cites && report.failure.got.contains("Allow") {
                    caught.get_or_insert((case, report));
                }
            }
            Status::Pass => passed.push(case.name()),
            Status::NotClaimed(..) => {}
        }
    }
    mutant.target.finish().await;
    match caught {
        Some(_) => Ok(()),
        None => {
            let Mutant { name, clause, what, .. } = mutant;
            Err(format!("{} (seed {seed:#x})", Survived { name, clause, what, passed }))
        }
    }
}
