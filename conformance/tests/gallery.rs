//! Every deliberately broken store must be caught by the clause it breaks.

fn main() -> std::process::ExitCode {
    membership_conformance::gallery::main()
}
