//! Runs the conformance suite on the stores of this repository. Every case on every store is a
//! test.

fn main() -> std::process::ExitCode {
    membership_conformance::harness::main(&membership_lab::targets::shipped())
}
