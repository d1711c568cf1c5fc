//! The reports of a run, for people and for machines.

mod failure;
mod json;
mod junit;
mod lists;
mod matrix;
mod mutants;
mod reached;

use std::process::ExitCode;
use std::time::Duration;

pub(crate) use failure::failure;
pub(crate) use json::json;
pub(crate) use junit::junit;
pub(crate) use lists::{broken, cases, clauses};
pub(crate) use matrix::{matrix, not_claimed, verdict};
pub(crate) use mutants::{CaughtRow, cases_with_mutants, mutants};
pub(crate) use reached::reached;

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

/// The message that a case runs again, and why.
pub(crate) fn again(case: &Case, store: &str, slower: f64) -> String {
    let name = case.name();
    format!(
        "{store} {name} runs again: a deadline passed while the machine was {slower:.0} times slower"
    )
}

/// The message that says what this many inconclusive cases mean.
pub(crate) fn inconclusive(cases: usize) -> String {
    let cases = if cases == 1 { "1 case".to_owned() } else { format!("{cases} cases") };
    format!(
        "{cases} missed a deadline each time on a starved machine; run again with less other load"
    )
}

/// Prints one line that says why nothing was run, and returns exit code 2.
pub(crate) fn refuse(why: &str) -> ExitCode {
    use owo_colors::OwoColorize;
    anstream::eprintln!("{} {why}", "error:".red().bold());
    ExitCode::from(2)
}

/// Formats a duration for people.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 60.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(40, "0.0 s")]
    #[case(1_240, "1.2 s")]
    #[case(41_200, "41 s")]
    #[case(161_000, "2 min 41 s")]
    fn durations(#[case] millis: u64, #[case] text: &str) {
        assert_eq!(human(Duration::from_millis(millis)), text);
    }
}
