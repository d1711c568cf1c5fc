//! The suite as a test binary with `harness = false`: every case on every store is a test.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use crate::case::{Case, Company, registry};
use crate::child;
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
    let most = Company::ALL.map(|company| company.at_once(jobs)).into_iter().max();
    arguments.test_threads = most;
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
        targets.iter().flat_map(move |target| {
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
        let _inside = gate.enter(case.company());
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

/// Lets cases in beside those they may run beside.
struct Gate {
    jobs: Option<NonZeroUsize>,
    /// Who is inside, and how many.
    inside: Mutex<(Company, usize)>,
    left: Condvar,
}

struct Inside<'a>(&'a Gate);

impl Gate {
    fn new(jobs: Option<NonZeroUsize>) -> Self {
        Self { jobs, inside: Mutex::new((Company::Working, 0)), left: Condvar::new() }
    }

    fn enter(&self, company: Company) -> Inside<'_> {
        let full = |(of, count): &mut (Company, usize)| {
            *count > 0 && (*of != company || *count >= company.at_once(self.jobs))
        };
        // A count is whole at any moment, so a poisoned lock means nothing.
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = self.left.wait_while(inside, full);
        let mut inside = inside.unwrap_or_else(PoisonError::into_inner);
        *inside = (company, inside.1 + 1);
        Inside(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.lock().unwrap_or_else(PoisonError::into_inner).1 -= 1;
        self.0.left.notify_all();
    }
}
