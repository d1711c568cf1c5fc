//! `cargo bench`: what the stores cost, as ratios to floors measured in the same run.
//!
//! On a store of 100,000 users and 10,000 rooms. Ends with 1 when a ratio misses its limit by more
//! than a third.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

mod lists;
mod measure;
mod memory;
mod sqlite;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo passes `--bench`; a filter or any other flag would be silently ignored, so say so.
    let unknown: Vec<_> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if !unknown.is_empty() {
        eprintln!("error: {unknown:?} is unknown; `cargo bench` takes no arguments");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rows = Vec::new();
    eprintln!("memory …");
    rows.extend(memory::rows(&runtime));
    eprintln!("sqlite …");
    rows.extend(sqlite::rows(&runtime));
    eprintln!("sqlite lists …");
    rows.extend(lists::rows(&runtime));
    println!("{}", measure::table(&rows));
    if rows.iter().any(measure::Row::missed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
