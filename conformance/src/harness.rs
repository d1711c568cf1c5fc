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
use crate::target::Target;
use crate::vet::vetted;

/// Runs the suite on `targets` as `cargo test` and `cargo nextest run` expect it; arguments are
/// those of any Rust test binary. Tests are named `store::group::title`; what a target does not
/// claim is listed as ignored.
///
/// The tests run in a process of their own, which this one starts and waits for: code that a store brings
/// may end the process, and that must not look like the end of the run.
///
/// A case whose deadline passed while the machine was starved runs again, up to twice and beside no other. If its
/// deadline passes each time, it is inconclusive: it is listed as ignored, and the exit code is 3 if nothing
/// failed.
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
    // Names are told by this process: no store is asked anything for them.
    if arguments.list { ExitCode::from(run()) } else { outer::supervised(run) }
}

/// The exit code of a test binary of which a test failed.
const FAILED: u8 = 101;
/// The exit code of one that could run nothing.
const REFUSED: u8 = 2;
/// The exit code of a run in which nothing failed, and something remained inconclusive.
const INCONCLUSIVE: u8 = 3;

/// The exit code of a run that came to this, `failed` if a case failed. Says in one line why nothing was run.
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

/// Whether all the cases held that were run.
pub(crate) enum Held {
    All,
    NotAll,
    /// None failed, and some were inconclusive.
    Unknown,
}

/// The arguments, and the filters among them: any number of them, as Rust's own test binaries take,
/// of which `libtest_mimic` takes one.
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
    // One of them it shows as it always did.
    if let [one] = filters.as_slice() {
        options.push(one.clone());
    }
    (Arguments::from_iter(options), filters)
}

/// Whether a test of this name is asked for.
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
    // Threads for as many as ever run at once; the schedule holds back those that may not run yet.
    arguments.test_threads = Some(Schedule::most(jobs));
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
    let schedule = Arc::new(Schedule::new(jobs));
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

/// The seed of the environment, and what the tests run on.
pub(crate) fn begun() -> Result<(u64, Arc<Runtime>), String> {
    let runtime = Arc::new(runtime()?);
    // Never dropped: that would wait for a thread that a store blocks for ever.
    std::mem::forget(Arc::clone(&runtime));
    Ok((seed::from_environment()?, runtime))
}

/// What the cases run on.
pub(crate) fn runtime() -> Result<Runtime, String> {
    Runtime::new().map_err(|error| format!("cannot start a tokio runtime: {error}"))
}

/// Has each target of which a test is to run look for what it needs. What is missing must end the
/// run, with how to get it, rather than fail each test for itself.
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
            // Asked for with --ignored or --include-ignored: it is not claimed then, either.
            Status::NotClaimed(need, reason) if unclaimed => {
                Ok(Completion::ignored_with(format!("not claimed: {need}: {reason}")))
            }
            Status::NotClaimed(need, reason) => {
                let said = format!("{need} was claimed, and is not any more: {reason}");
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

/// Ends the run after a case that blocks a thread for ever: those that run beside it and after it would hang
/// for that, and be blamed.
pub(crate) fn end_blocked(told: &str) -> ! {
    anstream::eprintln!(
        "\n{told}\nFAILED: the run ends here, for a thread of it is blocked for ever"
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
    fn any_number_of_filters_is_taken() {
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
