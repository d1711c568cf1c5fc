//! The gallery as a test binary.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use super::hunt::GATE;
use super::{Mutant, all, control, hunt, quiet_panics};
use crate::case::{Case, Company, registry};
use crate::gate::Gate;
#[cfg(all(feature = "jetstream", unix))]
use crate::run::Report;
use crate::run::{self, Status};
#[cfg(all(feature = "jetstream", unix))]
use crate::target::Need;
use crate::{child, golden, harness, report};

/// The gallery as a test binary with `harness = false`.
///
/// Each broken store has a test, which passes when a case catches the store. Each case has a test
/// on the sound store. The seed is `MEMBERSHIP_SEED`, as for [`harness::main`].
#[must_use]
pub fn main() -> ExitCode {
    let mutants = all();
    let targets: Vec<_> = mutants.iter().map(|mutant| Arc::clone(&mutant.target)).collect();
    if let Some(code) = child::run_if_asked(&targets) {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // A thread for each test that may run at once; the gate holds back the others.
    arguments.test_threads.get_or_insert_with(|| Gate::most(None));
    quiet_panics();
    let (seed, runtime) = match harness::begun() {
        Ok(begun) => begun,
        Err(error) => return report::refuse(&error),
    };
    let mut trials = Vec::new();
    for mutant in mutants {
        if mutant.visible {
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
    // Of the groups that wait, only these two: of all stores in memory, only the gallery's can lose
    // data, or put earlier data back, or let calls time out.
    let tried = |case: &&Case| {
        case.company() == Company::Working || ["past", "fail_closed"].contains(&case.group)
    };
    for case in registry().filter(tried) {
        let (runtime, target) = (Arc::clone(&runtime), control());
        let ignored = run::declined(case, &*target).is_some();
        let test = move || {
            let outcome = runtime.block_on(GATE.run(case, &target, seed));
            match outcome.status {
                Status::Fail(failed) => {
                    Err(Failed::from(report::failure(case, target.name(), &failed)))
                }
                Status::Pass | Status::NotClaimed(..) | Status::Inconclusive(_) => Ok(()),
            }
        };
        trials.push(
            Trial::test(format!("control::{}", case.name()), test).with_ignored_flag(ignored),
        );
    }
    #[cfg(all(feature = "jetstream", unix))]
    {
        let runtime = Arc::clone(&runtime);
        trials.push(Trial::test("gallery::naive-kv", move || {
            runtime.block_on(naive_is_caught(seed)).map_err(Failed::from)
        }));
    }
    #[cfg(all(feature = "jetstream", unix))]
    {
        let runtime = Arc::clone(&runtime);
        trials.push(Trial::test("gallery::naive-kv-emptied", move || {
            runtime.block_on(naive_is_caught_emptied(seed)).map_err(Failed::from)
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(why) = runtime.block_on(run::finish(&targets)) {
        return report::refuse(&why);
    }
    conclusion.exit_code()
}

/// Fails unless the broken store changes a golden transcript.
async fn seen_by_a_golden(mutant: &Mutant) -> Result<(), String> {
    let _inside = GATE.enter(Company::Working).await;
    for scenario in golden::all() {
        let sound = golden::play(&scenario, &*control()).await.map_err(|e| e.to_string())?;
        let target = Arc::clone(&mutant.target);
        // A panic of the store counts as a change, so it must not leave this task.
        let told = tokio::spawn(async move { golden::play(&scenario, &*target).await }).await;
        if !matches!(told, Ok(Ok(told)) if told == sound) {
            return Ok(());
        }
    }
    Err(format!("{} ({}) changes no golden transcript", mutant.name, mutant.what))
}

/// Fails unless the naive store allows a revoked user while servers are cut off.
///
/// Runs every case that needs several servers. A case of the group `partitions` that cites AUTH-3
/// must fail because of an `Allow`.
#[cfg(all(feature = "jetstream", unix))]
async fn naive_is_caught(seed: u64) -> Result<(), String> {
    let needs = |case: &Case| case.needs.contains(&Need::Replicas);
    let caught = |case: &Case, report: &Report| {
        let cites = case.clauses.contains(&"AUTH-3");
        case.group == "partitions" && cites && report.failure.got.contains("Allow")
    };
    naive_fails("AUTH-3", needs, caught, seed).await
}

/// Fails unless the naive store allows another bootstrap after the users vanished.
///
/// Runs the cases of USER-1 in which records vanish. One of these must fail because `has_admin`
/// answers false, or because `bootstrap_admin` makes a user.
#[cfg(all(feature = "jetstream", unix))]
async fn naive_is_caught_emptied(seed: u64) -> Result<(), String> {
    let bootstraps =
        |case: &Case| case.needs.contains(&Need::Vanish) && case.clauses.contains(&"USER-1");
    let frees = |_: &Case, report: &Report| {
        let got = &report.failure.got;
        got == "false" || got.starts_with("user ")
    };
    naive_fails("PAST-3", bootstraps, frees, seed).await
}

/// Fails unless a case chosen by `which` fails on the naive store in the way `as_it_should` says.
#[cfg(all(feature = "jetstream", unix))]
async fn naive_fails(
    clause: &'static str,
    which: impl Fn(&Case) -> bool,
    as_it_should: impl Fn(&Case, &Report) -> bool,
    seed: u64,
) -> Result<(), String> {
    use futures::{FutureExt, StreamExt, stream};

    let mutant = super::naive::mutant();
    mutant.target.prepare().await.map_err(|error| error.to_string())?;
    let mut passed = Vec::new();
    let mut caught = false;
    let target = &mutant.target;
    let runs = registry().filter(|case| which(case)).map(|case| async move {
        let _inside = GATE.enter(case.company()).await;
        (case, run::run_case(case, target, seed).await.status)
    });
    // Boxed: the compiler cannot prove `Send` for a future that is nested this deep.
    let runs = runs.map(FutureExt::boxed);
    let runs = stream::iter(runs).buffer_unordered(Gate::most(None));
    for (case, status) in runs.collect::<Vec<_>>().await {
        match status {
            Status::Fail(report) => caught |= as_it_should(case, &report),
            Status::Pass => passed.push(case.name()),
            Status::NotClaimed(..) | Status::Inconclusive(_) => {}
        }
    }
    mutant.target.finish().await;
    if caught {
        return Ok(());
    }
    let Mutant { name, what, .. } = mutant;
    Err(format!("{} (seed {seed:#x})", super::Survived { name, clause, what, passed }))
}
