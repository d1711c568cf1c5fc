//! The commands that run a failure again.

use std::path::Path;
use std::sync::OnceLock;

use crate::case::Case;

/// The command that started the runner, if a runner runs the suite.
static RUNNER: OnceLock<&'static str> = OnceLock::new();

/// Names the command that started the runner.
#[cfg(feature = "runner")]
pub(crate) fn runs_by(command: &'static str) {
    let _ = RUNNER.set(command);
}

/// The command that runs this case on this store again, with this seed.
pub(super) fn case(case: &Case, store: &str, seed: u64) -> String {
    let name = case.name();
    match RUNNER.get() {
        Some(command) => format!("{command} --store {store} --filter {name} --seed {seed:#x}"),
        None => format!("MEMBERSHIP_SEED={seed:#x} cargo test -- --exact {store}::{name}"),
    }
}

/// The command that judges the history in `file` again.
pub(crate) fn history(file: &Path) -> String {
    let file = file.display();
    match RUNNER.get() {
        Some(command) => format!("again: {command} replay {file}"),
        None => format!("saved in {file}; a runner of the suite judges it again: replay {file}"),
    }
}
