//! The program behind `cargo conformance`: the suite's runner on the stores that ship here.

mod simulate;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use membership_conformance::report::refuse;
use membership_conformance::runner::{self, OtherControl, Suite};

use crate::simulate::broken;
use crate::targets::Provision;
use crate::{defects, targets};

/// Tests every store that ships here against the contract, and prints which cases passed
#[derive(Debug, Parser)]
#[command(
    name = "conformance",
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  cargo conformance                              every case on every store
  cargo conformance --store sqlite               one store
  cargo conformance --filter keys::              one group
  cargo conformance --filter a_repeated_rekey_is_stale --seed 0x2a
                                                 one case, as it ran with that seed
  cargo conformance --clauses                    which cases check which clause
  cargo conformance --store folds_case_in_room_ids
                                                 a store broken on purpose: see it caught
  cargo conformance controls                     which case catches which broken store
  cargo conformance --store jetstream-r1 --nats docker
                                                 on a server in a container
  cargo conformance --filter histories:: --soak 1h
                                                 many clients at once, for an hour
  cargo conformance replay FILE                  a violation that was found, judged again
  cargo conformance simulate                     the JetStream store on simulated servers
  cargo conformance --json out.json --junit out.xml
  RUST_LOG=membership=debug cargo conformance --store jetstream-r1 --filter a_repeated_rekey_is_stale
                                                 what the store does in that case

jetstream-r5 and naive-kv run only when they are named.

Exit code: 0 all claimed cases passed, 1 a case failed, 2 it could not run, 3 none failed, but some were
inconclusive: their deadlines passed each time while the machine was starved.
Colours: on a terminal only; NO_COLOR=1 turns them off."
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    options: runner::Options,

    /// How to find NATS servers: binary, docker, url or auto
    #[cfg(unix)]
    #[arg(long, value_name = "WAY", default_value_t)]
    nats: Provision,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Suite(runner::Command),
    Simulate(simulate::Simulate),
}

/// The binary `conformance`. Exit codes are those of [`runner::main`].
#[must_use]
pub fn main() -> ExitCode {
    // The child process of a case emits no events: nobody reads its standard error while it runs, so a full pipe would
    // stop it.
    if let Some(code) = suite(Provision::default()).child() {
        return code;
    }
    let args = Args::parse();
    if let Err(why) = trace::show() {
        return refuse(&why);
    }
    #[cfg(unix)]
    let suite = suite(args.nats);
    #[cfg(not(unix))]
    let suite = suite(Provision::default());
    match &args.command {
        None => runner::run(&suite, &args.options, None),
        Some(Command::Suite(command)) => runner::run(&suite, &args.options, Some(command)),
        Some(Command::Simulate(asked)) => simulate::run(asked),
    }
}

fn suite(provision: Provision) -> Suite {
    let mut suite = Suite::new("cargo conformance", targets::shipped(provision));
    suite.on_request = targets::on_request(provision);
    suite.controls.extend(defects::all());
    suite.also = Some(simulate::some);
    suite.other_controls = broken::all().into_iter().map(simulated).collect();
    suite
}

/// A control that is a broken client, which only simulated servers can catch.
fn simulated(broken: broken::Broken) -> OtherControl {
    OtherControl {
        name: broken.name,
        clause: broken.clause,
        hunt: Box::new(move |seed| broken.hunt(seed).map(|caught| caught.by)),
    }
}
