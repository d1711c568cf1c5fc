//! The registry: every case by name, with the clauses that it tests.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::context::Cx;
use crate::soak;
use crate::target::Need;
use crate::verdict::Verdict;

/// One test of the contract.
pub struct Case {
    /// The case's group: a row of the matrix.
    pub group: &'static str,
    /// The law that the case tests, as a sentence.
    pub title: &'static str,
    /// The clauses that the case tests; at least one.
    pub clauses: &'static [&'static str],
    /// The abilities that the case needs of the target.
    pub needs: &'static [Need],
    /// Runs the case on a fresh store.
    pub run: fn(Cx) -> BoxFuture<'static, Verdict>,
}

impl Case {
    /// `group::title`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}::{}", self.group, self.title)
    }

    /// Which cases may run at the same time.
    #[must_use]
    pub(crate) fn company(&self) -> Company {
        if crate::cases::ALONE.contains(&self.group) {
            Company::Nobody
        } else if crate::cases::PLAYED.contains(&self.group) {
            Company::Playing
        } else if crate::cases::WAITING.contains(&self.group) {
            Company::Waiting
        } else {
            Company::Working
        }
    }

    /// The time after which the case counts as hanging.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        match self.company() {
            // A case that plays histories goes on until it has met its events. Then the last
            // history must still be judged.
            Company::Playing => soak::length() + Duration::from_mins(4),
            _ => Duration::from_mins(2),
        }
    }
}

/// Kinds of cases. Only cases of one kind run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Company {
    /// The case computes: a few of them keep all processors busy, though each waits for a server or
    /// a disk at times.
    Working,
    /// The case plays histories for a given time, however busy the processors are.
    Playing,
    /// The case waits most of the time.
    Waiting,
    /// The case measures time, and runs alone.
    Nobody,
}

impl Company {
    /// All kinds, in the order in which they run.
    pub(crate) const ALL: [Self; 4] = [Self::Working, Self::Playing, Self::Waiting, Self::Nobody];

    /// How many such cases run at once; `jobs` replaces the default.
    pub(crate) fn at_once(self, jobs: Option<NonZeroUsize>) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        match self {
            Self::Working => jobs.map_or_else(|| 2 * cores(), NonZeroUsize::get),
            Self::Waiting => jobs.map_or_else(|| 4 * cores(), NonZeroUsize::get),
            // All cases of this kind run at once, since fewer at once would only make the run
            // longer.
            Self::Playing => jobs.map_or(32, NonZeroUsize::get),
            Self::Nobody => 1,
        }
    }
}

/// Every case, group by group.
pub fn registry() -> impl Iterator<Item = &'static Case> {
    crate::cases::GROUPS.iter().copied().flatten()
}

/// The cases of each clause, in the contract's order; clauses that the contract does not have come
/// last.
#[must_use]
pub fn by_clause() -> Vec<(&'static str, Vec<&'static Case>)> {
    let mut cases: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    for case in registry() {
        for clause in case.clauses {
            cases.entry(clause).or_default().push(case);
        }
    }
    let clauses = crate::contract::clauses().iter();
    let mut table: Vec<_> =
        clauses.map(|clause| (clause.id, cases.remove(clause.id).unwrap_or_default())).collect();
    table.extend(cases);
    table
}

/// Declares the cases of a group: `title: "CLAUSE" "CLAUSE", needs Need Need;`, where `title`
/// names an `async fn(Cx) -> Verdict`.
macro_rules! declare {
    ($group:literal; $($title:ident: $($clause:literal)+ $(, needs $($need:ident)+)?;)+) => {
        pub(crate) const CASES: &[$crate::case::Case] = &[$(
            $crate::case::Case {
                group: $group,
                title: stringify!($title),
                clauses: &[$($clause),+],
                needs: &[$($($crate::target::Need::$need),+)?],
                run: |cx| Box::pin($title(cx)),
            }
        ),+];
    };
}
pub(crate) use declare;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::contract;

    #[test]
    fn every_clause_has_a_case_and_every_case_names_clauses_that_exist() {
        for (clause, cases) in by_clause() {
            assert!(contract::clause(clause).is_some(), "no clause {clause} in CONTRACT.md");
            assert!(!cases.is_empty(), "no case checks {clause}");
        }
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names: BTreeSet<_> = registry().map(Case::name).collect();
        assert_eq!(names.len(), registry().count());
    }
}
