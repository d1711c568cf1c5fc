use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::{seed, soak};

/// Tests stores against the contract, and prints which cases passed
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) options: Options,
}

const AFTER_HELP: &str = "\
Examples (ARGUMENTS of this program):
  --store NAME                     one store
  --filter keys::                  one group
  --filter a_repeated_rekey_is_stale --seed 0x2a
                                   one case, as it ran with that seed
  --clauses                        which cases check which clause
  --store folds_case_in_room_ids   a store broken on purpose: see it caught
  --filter histories:: --soak 1h   many clients at once, for an hour
  --json out.json --junit out.xml  reports for machines
  controls                         which case catches which broken store
  replay FILE                      a violation that was found, judged again

Exit code: 0 all claimed cases passed, 1 a case failed, 2 it could not run, 3 none failed, but some were
inconclusive: their deadlines passed each time while the machine was starved.
Colours: on a terminal only; NO_COLOR=1 turns them off.";

/// What to run, and how.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run this store only; may be given several times [default: all but those that run on request]
    #[arg(long, value_name = "NAME")]
    pub(super) store: Vec<String>,

    /// Run only the cases whose name contains this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(super) filter: Vec<String>,

    /// List the cases and what they need, and run none
    #[arg(long)]
    pub(super) list: bool,

    /// List the clauses of the contract with their cases, and run none
    #[arg(long)]
    pub(super) clauses: bool,

    /// List the deliberately broken stores, which --store runs too, and run none
    #[arg(long)]
    pub(super) broken: bool,

    /// The seed of all randomness [default: MEMBERSHIP_SEED, or a new one]
    #[arg(long, value_name = "N", value_parser = seed::parse)]
    pub(super) seed: Option<u64>,

    /// How long each case of the group `histories` plays, all of them side by side: 90s, 10m, 1h
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = soak::parse)]
    pub(super) soak: Duration,

    /// How many cases run at once [default: two a core; four where they mostly wait]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<NonZeroUsize>,

    /// Write the results to this file as JSON
    #[arg(long, value_name = "PATH")]
    pub(super) json: Option<PathBuf>,

    /// Write the results to this file as JUnit XML
    #[arg(long, value_name = "PATH")]
    pub(super) junit: Option<PathBuf>,
}

/// The commands besides a run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Judges a saved history again, which a case of the group `histories` has written: exit code 1
    /// if no order explains it
    Replay {
        /// The file, which the report of the failure names
        file: PathBuf,
    },
    /// Runs the suite on every deliberately broken store, and prints the case that catches each
    /// store by the clause that the store breaks
    #[command(alias = "mutants")]
    Controls(ControlsArgs),
}

/// Which broken stores to run.
#[derive(Debug, clap::Args)]
pub struct ControlsArgs {
    /// Run only the broken stores whose names contain one of these texts
    pub(super) names: Vec<String>,

    /// Print the cases instead, each with all broken stores that it catches
    #[arg(long)]
    pub(super) cases: bool,

    /// The seed of all randomness [default: MEMBERSHIP_SEED, or a new one]
    #[arg(long, value_name = "N", value_parser = seed::parse)]
    pub(super) seed: Option<u64>,
}
