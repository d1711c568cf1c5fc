//! Which case runs when: those that work, those that play, those that wait, those that measure time.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;

use super::progress::Progress;
use crate::case::{Case, Company};
use crate::harness::end_blocked;
use crate::report::{self, Results};
use crate::run::{self, Outcome, Status, run_case};
use crate::target::Target;

pub(super) async fn run(
    cases: &[&'static Case],
    targets: &[Arc<dyn Target>],
    servers: Vec<String>,
    seed: u64,
    jobs: Option<NonZeroUsize>,
) -> Result<Results, String> {
    let began = Instant::now();
    let stores: Vec<_> = targets.iter().map(|target| target.name().to_owned()).collect();
    let progress = Progress::new(cases, &stores);

    let one = |(row, column): (usize, usize)| {
        let progress = &progress;
        async move {
            let (case, target) = (cases.get(row).copied()?, targets.get(column)?);
            progress.begin(case, target.name());
            let outcome = run_case(case, target, seed).await;
            progress.end(case, target.name(), &outcome);
            if let Status::Fail(report) = &outcome.status
                && report.blocked
            {
                end_blocked(&report::failure(case, target.name(), report));
            }
            Some(((row, column), outcome))
        }
    };
    let mut done: Vec<((usize, usize), Outcome)> = Vec::new();
    for company in Company::ALL {
        let rows = cases.iter().enumerate().filter(|(_, case)| case.company() == company);
        let places = rows.flat_map(|(row, _)| (0..targets.len()).map(move |column| (row, column)));
        let mut places: Vec<_> = places.collect();
        if company == Company::Waiting {
            // The longest waits first, or one of them would be all that is left in the end.
            places.sort_by_key(|(_, column)| targets.get(*column).map(|t| Reverse(t.pace())));
        }
        let outcomes = stream::iter(places)
            .map(one)
            .buffer_unordered(company.at_once(jobs))
            .filter_map(|outcome| async { outcome });
        done.extend(outcomes.collect::<Vec<_>>().await);
    }
    for _ in 0..run::RUNS_AGAIN {
        for ((row, column), outcome) in &mut done {
            let Some(slower) = outcome.excuse() else { continue };
            let (Some(case), Some(target)) = (cases.get(*row), targets.get(*column)) else {
                continue;
            };
            progress.again(&report::again(case, target.name(), slower));
            *outcome = run_case(case, target, seed).await;
        }
    }
    let finished = run::finish(targets).await;
    progress.finish();
    finished?;

    done.sort_by_key(|(place, _)| *place);
    let mut outcomes = done.into_iter().map(|(_, outcome)| outcome.concluded());
    let cases =
        cases.iter().map(|case| (*case, outcomes.by_ref().take(targets.len()).collect())).collect();
    Ok(Results { stores, cases, servers, seed, took: began.elapsed() })
}
