//! Which case runs when: many at once, those that measure time alone.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;

use super::progress::Progress;
use crate::case::Case;
use crate::report::Results;
use crate::run::{Outcome, run_case};
use crate::target::Target;

pub(super) async fn run(
    cases: &[&'static Case],
    targets: &[Arc<dyn Target>],
    seed: u64,
    jobs: Option<NonZeroUsize>,
) -> Results {
    let began = Instant::now();
    let jobs = jobs.map_or_else(cores, NonZeroUsize::get);
    let stores: Vec<_> = targets.iter().map(|target| target.name().to_owned()).collect();
    let progress = Progress::new(cases, &stores);

    let places = (0..cases.len()).flat_map(|row| (0..targets.len()).map(move |col| (row, col)));
    let (alone, together): (Vec<_>, Vec<_>) =
        places.partition(|(row, _)| cases.get(*row).is_some_and(|case| case.alone()));

    let one = |(row, column): (usize, usize)| {
        let progress = &progress;
        async move {
            let (case, target) = (cases.get(row).copied()?, targets.get(column)?);
            progress.begin(case, target.name());
            let outcome = run_case(case, target, seed).await;
            progress.end(case, target.name(), &outcome);
            Some(((row, column), outcome))
        }
    };
    let mut done: Vec<((usize, usize), Outcome)> = stream::iter(together)
        .map(one)
        .buffer_unordered(jobs)
        .filter_map(|o| async { o })
        .collect()
        .await;
    for place in alone {
        done.extend(one(place).await);
    }
    for target in targets {
        target.finish().await;
    }
    progress.finish();

    done.sort_by_key(|(place, _)| *place);
    let mut outcomes = done.into_iter().map(|(_, outcome)| outcome);
    let cases =
        cases.iter().map(|case| (*case, outcomes.by_ref().take(targets.len()).collect())).collect();
    Results { stores, cases, seed, took: began.elapsed() }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
