use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::target::Target;
use crate::targets;
use crate::{seed, soak};

/// Holds every store that ships here to the contract, and prints what held.
#[derive(Debug, Parser)]
#[command(
    name = "conformance",
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  cargo conformance                              every case on every store
  cargo conformance --store sqlite               one store
  cargo conformance --filter keys::              one group
  cargo conformance --filter one_of_many --seed 0x2a
                                                 one case, as it ran with that seed
  cargo conformance --clauses                    which cases check which clause
  cargo conformance --store folds_case_in_room_ids
                                                 a store broken on purpose: see it caught
  cargo conformance mutants                      which case catches which broken store
  cargo conformance --store jetstream-r1 --nats docker
                                                 on a server in a container
  cargo conformance --filter histories:: --soak 1h
                                                 many clients at once, for an hour
  cargo conformance replay FILE                  a violation that was found, judged again
  cargo conformance simulate                     the JetStream store on simulated servers
  cargo conformance --json out.json --junit out.xml

Exit code: 0 all claimed cases passed, 1 a case failed, 2 it could not run, 3 none failed, but some were
inconclusive: their deadlines passed each time while the machine was starved.
Colours: on a terminal only; NO_COLOR=1 turns them off."
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// Run this store only; may be given several times [default: all but jetstream-r5 and
    /// naive-kv]
    #[arg(long, value_name = "NAME")]
    pub(super) store: Vec<String>,

    /// Have NATS servers this way: binary, docker, url or auto
    #[cfg(all(feature = "jetstream", unix))]
    #[arg(long, value_name = "WAY", default_value_t)]
    pub(super) nats: nats_cluster::Provision,

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

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Judges a history again that a case of the group `histories` saved: exit code 1 while no
    /// order explains it
    Replay {
        /// The file that the failure named
        file: PathBuf,
    },
    #[cfg(feature = "jetstream")]
    Simulate(super::simulate::Simulate),

    /// Hunts every deliberately broken store, and prints which case catches it by the clause it
    /// breaks
    Mutants(MutantsArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct MutantsArgs {
    /// Only those whose names contain one of these
    pub(super) names: Vec<String>,

    /// Print the cases instead, each with all the broken stores it catches
    #[arg(long)]
    pub(super) cases: bool,

    /// The seed of all randomness [default: MEMBERSHIP_SEED, or a new one]
    #[arg(long, value_name = "N", value_parser = seed::parse)]
    pub(super) seed: Option<u64>,
}

impl Args {
    /// Every store there is, with the servers that were asked for.
    #[cfg(all(feature = "jetstream", unix))]
    pub(super) fn targets(&self) -> Vec<Arc<dyn Target>> {
        targets::all_with(self.nats)
    }

    /// Every store there is.
    #[cfg(not(all(feature = "jetstream", unix)))]
    #[allow(clippy::unused_self, reason = "with the feature they depend on --nats")]
    pub(super) fn targets(&self) -> Vec<Arc<dyn Target>> {
        targets::all()
    }
}
