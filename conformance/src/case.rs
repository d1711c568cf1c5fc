//! The registry: every case by name, with the clauses it holds a store to.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::context::Cx;
use crate::soak;
use crate::target::Need;
use crate::verdict::Verdict;

/// One law, tried on one store.
pub struct Case {
    /// The group it belongs to: a row of the matrix.
    pub group: &'static str,
    /// What holds when it passes, as a sentence.
    pub title: &'static str,
    /// The clauses of the contract it checks; at least one.
    pub clauses: &'static [&'static str],
    /// What it needs of the target.
    pub needs: &'static [Need],
    /// Runs it on a fresh store.
    pub run: fn(Cx) -> BoxFuture<'static, Verdict>,
}

impl Case {
    /// `group::title`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}::{}", self.group, self.title)
    }

    /// What it may run beside.
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

    /// How long it may take in all before it counts as hanging.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        match self.company() {
            // Until it has met what it is for, and the last history is judged.
            Company::Playing => soak::length() + Duration::from_mins(4),
            _ => Duration::from_mins(2),
        }
    }
}

/// What may run at the same time as a case: others of its kind, and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Company {
    /// It works: a few of them keep the cores busy, though each waits for a server or a disk at
    /// times.
    Working,
    /// It plays for as long as it is told, however busy the cores are.
    Playing,
    /// It waits most of the time.
    Waiting,
    /// It measures time, and runs when nothing else does.
    Nobody,
}

impl Company {
    /// In the order in which a run has them.
    pub(crate) const ALL: [Self; 4] = [Self::Working, Self::Playing, Self::Waiting, Self::Nobody];

    /// How many such cases run at once, where `jobs` says how many may, if it says anything.
    pub(crate) fn at_once(self, jobs: Option<NonZeroUsize>) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        match self {
            Self::Working => jobs.map_or_else(|| 2 * cores(), NonZeroUsize::get),
            Self::Waiting => jobs.map_or_else(|| 4 * cores(), NonZeroUsize::get),
            // All there are: it would only take longer.
            Self::Playing => jobs.map_or(32, NonZeroUsize::get),
            Self::Nobody => 1,
        }
    }
}

/// Every case there is, group by group.
pub fn registry() -> impl Iterator<Item = &'static Case> {
    crate::cases::GROUPS.iter().copied().flatten()
}

/// The cases of each clause, in the contract's order; an unknown clause of a case comes last.
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
