//! The suite as a test binary with `harness = false`: every case on every store is a test.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use crate::case::{Case, Company, registry};
use crate::child;
use crate::gate::Gate;
use crate::report;
use crate::run::{self, Status, run_case};
use crate::seed;
use crate::target::Target;

/// Runs the suite on `targets` as `cargo test` and `cargo nextest run` expect it; arguments are
/// those of any Rust test binary. Tests are named `store::group::title`; what a target does not
/// claim is listed as ignored.
///
/// The seed comes from `MEMBERSHIP_SEED` (decimal, or hexadecimal after `0x`), or else from the
/// system; a failure prints it.
#[must_use]
pub fn main(targets: &[Arc<dyn Target>]) -> ExitCode {
    if let Some(code) = child::run_if_asked(targets) {
        return code;
    }
    let mut arguments = Arguments::from_args();
    let jobs = arguments.test_threads.and_then(NonZeroUsize::new);
    // Threads for as many as ever run at once; the gate lets in who may.
    arguments.test_threads = Some(Gate::most(jobs));
    let (seed, runtime) = match begun() {
        Ok(begun) => begun,
        Err(error) => return report::refuse(&error),
    };
    if targets.is_empty() {
        return report::refuse("no target was given, so no store would be tested");
    }
    let names = |target: &dyn Target| {
        let target = target.name().to_owned();
        registry().map(move |case| format!("{target}::{}", case.name()))
    };
    if let Err(why) = prepared(&arguments, &runtime, targets, names) {
        return report::refuse(&why);
    }
    let gate = Arc::new(Gate::new(jobs));
    // Company by company, or threads would wait at the gate for one another.
    let trials = Company::ALL.into_iter().flat_map(|company| {
        let mut targets: Vec<_> = targets.iter().collect();
        if company == Company::Waiting {
            // The longest waits first, or one of them would be all that is left in the end.
            targets.sort_by_key(|target| Reverse(target.pace()));
        }
        targets.into_iter().flat_map(move |target| {
            registry().filter(move |case| case.company() == company).map(move |case| (case, target))
        })
    });
    let trials = trials.map(|(case, target)| trial(case, target, seed, &runtime, &gate));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    for target in targets {
        runtime.block_on(target.finish());
    }
    conclusion.exit_code()
}

/// The seed of the environment, and what the tests run on.
pub(crate) fn begun() -> Result<(u64, Arc<Runtime>), String> {
    Ok((seed::from_environment()?, Arc::new(runtime()?)))
}

/// What the cases run on.
pub(crate) fn runtime() -> Result<Runtime, String> {
    Runtime::new().map_err(|error| format!("cannot start a tokio runtime: {error}"))
}

/// Has each target of which a test is to run look for what it needs. What is missing must end the
/// run, with how to get it, rather than fail each test for itself.
pub fn prepared<Names: Iterator<Item = String>>(
    arguments: &Arguments,
    runtime: &Runtime,
    targets: &[Arc<dyn Target>],
    names: impl Fn(&dyn Target) -> Names,
) -> Result<(), String> {
    if arguments.list {
        return Ok(());
    }
    let matches = |name: &str, pattern: &str| {
        if arguments.exact { name == pattern } else { name.contains(pattern) }
    };
    let runs = |name: String| {
        arguments.filter.as_ref().is_none_or(|filter| matches(&name, filter))
            && !arguments.skip.iter().any(|skip| matches(&name, skip))
    };
    for target in targets.iter().filter(|target| names(&***target).any(runs)) {
        let found = runtime.block_on(target.prepare());
        found.map_err(|error| format!("{}: {error}", target.name()))?;
    }
    Ok(())
}

fn trial(
    case: &'static Case,
    target: &Arc<dyn Target>,
    seed: u64,
    runtime: &Arc<Runtime>,
    gate: &Arc<Gate>,
) -> Trial {
    let name = format!("{}::{}", target.name(), case.name());
    let unclaimed = run::declined(case, &**target).is_some();
    let (target, runtime) = (Arc::clone(target), Arc::clone(runtime));
    let gate = Arc::clone(gate);
    let test = move || {
        let outcome = runtime.block_on(async {
            let _inside = gate.enter(case.company()).await;
            run_case(case, &target, seed).await
        });
        match outcome.status {
            Status::Pass => Ok(()),
            Status::Fail(failed) => {
                Err(Failed::from(report::failure(case, target.name(), &failed)))
            }
            Status::NotClaimed(need, reason) => {
                Err(Failed::from(format!("not claimed: {need}: {reason}")))
            }
        }
    };
    Trial::test(name, test).with_ignored_flag(unclaimed)
}
