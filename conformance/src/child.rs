//! Child processes: the suite starts its own executable again, to use a store from another process.
//!
//! `harness::main` and `runner::main` call [`run_if_asked`] first: with the environment variable
//! `VARIABLE` set, the process is a child and does nothing else. A child does its [`Job`], and
//! writes a line to its standard output for each acknowledged call. The child exits when its
//! standard input ends, so it never outlives its parent.

mod jobs;
mod process;
pub(crate) mod script;

use std::process::ExitCode;
use std::sync::Arc;

use crate::power;
use crate::target::Target;

pub(crate) use jobs::Job;
pub(crate) use process::{Process, watched};

/// The environment variable with a child's orders: the target, the job, and the store's address.
const VARIABLE: &str = "MEMBERSHIP_CONFORMANCE_CHILD";

/// The environment variable that tells a child that its parent traces it.
const WATCHED: &str = "MEMBERSHIP_CONFORMANCE_WATCHED";

/// The exit code of a child that could not do its job; its standard error says why.
const FAILED: u8 = 2;

/// Does the child's job, if this process was started as a child; `None` if it was not.
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
    let target = target.ok_or_else(|| format!("no target is named {name:?}"))?;
    if std::env::var_os(WATCHED).is_some() {
        power::be_watched().map_err(|error| format!("it cannot be traced: {error}"))?;
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let instance = target.attach(address).await.map_err(|error| error.to_string())?;
        let store = instance.open().await.map_err(|error| error.to_string())?;
        jobs::run(job, store).await
    })
}

/// The value of `VARIABLE`. The address comes last, because it may contain line breaks.
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
    fn orders_are_parsed_as_they_were_formatted(#[case] job: Job) {
        let text = orders("sqlite", job, "/a path\nwith a line break");
        assert_eq!(parse(&text), Some(("sqlite", job, "/a path\nwith a line break")));
    }
}
