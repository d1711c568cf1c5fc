//! Lets cases in beside those they may run beside.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::case::{Case, Company};
use crate::report;
use crate::run::{Outcome, RUNS_AGAIN, run_case};
use crate::target::Target;

/// Holds back each case while others are inside that it may not run beside, or as many of its kind
/// as may run at once.
pub(crate) struct Gate {
    jobs: Option<NonZeroUsize>,
    /// Who is inside, and how many.
    inside: Mutex<(Company, usize)>,
    left: Notify,
}

/// A case that is inside until this is dropped.
pub(crate) struct Inside<'a>(&'a Gate);

impl Gate {
    /// Where `jobs` says how many may run at once, if it says anything.
    pub(crate) const fn new(jobs: Option<NonZeroUsize>) -> Self {
        Self { jobs, inside: Mutex::new((Company::Working, 0)), left: Notify::const_new() }
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
    pub(crate) async fn run(
        &self,
        case: &'static Case,
        target: &Arc<dyn Target>,
        seed: u64,
    ) -> Outcome {
        let mut outcome = {
            let _inside = self.enter(case.company()).await;
            run_case(case, target, seed).await
        };
        for _ in 0..RUNS_AGAIN {
            let Some(slower) = outcome.excuse() else { break };
            anstream::eprintln!("{}", report::again(case, target.name(), slower));
            let _alone = self.enter(Company::Nobody).await;
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
        let gate = Gate::new(NonZeroUsize::new(2));
        let first = gate.enter(Company::Waiting).now_or_never().unwrap();
        let second = gate.enter(Company::Waiting).now_or_never().unwrap();
        assert!(gate.enter(Company::Waiting).now_or_never().is_none());
        let mut working = Box::pin(gate.enter(Company::Working));
        assert!(working.as_mut().now_or_never().is_none());
        drop(first);
        assert!(working.as_mut().now_or_never().is_none());
        drop(second);
        let working = working.now_or_never().unwrap();
        assert!(gate.enter(Company::Nobody).now_or_never().is_none());
        drop(working);
        let nobody = gate.enter(Company::Nobody).now_or_never().unwrap();
        assert!(gate.enter(Company::Nobody).now_or_never().is_none());
        drop(nobody);
    }
}
