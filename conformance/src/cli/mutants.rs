//! `conformance mutants`: every broken store, and the case that catches it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use futures::StreamExt;
use futures::stream;

use super::args::MutantsArgs;
use crate::case::{Case, registry};
use crate::gallery::{self, Kill, Mutant, Survived};
use crate::gate::Gate;
use crate::report::{self, CaughtRow};
use crate::{harness, seed};

/// Those that only simulated servers bring to light.
#[cfg(feature = "jetstream")]
mod simulated {
    use std::time::Instant;

    use crate::report::CaughtRow;
    use crate::simulate::broken;

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        broken::all().into_iter().map(|broken| broken.name)
    }

    pub(super) fn hunted(names: &[String], seed: u64) -> Vec<CaughtRow> {
        let mut all = broken::all();
        if !names.is_empty() {
            all.retain(|broken| names.iter().any(|name| broken.name.contains(name.as_str())));
        }
        let hunted = all.into_iter().map(|broken| {
            let began = Instant::now();
            let by = broken.hunt(seed).map(|caught| caught.by);
            let took = began.elapsed();
            anstream::eprintln!("{} {}", broken.name, by.as_deref().unwrap_or("✗"));
            CaughtRow { name: broken.name, clause: broken.clause, by, took }
        });
        hunted.collect()
    }
}

#[cfg(not(feature = "jetstream"))]
mod simulated {
    use crate::report::CaughtRow;

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        std::iter::empty()
    }

    pub(super) fn hunted(_: &[String], _: u64) -> Vec<CaughtRow> {
        Vec::new()
    }
}

pub(super) fn run(args: &MutantsArgs) -> Result<ExitCode, String> {
    let mutants = chosen(&args.names)?;
    let seed = args.seed.map_or_else(seed::from_environment, Ok)?;
    // Those bring a runtime of their own.
    let simulated = if args.cases { Vec::new() } else { simulated::hunted(&args.names, seed) };
    let runtime = harness::runtime()?;
    gallery::quiet_panics();
    runtime.block_on(async {
        let code = if args.cases {
            by_case(&mutants, seed).await
        } else {
            by_mutant(&mutants, simulated, seed).await
        };
        for mutant in &mutants {
            mutant.target.finish().await;
        }
        Ok(code)
    })
}

fn chosen(names: &[String]) -> Result<Vec<Mutant>, String> {
    let mut mutants = gallery::all();
    for name in names {
        let gallery = mutants.iter().map(|mutant| mutant.name);
        if !gallery.chain(simulated::names()).any(|known| known.contains(name.as_str())) {
            return Err(format!("no broken store's name contains {name:?}; --broken lists them"));
        }
    }
    if !names.is_empty() {
        mutants.retain(|mutant| names.iter().any(|name| mutant.name.contains(name.as_str())));
    }
    Ok(mutants)
}

/// Hunts all of them, as many at once as may run beside one another, and tells of each on the way.
async fn hunted<T>(
    mutants: &[Mutant],
    hunt: impl AsyncFn(&Mutant) -> T,
    tell: impl Fn(&Mutant, &T),
) -> Vec<T> {
    let mut done: Vec<_> = stream::iter(mutants.iter().enumerate())
        .map(|(number, mutant)| {
            let (hunt, tell) = (&hunt, &tell);
            async move {
                let outcome = hunt(mutant).await;
                tell(mutant, &outcome);
                (number, outcome)
            }
        })
        .buffer_unordered(Gate::most(None))
        .collect()
        .await;
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn by_mutant(mutants: &[Mutant], simulated: Vec<CaughtRow>, seed: u64) -> ExitCode {
    let began = std::time::Instant::now();
    let hunt = async |mutant: &Mutant| gallery::hunt(mutant, seed).await;
    let tell = |mutant: &Mutant, outcome: &Result<Kill, Survived>| match outcome {
        Ok(kill) => {
            let (case, took) = (kill.case.name(), report::human(kill.took));
            anstream::eprintln!("{} {case} {took}", mutant.name);
        }
        Err(survived) => anstream::eprintln!("✗ {survived}"),
    };
    let outcomes = hunted(mutants, hunt, tell).await;
    let rows: Vec<_> =
        mutants.iter().zip(&outcomes).map(CaughtRow::from).chain(simulated).collect();
    anstream::println!("{}\n", report::mutants(&rows));
    let survivors: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    for survived in &survivors {
        anstream::println!("✗ {survived} (seed {seed:#x})");
    }
    let caught = rows.iter().filter(|row| row.by.is_some()).count();
    let (all, took) = (rows.len(), report::human(began.elapsed()));
    anstream::println!("CAUGHT {caught} of {all} · seed {seed:#x} · {took}");
    if caught == all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Which mutants each case catches by a clause it cites.
async fn by_case(mutants: &[Mutant], seed: u64) -> ExitCode {
    let hunt = async |mutant: &Mutant| gallery::all_kills(mutant, seed).await;
    let tell = |mutant: &Mutant, kills: &Vec<&'static Case>| {
        let kills: Vec<_> = kills.iter().map(|case| case.name()).collect();
        anstream::eprintln!("{} {}", mutant.name, kills.join(" "));
    };
    let kills = hunted(mutants, hunt, tell).await;
    let mut caught: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (mutant, kills) in mutants.iter().zip(kills) {
        for case in kills {
            caught.entry(case.name()).or_default().push(mutant.name);
        }
    }
    let rows: Vec<_> =
        registry().map(|case| (case, caught.remove(&case.name()).unwrap_or_default())).collect();
    anstream::println!("{}\n", report::cases_with_mutants(&rows));
    let idle = rows.iter().filter(|(_, mutants)| mutants.is_empty()).count();
    anstream::println!("{} cases, {idle} of which catch none of {}", rows.len(), mutants.len());
    ExitCode::SUCCESS
}
