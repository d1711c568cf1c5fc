//! `cargo bench`: builds the program `ratios`, and runs it with its arguments.
//!
//! The program has a build of its own. In a common build, other packages of the workspace would
//! turn on the library's feature `testing`, which users do not have.

use std::env;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--release", "--package", "membership-bench", "--features", "ratios", "--"])
        // Cargo passes `--bench`, which is not for the program.
        .args(env::args_os().skip(1).filter(|argument| argument != "--bench"))
        .status();
    match status.map(|status| status.code()) {
        Ok(Some(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Ok(None) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cargo cannot be run: {error}");
            ExitCode::FAILURE
        }
    }
}
