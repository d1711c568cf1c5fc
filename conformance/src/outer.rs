//! Runs the suite in an inner process, so that no store under test can end a run with success.
//!
//! The code under test shares the suite's process and may end it: `exit(0)` in a store would look
//! like a run that passed. So the outer process starts itself again and waits. The inner process
//! exits with [`HELD`] only after a complete run that passed.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};

use crate::report;

/// The environment variable that marks the inner process: the process id of the outer one.
const VARIABLE: &str = "MEMBERSHIP_CONFORMANCE_OUTER";

/// The exit code of the inner process after a run that passed. A store is unlikely to exit with it
/// by chance.
const HELD: u8 = 86;

/// The exit code of a run that a store ended early.
const ENDED: u8 = 1;

/// Calls `run` in an inner process, and returns its exit code; 0 only if `run` returned 0 there.
pub(crate) fn supervised(run: impl FnOnce() -> u8) -> ExitCode {
    if is_inner() {
        if let Err(error) = std::thread::Builder::new().spawn(end_with_the_outer) {
            return report::refuse(&format!("cannot start a thread: {error}"));
        }
        let code = run();
        // Exit instead of returning: a caller such as a doctest replaces every code other than 0 by
        // its own.
        std::process::exit(i32::from(if code == 0 { HELD } else { code }));
    }
    match watch() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report::refuse(&format!("cannot run the suite in a process of its own: {error}"))
        }
    }
}

/// Whether this is the inner process. The variable alone does not prove that: a run that is started
/// by a test of another run inherits the variable.
fn is_inner() -> bool {
    let outer = std::env::var(VARIABLE).ok().and_then(|outer| outer.parse::<u32>().ok());
    outer.is_some_and(is_parent)
}

#[cfg(unix)]
fn is_parent(process: u32) -> bool {
    process == std::os::unix::process::parent_id()
}

#[cfg(not(unix))]
fn is_parent(_: u32) -> bool {
    true
}

/// Exits when the outer process has ended. The outer process never writes to the inner one, so the
/// standard input of the inner process ends only when the outer process does.
fn end_with_the_outer() {
    let _ended = std::io::stdin().lock().read_to_end(&mut Vec::new());
    std::process::exit(i32::from(ENDED));
}

fn watch() -> std::io::Result<u8> {
    let mut inner = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, std::process::id().to_string())
        .stdin(Stdio::piped())
        .spawn()?;
    // Keep the pipe open: otherwise `wait` would close it, and the inner process would exit.
    let _input = inner.stdin.take();
    let status = inner.wait()?;
    let why = match status.code().map(u8::try_from) {
        Some(Ok(HELD)) => return Ok(0),
        Some(Ok(0)) => "with code 0".to_owned(),
        Some(Ok(code)) => return Ok(code),
        _ => format!("by force ({status})"),
    };
    report::complain(&format!(
        "the process ended {why} before the run was over: a store or a library of it ended it"
    ));
    Ok(ENDED)
}
