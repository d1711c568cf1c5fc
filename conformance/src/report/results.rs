//! The results of a run, as tables for people and as documents for machines.

mod caught;
mod json;
mod junit;
mod lists;
mod matrix;
mod reached;

use std::time::Duration;

pub(crate) use caught::{Caught, cases_with_controls, controls};
pub(crate) use json::json;
pub(crate) use junit::junit;
pub(crate) use lists::{broken, cases, clauses};
pub(crate) use matrix::{matrix, not_claimed, verdict};
pub(crate) use reached::reached;

use super::{failure, human};
use crate::case::Case;
use crate::run::{Outcome, Status};

/// The results of a run.
pub(crate) struct Results {
    /// The names of the stores: the columns, in order.
    pub(crate) stores: Vec<String>,
    /// The cases in the registry's order: the rows, with one outcome per store.
    pub(crate) cases: Vec<(&'static Case, Vec<Outcome>)>,
    /// The servers that the stores used: their version, and where they came from.
    pub(crate) servers: Vec<String>,
    /// The seed.
    pub(crate) seed: u64,
    /// The time from the start of the first case to the end of the last.
    pub(crate) took: Duration,
}

impl Results {
    /// Every outcome, with its case and its store's name.
    fn outcomes(&self) -> impl Iterator<Item = (&'static Case, &str, &Outcome)> {
        self.cases.iter().flat_map(|(case, outcomes)| {
            let stores = self.stores.iter().map(String::as_str);
            stores.zip(outcomes).map(|(store, outcome)| (*case, store, outcome))
        })
    }

    /// Every failure, and every inconclusive case, in full.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.outcomes().filter_map(|(case, store, outcome)| match &outcome.status {
            Status::Fail(report) | Status::Inconclusive(report) => {
                Some(failure(case, store, report))
            }
            _ => None,
        })
    }

    /// Counts the outcomes.
    pub(crate) fn tally(&self) -> Tally {
        Tally::of(self.outcomes().map(|(_, _, outcome)| outcome))
    }
}

/// Counts of outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) not_claimed: usize,
    pub(crate) inconclusive: usize,
}

impl Tally {
    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            match outcome.status {
                Status::Pass => tally.passed += 1,
                Status::Fail(_) => tally.failed += 1,
                Status::NotClaimed(..) => tally.not_claimed += 1,
                Status::Inconclusive(_) => tally.inconclusive += 1,
            }
        }
        tally
    }

    pub(crate) fn claimed(self) -> usize {
        self.passed + self.failed + self.inconclusive
    }
}
