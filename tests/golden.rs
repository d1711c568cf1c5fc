//! Compares every store's transcripts of the golden scenarios with one file a scenario.
//!
//! A file that is missing or differs fails the test. `cargo insta review`, or `INSTA_UPDATE=always
//! cargo test --test golden`, accepts the new transcripts.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use membership_conformance::golden::{Scenario, all, play};
use membership_conformance::harness::prepared;
use membership_conformance::{Target, targets};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/golden");

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => {
            eprintln!("cannot start a tokio runtime: {error}");
            return ExitCode::from(2);
        }
    };
    let mut trials = vec![Trial::test("golden::every_file_has_a_scenario", no_file_is_left_over)];
    let targets = targets::shipped();
    let names = |target: &dyn Target| {
        let target = target.name().to_owned();
        all().into_iter().map(move |scenario| format!("{target}::golden::{}", scenario.name))
    };
    if let Err(why) = prepared(&arguments, &runtime, &targets, names) {
        eprintln!("error: {why}");
        return ExitCode::from(2);
    }
    for target in &targets {
        for scenario in all() {
            let name = format!("{}::golden::{}", target.name(), scenario.name);
            let (runtime, target) = (Arc::clone(&runtime), Arc::clone(target));
            trials.push(Trial::test(name, move || {
                let told = runtime.block_on(play(&scenario, &*target));
                compare(&scenario, &*target, &told.map_err(|error| error.to_string())?)
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for target in &targets {
        runtime.block_on(target.finish());
    }
    conclusion.exit_code()
}

fn compare(scenario: &Scenario, target: &dyn Target, told: &str) -> Result<(), Failed> {
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(FILES);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let assert = || settings.bind(|| insta::assert_snapshot!(scenario.name, told));
    catch_unwind(AssertUnwindSafe(assert)).map_err(|_| {
        let file = format!("fixtures/golden/{}.snap", scenario.name);
        Failed::from(format!(
            "{} does not do what {file} says; if that is intended, bless it with cargo insta review",
            target.name()
        ))
    })
}

fn no_file_is_left_over() -> Result<(), Failed> {
    let known: BTreeSet<_> = all().iter().map(|s| format!("{}.snap", s.name)).collect();
    for file in Path::new(FILES).read_dir()? {
        let name = file?.file_name().to_string_lossy().into_owned();
        if !known.contains(&name) && !name.ends_with(".snap.new") {
            return Err(format!("fixtures/golden/{name} belongs to no scenario: remove it").into());
        }
    }
    Ok(())
}
