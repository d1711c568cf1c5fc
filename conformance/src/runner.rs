//! The suite as a program, for any list of targets: prints a matrix, writes reports, replays
//! histories.
//!
//! A store's author needs three lines:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     membership_conformance::runner::main(&[std::sync::Arc::new(membership_conformance::Memory)])
//! }
//! ```
//!
//! A program with more arguments, or with stores that run only when they are named, has [`Options`]
//! and [`Command`] among its own arguments, and passes a [`Suite`] to [`run()`].

mod args;
mod controls;
mod progress;
mod run;

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

pub use args::{Command, ControlsArgs, Options};

use crate::case::{Case, registry};
use crate::child;
use crate::controls::Control;
use crate::history::Saved;
use crate::report::{self, refuse, rerun};
use crate::target::Target;
use crate::{harness, outer};
use args::Args;

/// The targets and controls of a program that runs the suite.
pub struct Suite {
    /// The command that starts the program, as a person types it.
    pub command: &'static str,
    /// The targets that run if the command line names none, in the order of the matrix.
    pub targets: Vec<Arc<dyn Target>>,
    /// The targets that run only when they are named.
    pub on_request: Vec<Arc<dyn Target>>,
    /// The broken stores. These stores run when they are named, and the command `controls` runs all
    /// of them.
    pub controls: Vec<Control>,
    /// A further check, made after a run of every case on every target.
    pub also: Option<Also>,
    /// The broken stores that no case catches: each is caught by a check that the program itself brings.
    pub other_controls: Vec<OtherControl>,
}

/// A further check. Gets the run's seed and the number of cases that run at once. Returns a line
/// for the report, and whether the check passed.
pub type Also = fn(u64, Option<NonZeroUsize>) -> (String, bool);

/// A broken store that no case catches, with the check of the program that catches it.
pub struct OtherControl {
    /// The store's name.
    pub name: &'static str,
    /// The clause that the store breaks.
    pub clause: &'static str,
    /// Runs the check on the store, with a seed. Returns what caught the store, if anything did.
    pub hunt: Box<dyn Fn(u64) -> Option<String>>,
}

impl Suite {
    /// A suite of these targets and of the controls that come with the suite.
    #[must_use]
    pub fn new(command: &'static str, targets: Vec<Arc<dyn Target>>) -> Self {
        Self {
            command,
            targets,
            on_request: Vec::new(),
            controls: crate::controls::all(),
            also: None,
            other_controls: Vec::new(),
        }
    }

    /// Every target that the command line can name.
    fn known(&self) -> impl Iterator<Item = &Arc<dyn Target>> {
        let broken = self.controls.iter().map(|control| &control.target);
        self.sound().chain(broken)
    }

    /// Every target that is not broken on purpose.
    fn sound(&self) -> impl Iterator<Item = &Arc<dyn Target>> {
        self.targets.iter().chain(&self.on_request)
    }

    /// Does the job of a child process and returns its exit code, if a case started this process as
    /// its child. A program must call this before it does anything else.
    #[must_use]
    pub fn child(&self) -> Option<ExitCode> {
        let known: Vec<_> = self.known().cloned().collect();
        child::run_if_asked(&known)
    }

    /// The targets with these names; without names, those that run by default.
    fn chosen(&self, names: &[String]) -> Result<Vec<Arc<dyn Target>>, String> {
        if names.is_empty() {
            return Ok(self.targets.clone());
        }
        let find = |name: &String| {
            self.known().find(|target| target.name() == name).cloned().ok_or_else(|| {
                let sound: Vec<_> = self.sound().map(|target| target.name()).collect();
                let sound = sound.join(", ");
                format!(
                    "no store {name:?}; there are {sound}, and the broken ones that --broken lists"
                )
            })
        };
        names.iter().map(find).collect()
    }
}

/// Runs the suite on `targets`, as a program with command-line arguments; `--help` lists them.
///
/// Exit code 0: all claimed cases passed. 1: a case failed. 2: the suite could not run. 3: no case
/// failed, and some were inconclusive.
#[must_use]
pub fn main(targets: &[Arc<dyn Target>]) -> ExitCode {
    // Reports show commands to type. Such a command begins with the path by which this program was
    // started.
    let command = std::env::args().next().unwrap_or_else(|| "conformance".to_owned());
    let suite = Suite::new(command.leak(), targets.to_vec());
    if let Some(code) = suite.child() {
        return code;
    }
    let Args { command, options } = Args::parse();
    run(&suite, &options, command.as_ref())
}

/// Does what the arguments ask for. The exit codes are those of [`main`].
#[must_use]
pub fn run(suite: &Suite, options: &Options, command: Option<&Command>) -> ExitCode {
    rerun::runs_by(suite.command);
    match asked(suite, options, command) {
        Ok(code) => code,
        Err(why) => refuse(&why),
    }
}

fn asked(suite: &Suite, options: &Options, command: Option<&Command>) -> Result<ExitCode, String> {
    match command {
        Some(Command::Replay { file }) => return replay(file),
        Some(Command::Controls(args)) => return controls::run(suite, args),
        None => {}
    }
    if options.clauses {
        anstream::println!("{}", report::clauses());
        return Ok(ExitCode::SUCCESS);
    }
    if options.broken {
        anstream::println!("{}", report::broken(&suite.controls));
        return Ok(ExitCode::SUCCESS);
    }
    let cases = chosen_cases(&options.filter)?;
    if options.list {
        anstream::println!("{}", report::cases(cases.iter().copied()));
        return Ok(ExitCode::SUCCESS);
    }
    Ok(outer::supervised(|| harness::exit_code(run::held(suite, options, &cases), FAILED)))
}

/// The exit code of a run in which a case failed.
const FAILED: u8 = 1;

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
