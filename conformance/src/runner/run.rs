//! A run of cases on targets, with its progress, its matrix and its reports.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;

use super::Suite;
use super::args::Options;
use super::progress::Progress;
use crate::case::Case;
use crate::harness::{self, Held, end_blocked};
use crate::report::{self, Results};
use crate::run::{self, Outcome, Status};
use crate::schedule::{Schedule, in_order};
use crate::target::Target;
use crate::vet::vetted;
use crate::{contract, seed, soak};

/// Runs these cases, and prints and writes the results.
pub(super) fn held(
    suite: &Suite,
    options: &Options,
    cases: &[&'static Case],
) -> Result<Held, String> {
    let targets = suite.chosen(&options.store)?;
    let json = options.json.as_deref().map(Document::create).transpose()?;
    let junit = options.junit.as_deref().map(Document::create).transpose()?;
    let seed = options.seed.map_or_else(seed::from_environment, Ok)?;
    soak::set(options.soak);
    // The runtime is never dropped: dropping it would wait for ever for a thread that a store
    // blocks.
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
    let schedule = Schedule::new(options.jobs);
    let results = runtime.block_on(results(cases, &targets, outside, seed, &schedule))?;

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
    // The further check is made only if every case runs on every default target.
    let also = suite.also.filter(|_| options.store.is_empty() && options.filter.is_empty());
    let (said, also) = also.map_or((String::new(), true), |also| also(seed, options.jobs));
    if !said.is_empty() {
        anstream::println!("{said}");
    }
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
    Ok(match (tally.failed == 0 && also, tally.inconclusive) {
        (false, _) => Held::NotAll,
        (true, 0) => Held::All,
        (true, _) => Held::Unknown,
    })
}

/// Prepares the targets. Returns what they found, such as servers, each only once. A target that
/// lacks something ends the run here. Otherwise a store that could not be tested would look like
/// one that passed.
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

async fn results(
    cases: &[&'static Case],
    targets: &[Arc<dyn Target>],
    servers: Vec<String>,
    seed: u64,
    schedule: &Schedule,
) -> Result<Results, String> {
    let began = Instant::now();
    let stores: Vec<_> = targets.iter().map(|target| target.name().to_owned()).collect();
    let progress = Progress::new(cases, &stores);

    let one = |(case, target): (&'static Case, &Arc<dyn Target>)| {
        let (progress, target) = (&progress, Arc::clone(target));
        async move {
            let tell = |begins| progress.begin(case, target.name(), begins);
            let outcome = schedule.run(case, &target, seed, tell).await;
            progress.end(case, target.name(), &outcome);
            if let Status::Fail(report) = &outcome.status
                && report.blocked
            {
                end_blocked(&report::failure(case, target.name(), report));
            }
            ((case.name(), target.name().to_owned()), outcome)
        }
    };
    let runs = stream::iter(in_order(cases, targets)).map(one);
    let runs = runs.buffer_unordered(schedule.most());
    let mut done: BTreeMap<(String, String), Outcome> = runs.collect().await;
    let finished = run::finish(targets).await;
    progress.finish();
    finished?;

    let mut row = |case: &'static Case| {
        let of = |store: &String| done.remove(&(case.name(), store.clone()));
        (case, stores.iter().filter_map(of).collect())
    };
    let cases = cases.iter().map(|case| row(case)).collect();
    Ok(Results { stores, cases, servers, seed, took: began.elapsed() })
}

/// The file of a report. The file is opened before the run, so that a wrong path is noticed at
/// once.
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
