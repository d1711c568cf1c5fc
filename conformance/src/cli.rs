//! The runner: the suite on the stores that ship here, and what came of it.

mod args;
mod mutants;
mod progress;
mod schedule;
#[cfg(feature = "jetstream")]
mod simulate;

use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::case::{Case, registry};
use crate::child;
use crate::history::Saved;
use crate::report::{self, refuse};
use crate::target::Target;
use crate::vet::vetted;
use crate::{contract, gallery, harness, outer, run, seed, soak, targets};
use args::{Args, Command};

/// The binary `conformance`. Exit code 0: all claimed cases passed; 1: a case failed; 2: it could
/// not run; 3: none failed, and some were inconclusive.
#[must_use]
pub fn main() -> ExitCode {
    let broken = gallery::all().into_iter().map(|mutant| mutant.target);
    let known: Vec<_> = targets::all().into_iter().chain(broken).collect();
    if let Some(code) = child::run_if_asked(&known) {
        return code;
    }
    match asked(&Args::parse()) {
        Ok(code) => code,
        Err(why) => refuse(&why),
    }
}

fn asked(args: &Args) -> Result<ExitCode, String> {
    match &args.command {
        Some(Command::Replay { file }) => return replay(file),
        #[cfg(feature = "jetstream")]
        Some(Command::Simulate(simulate)) => return simulate::run(simulate),
        Some(Command::Mutants(args)) => return mutants::run(args),
        None => {}
    }
    if args.clauses {
        anstream::println!("{}", report::clauses());
        return Ok(ExitCode::SUCCESS);
    }
    if args.broken {
        anstream::println!("{}", report::broken(&gallery::all()));
        return Ok(ExitCode::SUCCESS);
    }
    let cases = chosen_cases(&args.filter)?;
    if args.list {
        anstream::println!("{}", report::cases(cases.iter().copied()));
        return Ok(ExitCode::SUCCESS);
    }
    Ok(outer::supervised(|| match all_held(args, &cases) {
        Ok((true, 0)) => 0,
        Ok((true, _)) => harness::INCONCLUSIVE,
        Ok((false, _)) => 1,
        Err(why) => {
            refuse(&why);
            2
        }
    }))
}

/// Runs these cases, tells what came of it, and whether none of them failed and how many were inconclusive.
fn all_held(args: &Args, cases: &[&'static Case]) -> Result<(bool, usize), String> {
    let targets = chosen_targets(args)?;
    let json = args.json.as_deref().map(Document::create).transpose()?;
    let junit = args.junit.as_deref().map(Document::create).transpose()?;
    let seed = args.seed.map_or_else(seed::from_environment, Ok)?;
    soak::set(args.soak);
    // Never dropped: that would wait for a thread that a store blocks for ever.
    let runtime = ManuallyDrop::new(harness::runtime()?);
    vetted(&targets)?;

    let outside = runtime.block_on(prepared(&targets))?;
    anstream::println!(
        "membership conformance   contract {}   seed {seed:#x}",
        contract::version()
    );
    for found in &outside {
        anstream::println!("{found}");
    }
    anstream::println!();
    let results = runtime.block_on(schedule::run(cases, &targets, outside, seed, args.jobs))?;

    anstream::println!("{}\n", report::matrix(&results));
    let unclaimed = report::not_claimed(&results);
    if !unclaimed.is_empty() {
        anstream::println!("{unclaimed}");
    }
    let reached = report::reached(&results);
    if !reached.is_empty() {
        anstream::println!("{reached}");
    }
    for failure in results.failures() {
        anstream::println!("{failure}");
    }
    let simulated = simulated(args, seed);
    anstream::println!("{}", report::verdict(&results));

    if let Some(document) = json {
        document.write(&report::json(&results).map_err(|error| error.to_string())?)?;
    }
    if let Some(document) = junit {
        document.write(&report::junit(&results).map_err(|error| error.to_string())?)?;
    }
    let tally = results.tally();
    if tally.inconclusive > 0 {
        anstream::println!("{}", report::inconclusive(tally.inconclusive));
    }
    Ok((tally.failed == 0 && simulated, tally.inconclusive))
}

/// A short run on simulated servers, where everything is run; whether it held.
#[cfg(feature = "jetstream")]
fn simulated(args: &Args, seed: u64) -> bool {
    if !args.store.is_empty() || !args.filter.is_empty() {
        return true;
    }
    let (said, held) = simulate::some(seed, args.jobs);
    anstream::println!("{said}");
    held
}

#[cfg(not(feature = "jetstream"))]
fn simulated(_: &Args, _: u64) -> bool {
    true
}

fn replay(file: &Path) -> Result<ExitCode, String> {
    let saved = Saved::read(file)?;
    let calls = saved.whole.calls.len();
    anstream::println!("{} · seed {} · {calls} calls\n", saved.store, saved.seed);
    let Some(violation) = saved.replay() else {
        anstream::println!("PASSED: one order explains every answer");
        return Ok(ExitCode::SUCCESS);
    };
    anstream::println!("{violation}\nFAILED: no order explains every answer");
    Ok(ExitCode::FAILURE)
}

fn chosen_cases(filters: &[String]) -> Result<Vec<&'static Case>, String> {
    for filter in filters {
        if !registry().any(|case| case.name().contains(filter)) {
            return Err(format!("no case's name contains {filter:?}; --list shows them all"));
        }
    }
    let chosen = |case: &&Case| {
        let name = case.name();
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter))
    };
    Ok(registry().filter(chosen).collect())
}

/// The stores that run by default, or those that are named: a broken one of the gallery is run when
/// somebody asks for it.
fn chosen_targets(args: &Args) -> Result<Vec<Arc<dyn Target>>, String> {
    let shipped = args.targets();
    if args.store.is_empty() {
        return Ok(shipped.into_iter().filter(|target| !targets::is_extra(&**target)).collect());
    }
    let broken = gallery::all().into_iter().map(|mutant| mutant.target);
    let known: Vec<_> = shipped.iter().cloned().chain(broken).collect();
    let find = |name: &String| {
        known.iter().find(|target| target.name() == name).cloned().ok_or_else(|| {
            let shipped: Vec<_> = shipped.iter().map(|target| target.name()).collect();
            let shipped = shipped.join(", ");
            format!(
                "no store {name:?}; there are {shipped}, and the broken ones that --broken lists"
            )
        })
    };
    args.store.iter().map(find).collect()
}

/// Whether `--store` takes this name.
pub(crate) fn knows(store: &str) -> bool {
    targets::all().iter().any(|target| target.name() == store)
        || gallery::all().iter().any(|mutant| mutant.name == store)
}

/// What the targets found outside, each thing once. One that lacks something ends the run here: a
/// store that could not be tried must not look like one that held.
async fn prepared(targets: &[Arc<dyn Target>]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for target in targets {
        let said = run::prepare(target).await?;
        if let Some(said) = said.filter(|said| !found.contains(said)) {
            found.push(said);
        }
    }
    Ok(found)
}

/// A report's file, opened before the run, so that a wrong path does not cost one.
struct Document<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Document<'a> {
    fn create(path: &'a Path) -> Result<Self, String> {
        match File::create(path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(format!("cannot write {}: {error}", path.display())),
        }
    }

    fn write(mut self, text: &str) -> Result<(), String> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}
