//! Which case runs when, and beside which others: the one rule for `cargo test` and the runner.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::case::{Case, Company};
use crate::run::{Outcome, RUNS_AGAIN, run_case};
use crate::target::Target;

/// Every case on every target, in the order in which they should begin: company by company, or cases would
/// wait for one another; of the cases that wait, those of the slowest targets first, or one of them would
/// be the only one left at the end.
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

/// Holds back each case while others are inside that it may not run beside, or as many of its kind
/// as may run at once.
pub(crate) struct Schedule {
    jobs: Option<NonZeroUsize>,
    /// Who is inside, and how many.
    inside: Mutex<(Company, usize)>,
    left: Notify,
}

/// A case begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begins {
    /// For the first time.
    First,
    /// Again, since a deadline passed while the machine was slower, so many times.
    Again { slower: f64 },
}

/// A case that is inside until this is dropped.
pub(crate) struct Inside<'a>(&'a Schedule);

impl Schedule {
    /// Where `jobs` says how many may run at once, if it says anything.
    pub(crate) const fn new(jobs: Option<NonZeroUsize>) -> Self {
        Self { jobs, inside: Mutex::new((Company::Working, 0)), left: Notify::const_new() }
    }

    /// How many may run at once, if that was said.
    #[cfg(feature = "runner")]
    pub(crate) fn jobs(&self) -> Option<NonZeroUsize> {
        self.jobs
    }

    /// How many are ever inside at once.
    pub(crate) fn most(jobs: Option<NonZeroUsize>) -> usize {
        Company::ALL.map(|company| company.at_once(jobs)).into_iter().max().unwrap_or(1)
    }

    pub(crate) async fn enter(&self, company: Company) -> Inside<'_> {
        loop {
            // Whoever leaves wakes all that wait from here on.
            let left = self.left.notified();
            if self.admits(company) {
                return Inside(self);
            }
            left.await;
        }
    }

    /// Runs a case once it may be inside; again, and beside no other, if a deadline passed on a starved machine.
    /// `tell` is called when the case begins.
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
        // A count is whole at any moment, so a poisoned lock means nothing.
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
    fn lets_in_others_of_the_same_kind_as_far_as_there_is_room_and_no_others() {
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
