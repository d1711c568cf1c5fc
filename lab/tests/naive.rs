//! The naive store must be caught.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use futures::StreamExt;
use membership_conformance::case::{Case, registry};
use membership_conformance::run::{Report, Status, run_case};
use membership_conformance::{Need, Target};
use membership_lab::naive;
use nats_cluster::Provision;

/// How many cases run at once.
const AT_ONCE: usize = 4;

/// Runs every case that needs several servers. A case of the group `partitions` that cites AUTH-3
/// must fail because of an `Allow`.
#[tokio::test(flavor = "multi_thread")]
async fn it_allows_a_revoked_user_at_a_server_that_is_cut_off() {
    let needs = |case: &Case| case.needs.contains(&Need::Replicas);
    let caught = |case: &Case, report: &Report| {
        let cites = case.clauses.contains(&"AUTH-3");
        case.group == "partitions" && cites && report.failure.got.contains("Allow")
    };
    fails(needs, caught).await;
}

/// Runs the cases of USER-1 in which records vanish. One of these must fail because `has_admin`
/// answers false, or because `bootstrap_admin` makes a user.
#[tokio::test(flavor = "multi_thread")]
async fn it_makes_a_second_first_admin_where_the_users_vanished() {
    let bootstraps =
        |case: &Case| case.needs.contains(&Need::Vanish) && case.clauses.contains(&"USER-1");
    let frees = |_: &Case, report: &Report| {
        let got = &report.failure.got;
        got == "false" || got.starts_with("user ")
    };
    fails(bootstraps, frees).await;
}

/// Fails unless a case chosen by `which` fails on the naive store in the way `as_it_should` says.
async fn fails(which: impl Fn(&Case) -> bool, as_it_should: impl Fn(&Case, &Report) -> bool) {
    let target: Arc<dyn Target> = Arc::new(naive::target(Provision::Auto));
    target.prepare().await.unwrap();
    let seed = rand::random();
    let cases = registry().filter(|case| which(case));
    let runs = cases.map(|case| {
        let target = Arc::clone(&target);
        async move { (case, tokio::spawn(run_case_on(case, target, seed)).await.unwrap()) }
    });
    let runs: Vec<_> = futures::stream::iter(runs).buffer_unordered(AT_ONCE).collect().await;
    target.finish().await;
    let mut passed = Vec::new();
    for (case, status) in runs {
        match status {
            Status::Fail(report) if as_it_should(case, &report) => return,
            status => passed.push((case.name(), status)),
        }
    }
    panic!("no case failed as it should (seed {seed:#x}): {passed:#?}");
}

async fn run_case_on(case: &'static Case, target: Arc<dyn Target>, seed: u64) -> Status {
    run_case(case, &target, seed).await.status
}
