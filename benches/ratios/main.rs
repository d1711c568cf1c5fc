//! `cargo bench`: what the stores cost, as ratios to floors measured in the same run.
//!
//! On a store of 100,000 users and 10,000 rooms. `cargo bench -- sqlite` measures one store only;
//! so do `memory` and `jetstream`. Ends with 1 when a ratio misses its limit by more than a third,
//! with 2 for an argument it does not know and where there is no NATS server to be had.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

#[cfg(feature = "jetstream")]
mod jetstream;
mod lists;
mod measure;
mod memory;
mod sqlite;
mod world;

use std::process::ExitCode;

use tokio::runtime::Runtime;

use crate::measure::Row;

#[cfg(feature = "jetstream")]
const STORES: &[&str] = &["memory", "sqlite", "jetstream"];
#[cfg(not(feature = "jetstream"))]
const STORES: &[&str] = &["memory", "sqlite"];

fn main() -> ExitCode {
    // Cargo passes `--bench`.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|name| !STORES.contains(&name.as_str())) {
        eprintln!("error: {unknown:?} is no store; name some of {STORES:?}, or none for all");
        return ExitCode::from(2);
    }
    let wants = |store: &str| wanted.is_empty() || wanted.iter().any(|name| name == store);
    #[cfg(feature = "jetstream")]
    // Looked for first: minutes later would be late to say that there is none.
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
    #[cfg_attr(not(feature = "jetstream"), allow(unused_mut))]
    let mut rows = rows(&runtime, &wants);
    #[cfg(feature = "jetstream")]
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
