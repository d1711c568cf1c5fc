//! Other processes on the same store: the suite starts its own executable again, as a child.
//!
//! [`run_if_asked`] stands first in `harness::main` and `cli::main`: started with
//! `VARIABLE`, they are a child and nothing else. A child does what its [`Job`] says, and tells
//! on its standard output, a line for each, what was acknowledged. It ends when its standard
//! input does, so it outlives its parent in no case.

mod jobs;
mod process;
pub(crate) mod script;

use std::process::ExitCode;
use std::sync::Arc;

use crate::power;
use crate::target::Target;

pub(crate) use jobs::Job;
pub(crate) use process::{Process, watched};

/// Says what a child is to do, and where: the environment variable.
const VARIABLE: &str = "MEMBERSHIP_CONFORMANCE_CHILD";

/// Says that whoever started the child watches it: the environment variable.
const WATCHED: &str = "MEMBERSHIP_CONFORMANCE_WATCHED";

/// The exit code of a child that could not do its job; it says why on its standard error.
const FAILED: u8 = 2;

/// If this process was started as a child, does its job; `None` if it was not.
pub(crate) fn run_if_asked(targets: &[Arc<dyn Target>]) -> Option<ExitCode> {
    let orders = std::env::var(VARIABLE).ok()?;
    Some(match obey(&orders, targets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("a child of the suite could not do its job: {why}");
            ExitCode::from(FAILED)
        }
    })
}

fn obey(orders: &str, targets: &[Arc<dyn Target>]) -> Result<(), String> {
    let (name, job, address) = parse(orders).ok_or_else(|| format!("{VARIABLE} is {orders:?}"))?;
    let target = targets.iter().find(|target| target.name() == name);
    let target = target.ok_or_else(|| format!("it knows no store {name:?}"))?;
    if std::env::var_os(WATCHED).is_some() {
        power::be_watched().map_err(|error| format!("it cannot be watched: {error}"))?;
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let instance = target.attach(address).await.map_err(|error| error.to_string())?;
        let store = instance.open().await.map_err(|error| error.to_string())?;
        jobs::run(job, store).await
    })
}

/// The orders, as they stand in the environment: the address last, because it may hold anything.
fn orders(name: &str, job: Job, address: &str) -> String {
    format!("{name}\n{job}\n{address}")
}

fn parse(orders: &str) -> Option<(&str, Job, &str)> {
    let (name, rest) = orders.split_once('\n')?;
    let (job, address) = rest.split_once('\n')?;
    Some((name, job.parse().ok()?, address))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Job::Work { seed: 7, len: 3 })]
    #[case(Job::Rekey { members: 100 })]
    #[case(Job::Race { seed: u64::MAX })]
    #[case(Job::Ask)]
    #[case(Job::Open)]
    fn orders_are_read_as_they_were_given(#[case] job: Job) {
        let text = orders("sqlite", job, "/a path\nwith a line break");
        assert_eq!(parse(&text), Some(("sqlite", job, "/a path\nwith a line break")));
    }
}
