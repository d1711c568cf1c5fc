//! Each store with a defect inside, and the naive store, must be caught by a case that cites the clause it
//! breaks.

use membership_lab::{defects, naive};

fn main() -> std::process::ExitCode {
    let controls = [defects::all(), naive::controls()].concat();
    membership_conformance::controls::main(controls, None)
}
