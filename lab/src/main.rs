//! See [`membership_lab::cli`].

fn main() -> std::process::ExitCode {
    membership_lab::cli::main()
}
