//! The suite as a test binary with `harness = false`: every case on every store is a test.

use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::case::{Case, registry};
use crate::child;
use crate::report;
use crate::run::{self, Status, run_case};
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
    let arguments = Arguments::from_args();
    let seed = match crate::seed::from_environment() {
        Ok(seed) => seed,
        Err(error) => return report::refuse(&error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => return report::refuse(&format!("cannot start a tokio runtime: {error}")),
    };
    if targets.is_empty() {
        return report::refuse("no target was given, so no store would be tested");
    }
    let exclusive = Arc::new(RwLock::new(()));
    let trials = targets
        .iter()
        .flat_map(|target| registry().map(|case| trial(case, target, seed, &runtime, &exclusive)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    for target in targets {
        runtime.block_on(target.finish());
    }
    conclusion.exit_code()
}

fn trial(
    case: &'static Case,
    target: &Arc<dyn Target>,
    seed: u64,
    runtime: &Arc<tokio::runtime::Runtime>,
    exclusive: &Arc<RwLock<()>>,
) -> Trial {
    let name = format!("{}::{}", target.name(), case.name());
    let unclaimed = run::declined(case, &**target).is_some();
    let (target, runtime) = (Arc::clone(target), Arc::clone(runtime));
    let exclusive = Arc::clone(exclusive);
    let test = move || {
        // Who measures time waits until nobody else runs. A guard protects no data, so a
        // poisoned lock means nothing.
        let (_shared, _alone) = if case.alone() {
            (None, Some(exclusive.write().unwrap_or_else(PoisonError::into_inner)))
        } else {
            (Some(exclusive.read().unwrap_or_else(PoisonError::into_inner)), None)
        };
        let outcome = runtime.block_on(run_case(case, &target, seed));
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
