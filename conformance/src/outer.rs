//! The run in a process of its own, so that no store under test can end it with success.
//!
//! The code under test is in the suite's process, and may end it: `exit(0)` in a store would read as a run
//! in which everything held. So the process that was started starts itself again and waits. Only an inner
//! process that has come to the end of the run, and found that everything held, ends with [`HELD`].

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};

use crate::report;

/// Tells the inner process that it is one, and whose: the environment variable.
const VARIABLE: &str = "MEMBERSHIP_CONFORMANCE_OUTER";

/// With what the inner process ends after a run in which everything held: no code that a store ends a
/// process with by chance.
const HELD: u8 = 86;

/// The exit code of a run that its store ended.
const ENDED: u8 = 1;

/// Has `run` done by an inner process, and ends as that did; 0 only where `run` returned 0 there.
pub(crate) fn supervised(run: impl FnOnce() -> u8) -> ExitCode {
    if is_inner() {
        if let Err(error) = std::thread::Builder::new().spawn(end_with_the_outer) {
            return report::refuse(&format!("cannot start a thread: {error}"));
        }
        let code = run();
        // Not returned: what called the harness may read a code other than 0 as a failure, and end with
        // one of its own (a doctest does).
        std::process::exit(i32::from(if code == 0 { HELD } else { code }));
    }
    match watch() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report::refuse(&format!("cannot run the suite in a process of its own: {error}"))
        }
    }
}

/// The variable alone could have been inherited from another run, in which this one is a test.
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

/// Nothing is ever sent to the inner process: the end of its input is the end of the outer one.
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
    // Held open for as long as this process lives; `wait` would close it.
    let _input = inner.stdin.take();
    let status = inner.wait()?;
    let why = match status.code().map(u8::try_from) {
        Some(Ok(HELD)) => return Ok(0),
        Some(Ok(0)) => "with code 0".to_owned(),
        Some(Ok(code)) => return Ok(code),
        _ => format!("by force ({status})"),
    };
    report::complain(&format!(
        "the process ended {why} before the run was over: a store, or what it is made of, ended it"
    ));
    Ok(ENDED)
}
