//! The suite on the stores that ship here: every case on every store is a test of its own.

fn main() -> std::process::ExitCode {
    membership_conformance::harness::main(&membership_lab::targets::shipped())
}
