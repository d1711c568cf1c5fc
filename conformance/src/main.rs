//! See [`membership_conformance::cli`].

fn main() -> std::process::ExitCode {
    membership_conformance::cli::main()
}
