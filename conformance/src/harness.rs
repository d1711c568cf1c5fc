//! The suite as a test binary with `harness = false`: every case on every store is a test.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

use crate::case::{Case, registry};
use crate::child;
use crate::outer;
use crate::report;
use crate::run::{self, Status};
use crate::schedule::{Begins, Schedule, in_order};
use crate::seed;
use crate::soak;
use crate::target::Target;
use crate::vet::vetted;

/// Runs the suite on `targets`, as `cargo test` and `cargo nextest run` expect it.
///
/// The arguments are those of any Rust test binary. Tests are named `store::group::title`. A case
/// that needs what its target does not claim is listed as ignored.
///
/// The tests run in an inner process, which this one starts and waits for: a store may end its
/// process, and that must not look like a run that passed.
///
/// A case whose deadline passed while the machine was starved runs again, alone, up to twice. If
/// its deadline passes each time, the case is inconclusive: it is listed as ignored, and the exit
/// code is 3 if no case failed.
///
/// The seed comes from `MEMBERSHIP_SEED` (decimal, or hexadecimal after `0x`), or else from the
/// system; a failure prints it.
#[must_use]
pub fn main(targets: &[Arc<dyn Target>]) -> ExitCode {
    if let Some(code) = child::run_if_asked(targets) {
        return code;
    }
    let (arguments, filters) = arguments(std::env::args());
    let run = || exit_code(run(targets, &arguments, &filters), FAILED);
    // Listing needs no inner process: it calls no store.
    if arguments.list { ExitCode::from(run()) } else { outer::supervised(run) }
}

/// The exit code of a test binary with a failed test.
const FAILED: u8 = 101;
/// The exit code of a run that could not start.
const REFUSED: u8 = 2;
/// The exit code of a run without a failure in which some case is inconclusive.
const INCONCLUSIVE: u8 = 3;

/// The exit code of a run; `failed` if a case failed. Prints why a run could not start.
pub(crate) fn exit_code(held: Result<Held, String>, failed: u8) -> u8 {
    match held {
        Ok(Held::All) => 0,
        Ok(Held::NotAll) => failed,
        Ok(Held::Unknown) => INCONCLUSIVE,
        Err(why) => {
            report::complain(&why);
            REFUSED
        }
    }
}

/// Whether all cases of a run passed.
pub(crate) enum Held {
    All,
    NotAll,
    /// No case failed, but some are inconclusive.
    Unknown,
}

/// Splits the command line into options and filters. A Rust test binary takes any number of
/// filters, but `libtest_mimic` only one.
fn arguments(all: impl Iterator<Item = String>) -> (Arguments, Vec<String>) {
    const WITH_A_VALUE: [&str; 6] =
        ["--skip", "--test-threads", "--logfile", "--color", "--format", "-Z"];
    let (mut options, mut filters) = (Vec::new(), Vec::new());
    for argument in all {
        let value =
            options.last().is_none_or(|before: &String| WITH_A_VALUE.contains(&before.as_str()));
        if value || argument.starts_with('-') {
            options.push(argument);
        } else {
            filters.push(argument);
        }
    }
    // A single filter can be left to `libtest_mimic`.
    if let [one] = filters.as_slice() {
        options.push(one.clone());
    }
    (Arguments::from_iter(options), filters)
}

/// Whether the filters select the test with this name.
fn chosen(name: &str, arguments: &Arguments, filters: &[String]) -> bool {
    let matches = |pattern: &String| {
        if arguments.exact { name == pattern } else { name.contains(pattern.as_str()) }
    };
    filters.is_empty() || filters.iter().any(matches)
}

fn run(
    targets: &[Arc<dyn Target>],
    arguments: &Arguments,
    filters: &[String],
) -> Result<Held, String> {
    let mut arguments = arguments.clone();
    let jobs = arguments.test_threads.and_then(NonZeroUsize::new);
    // There are as many threads as cases ever run at once. The schedule decides which cases run.
    let schedule = Arc::new(Schedule::new(jobs));
    arguments.test_threads = Some(schedule.most());
    let (seed, runtime) = begun()?;
    if targets.is_empty() {
        return Err("no target was given, so no store would be tested".to_owned());
    }
    let claims = vetted(targets)?;
    let names = |target: &dyn Target| {
        let target = target.name().to_owned();
        let names = registry().map(move |case| format!("{target}::{}", case.name()));
        names.filter(|name| chosen(name, &arguments, filters))
    };
    prepared(&arguments, &runtime, targets, names)?;
    let cases: Vec<_> = registry().collect();
    let inconclusive = Arc::new(AtomicUsize::new(0));
    let trials = in_order(&cases, targets)
        .into_iter()
        .map(|(case, target)| trial(case, target, seed, &runtime, &schedule, &inconclusive));
    let trials = trials.filter(|trial| chosen(trial.name(), &arguments, filters));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if arguments.list {
        return Ok(Held::All);
    }
    runtime.block_on(run::finish(targets))?;
    for (target, (before, after)) in targets.iter().zip(claims.iter().zip(vetted(targets)?)) {
        if let Some(changed) = before.changed(&after) {
            return Err(format!("{}: {changed}", target.name()));
        }
    }
    let inconclusive = inconclusive.load(Ordering::Relaxed);
    Ok(if conclusion.has_failed() {
        Held::NotAll
    } else if inconclusive > 0 {
        anstream::eprintln!("INCONCLUSIVE: {}", report::inconclusive(inconclusive));
        Held::Unknown
    } else {
        Held::All
    })
}

