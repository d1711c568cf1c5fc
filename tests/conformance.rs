//! Runs the conformance suite on the stores of this repository. Every case on every store is a
//! test.

use membership_lab::targets::{Provision, shipped};

fn main() -> std::process::ExitCode {
    membership_conformance::harness::main(&shipped(Provision::default()))
}
