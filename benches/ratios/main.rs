//! `cargo bench`: the costs of the stores, as ratios to floors that are measured in the same run.
//!
//! The stores have 100,000 users and 10,000 rooms. `cargo bench -- sqlite` measures one store only;
//! so do `memory` and `jetstream`. The exit code is 1 if a ratio misses its limit by more than a
//! third. It is 2 for an unknown argument, if no NATS server can be found, and if the library is
//! not built as users get it.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

mod jetstream;
mod lists;
mod measure;
mod memory;
mod sqlite;
mod world;

use std::process::ExitCode;

use tokio::runtime::Runtime;

use crate::measure::Row;

const STORES: &[&str] = &["memory", "sqlite", "jetstream"];

fn main() -> ExitCode {
    if membership::TESTING {
        eprintln!(
            "error: another package of this build turned on the library's feature `testing`, which \
             users do not have; run `cargo bench`"
        );
        return ExitCode::from(2);
    }
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| !STORES.contains(&name.as_str())) {
        eprintln!("error: {unknown:?} is no store; name some of {STORES:?}, or none for all");
        return ExitCode::from(2);
    }
    let wants = |store: &str| wanted.is_empty() || wanted.iter().any(|name| name == store);
    // The server is looked for first. Otherwise the bench would run for minutes before it reports
    // that there is none.
    let server = if wants("jetstream") {
        match jetstream::server() {
            Ok(server) => Some(server),
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(2);
            }
        }
    } else {
        None
    };
    let runtime = Runtime::new().unwrap();
    let mut rows = rows(&runtime, &wants);
    if let Some(server) = server {
        rows.extend(jetstream::rows(&runtime, &server));
    }
    println!("{}", measure::table(&rows));
    if rows.iter().any(Row::missed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn rows(runtime: &Runtime, wants: &dyn Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    if wants("memory") {
        eprintln!("memory …");
        rows.extend(memory::rows(runtime));
    }
    if wants("sqlite") {
        eprintln!("sqlite …");
        rows.extend(sqlite::rows(runtime));
    }
    rows
}
