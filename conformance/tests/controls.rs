//! Each control must be caught by a case that cites the clause it breaks, and no case may fail on the
//! sound store.

use membership_conformance::controls;

fn main() -> std::process::ExitCode {
    controls::main(controls::all(), Some(&controls::sound()))
}
