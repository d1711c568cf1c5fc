//! Each store with a defect inside must be caught by a case that cites the clause it breaks.

fn main() -> std::process::ExitCode {
    membership_conformance::controls::main(membership_lab::defects::all(), None)
}
