//! The command `controls`: runs every broken store, and prints the case that catches it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;

use super::Suite;
use super::args::ControlsArgs;
use crate::case::{Case, registry};
use crate::controls::{self, Control, Kill, Survived};
use crate::report::{self, Caught};
use crate::schedule::Schedule;
use crate::{harness, seed};

pub(super) fn run(suite: &Suite, args: &ControlsArgs) -> Result<ExitCode, String> {
    let asked = |name: &str| {
        args.names.is_empty() || args.names.iter().any(|part| name.contains(part.as_str()))
    };
    let mut names = suite.controls.iter().map(|control| control.name).collect::<Vec<_>>();
    names.extend(suite.other_controls.iter().map(|control| control.name));
    for part in &args.names {
        if !names.iter().any(|name| name.contains(part.as_str())) {
            return Err(format!("no broken store's name contains {part:?}; --broken lists them"));
        }
    }
    let controls: Vec<_> =
        suite.controls.iter().filter(|control| asked(control.name)).cloned().collect();
    let seed = args.seed.map_or_else(seed::from_environment, Ok)?;
    // These checks run before the runtime starts, since they may start a runtime of their own.
    let others = suite.other_controls.iter().filter(|other| !args.cases && asked(other.name));
    let others: Vec<_> = others.map(|other| hunted_otherwise(other, seed)).collect();
    let runtime = harness::runtime()?;
    controls::quiet_panics();
    runtime.block_on(async {
        let code = if args.cases {
            by_case(&controls, seed).await
        } else {
            by_control(&controls, others, seed).await
        };
        for control in &controls {
            control.target.finish().await;
        }
        Ok(code)
    })
}

fn hunted_otherwise(other: &super::OtherControl, seed: u64) -> Caught {
    let began = Instant::now();
    let by = (other.hunt)(seed);
    let took = began.elapsed();
    anstream::eprintln!("{} {}", other.name, by.as_deref().unwrap_or("✗"));
    Caught { name: other.name, clause: other.clause, by, took }
}

/// Runs `hunt` on all of these controls, as many at once as the schedule allows, and reports each
/// as it ends.
async fn hunted<T>(
    controls: &[Control],
    hunt: impl AsyncFn(&Control) -> T,
    tell: impl Fn(&Control, &T),
) -> Vec<T> {
    let mut done: Vec<_> = stream::iter(controls.iter().enumerate())
        .map(|(number, control)| {
            let (hunt, tell) = (&hunt, &tell);
            async move {
                let outcome = hunt(control).await;
                tell(control, &outcome);
                (number, outcome)
            }
        })
        .buffer_unordered(Schedule::new(None).most())
        .collect()
        .await;
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn by_control(controls: &[Control], others: Vec<Caught>, seed: u64) -> ExitCode {
    let began = Instant::now();
    let hunt = async |control: &Control| controls::hunt(control, seed).await;
    let tell = |control: &Control, outcome: &Result<Kill, Survived>| match outcome {
        Ok(kill) => {
            let (case, took) = (kill.case.name(), report::human(kill.took));
            anstream::eprintln!("{} {case} {took}", control.name);
        }
        Err(survived) => anstream::eprintln!("✗ {survived}"),
    };
    let outcomes = hunted(controls, hunt, tell).await;
    let rows: Vec<_> = controls.iter().zip(&outcomes).map(Caught::from).chain(others).collect();
    anstream::println!("{}\n", report::controls(&rows));
    let survivors: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    for survived in &survivors {
        anstream::println!("✗ {survived} (seed {seed:#x})");
    }
    let caught = rows.iter().filter(|row| row.by.is_some()).count();
    let (all, took) = (rows.len(), report::human(began.elapsed()));
    anstream::println!("CAUGHT {caught} of {all} · seed {seed:#x} · {took}");
    if caught == all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints, for each case, the controls that the case catches by a clause that it cites.
async fn by_case(controls: &[Control], seed: u64) -> ExitCode {
    let hunt = async |control: &Control| controls::all_kills(control, seed).await;
    let tell = |control: &Control, kills: &Vec<&'static Case>| {
        let kills: Vec<_> = kills.iter().map(|case| case.name()).collect();
        anstream::eprintln!("{} {}", control.name, kills.join(" "));
    };
    let kills = hunted(controls, hunt, tell).await;
    let mut caught: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (control, kills) in controls.iter().zip(kills) {
        for case in kills {
            caught.entry(case.name()).or_default().push(control.name);
        }
    }
    let rows: Vec<_> =
        registry().map(|case| (case, caught.remove(&case.name()).unwrap_or_default())).collect();
    anstream::println!("{}\n", report::cases_with_controls(&rows));
    let idle = rows.iter().filter(|(_, controls)| controls.is_empty()).count();
    anstream::println!("{} cases, {idle} of which catch none of {}", rows.len(), controls.len());
    ExitCode::SUCCESS
}
