//! Decides which case runs when, and beside which others, for both `cargo test` and the runner.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::case::{Case, Company};
use crate::run::{Outcome, RUNS_AGAIN, run_case};
use crate::target::Target;

/// Every case on every target, in the order in which they begin.
///
/// The order is kind by kind: otherwise cases would wait for cases of another kind. Among the cases that wait, those of
/// slow targets come first: otherwise a single long case would run alone at the end.
pub(crate) fn in_order<'a>(
    cases: &[&'static Case],
    targets: &'a [Arc<dyn Target>],
) -> Vec<(&'static Case, &'a Arc<dyn Target>)> {
    let of = |company| {
        let mut targets: Vec<_> = targets.iter().collect();
        if company == Company::Waiting {
            targets.sort_by_key(|target| Reverse(target.pace()));
        }
        let cases = cases.iter().filter(move |case| case.company() == company);
        let cases: Vec<_> = cases.copied().collect();
        targets
            .into_iter()
            .flat_map(move |target| cases.clone().into_iter().map(move |case| (case, target)))
    };
    Company::ALL.into_iter().flat_map(of).collect()
}

/// Holds back a case while cases of another kind run, and while its own kind has reached its limit.
pub(crate) struct Schedule {
    jobs: Option<NonZeroUsize>,
    /// The kind of the running cases, and their number.
    inside: Mutex<(Company, usize)>,
    left: Notify,
}

/// Why a case begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begins {
    /// The case begins for the first time.
    First,
    /// The case begins again, because a deadline passed while the machine was this many times slower than usual.
    Again { slower: f64 },
}

/// The permission to run a case. Dropping it says that the case has ended.
pub(crate) struct Inside<'a>(&'a Schedule);

impl Schedule {
    /// Creates a schedule. `jobs` replaces the default limit on cases that run at once.
    pub(crate) const fn new(jobs: Option<NonZeroUsize>) -> Self {
        Self { jobs, inside: Mutex::new((Company::Working, 0)), left: Notify::const_new() }
    }

    /// The largest number of cases that ever run at once.
    pub(crate) fn most(&self) -> usize {
        Company::ALL.map(|company| company.at_once(self.jobs)).into_iter().max().unwrap_or(1)
    }

    pub(crate) async fn enter(&self, company: Company) -> Inside<'_> {
        loop {
            // The waiter is registered before the check. Otherwise a case that ends in between would wake nobody.
            let left = self.left.notified();
            if self.admits(company) {
                return Inside(self);
            }
            left.await;
        }
    }

    /// Waits until a case may run, and runs it. If a deadline passed on a starved machine, runs the case again, alone.
    /// Calls `tell` whenever the case begins.
    pub(crate) async fn run(
        &self,
        case: &'static Case,
        target: &Arc<dyn Target>,
        seed: u64,
        tell: impl Fn(Begins),
    ) -> Outcome {
        let mut outcome = {
            let _inside = self.enter(case.company()).await;
            tell(Begins::First);
            run_case(case, target, seed).await
        };
        for _ in 0..RUNS_AGAIN {
            let Some(slower) = outcome.excuse() else { break };
            let _alone = self.enter(Company::Nobody).await;
            tell(Begins::Again { slower });
            outcome = run_case(case, target, seed).await;
        }
        outcome.concluded()
    }

    fn admits(&self, company: Company) -> bool {
        let mut inside = self.inside();
        let (of, count) = *inside;
        let admits = count == 0 || (of == company && count < company.at_once(self.jobs));
        if admits {
            *inside = (company, count + 1);
        }
        admits
    }

    fn inside(&self) -> MutexGuard<'_, (Company, usize)> {
        // The state is consistent at any moment, so a poisoned lock is harmless.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside().1 -= 1;
        self.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn only_cases_of_one_kind_run_at_once_and_no_more_than_its_limit() {
        let schedule = Schedule::new(NonZeroUsize::new(2));
        let first = schedule.enter(Company::Waiting).now_or_never().unwrap();
        let second = schedule.enter(Company::Waiting).now_or_never().unwrap();
        assert!(schedule.enter(Company::Waiting).now_or_never().is_none());
        let mut working = Box::pin(schedule.enter(Company::Working));
        assert!(working.as_mut().now_or_never().is_none());
        drop(first);
        assert!(working.as_mut().now_or_never().is_none());
        drop(second);
        let working = working.now_or_never().unwrap();
        assert!(schedule.enter(Company::Nobody).now_or_never().is_none());
        drop(working);
        let nobody = schedule.enter(Company::Nobody).now_or_never().unwrap();
        assert!(schedule.enter(Company::Nobody).now_or_never().is_none());
        drop(nobody);
    }
}