/// The seed of the run, and the runtime on which the tests run.
pub(crate) fn begun() -> Result<(u64, Arc<Runtime>), String> {
    let runtime = Arc::new(runtime()?);
    // The runtime is never dropped: dropping it would wait for ever for a thread that a store
    // blocks.
    std::mem::forget(Arc::clone(&runtime));
    soak::set_from_environment()?;
    Ok((seed::from_environment()?, runtime))
}

/// Starts the runtime on which the cases run.
pub(crate) fn runtime() -> Result<Runtime, String> {
    Runtime::new().map_err(|error| format!("cannot start a tokio runtime: {error}"))
}

/// Prepares each target of which a test is to run.
///
/// # Errors
/// A target lacks what it needs, such as a server; the error says how to get it. The error ends the
/// run, which is clearer than a failure of every test.
fn prepared<Names: Iterator<Item = String>>(
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
        runtime.block_on(run::prepare(target))?;
    }
    Ok(())
}

fn trial(
    case: &'static Case,
    target: &Arc<dyn Target>,
    seed: u64,
    runtime: &Arc<Runtime>,
    schedule: &Arc<Schedule>,
    inconclusive: &Arc<AtomicUsize>,
) -> Trial {
    let name = format!("{}::{}", target.name(), case.name());
    let unclaimed = run::declined(case, &**target).is_some();
    let (target, runtime) = (Arc::clone(target), Arc::clone(runtime));
    let (schedule, inconclusive) = (Arc::clone(schedule), Arc::clone(inconclusive));
    let test = move || {
        let outcome = runtime.block_on(
            schedule.run(case, &target, seed, |begins| tell(case, target.name(), begins)),
        );
        match outcome.status {
            Status::Pass => Ok(Completion::Completed),
            Status::Fail(failed) => {
                let told = report::failure(case, target.name(), &failed);
                if failed.blocked {
                    end_blocked(&told);
                }
                Err(Failed::from(told))
            }
            Status::Inconclusive(failed) => {
                inconclusive.fetch_add(1, Ordering::Relaxed);
                anstream::eprintln!("{}", report::failure(case, target.name(), &failed));
                Ok(Completion::ignored_with("inconclusive: the machine was starved"))
            }
            // Selected by `--ignored` or `--include-ignored`: the need is still not claimed.
            Status::NotClaimed(need, reason) if unclaimed => {
                Ok(Completion::ignored_with(format!("not claimed: {need}: {reason}")))
            }
            Status::NotClaimed(need, reason) => {
                let said = format!("{need} was claimed before, and is now declined: {reason}");
                Err(Failed::from(said))
            }
        }
    };
    Trial::ignorable_test(name, test).with_ignored_flag(unclaimed)
}

/// Says on standard error that a case begins again, and why.
pub(crate) fn tell(case: &Case, store: &str, begins: Begins) {
    if let Begins::Again { slower } = begins {
        anstream::eprintln!("{}", report::again(case, store, slower));
    }
}

/// Ends the run after a case that blocks a thread for ever. Other cases would hang because of that
/// thread, and be blamed.
pub(crate) fn end_blocked(told: &str) -> ! {
    anstream::eprintln!(
        "\n{told}\nFAILED: the run ends here, because one of its threads is blocked for ever"
    );
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Arguments, Vec<String>) {
        arguments(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn any_number_of_filters_is_accepted() {
        let (arguments, filters) = read("suite --skip one two --exact three --test-threads 3");
        assert_eq!((arguments.skip, arguments.test_threads), (vec!["one".to_owned()], Some(3)));
        assert_eq!((filters, arguments.filter), (vec!["two".into(), "three".into()], None));
        let (arguments, filters) = read("suite --nocapture one");
        assert!(chosen("a one", &arguments, &filters) && !chosen("a two", &arguments, &filters));
        assert_eq!(arguments.filter.as_deref(), Some("one"));
        let (arguments, filters) = read("suite --exact one two");
        assert!(chosen("two", &arguments, &filters) && !chosen("a two", &arguments, &filters));
        assert!(read("suite").1.is_empty());
    }
}
