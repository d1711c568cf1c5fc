//! The gallery: stores that are broken on purpose, to hold the suite itself to something.
//!
//! Each has one named defect, which breaks one clause; the suite is good enough when a case that
//! cites that clause fails on it. Most are the memory store with something wrong around it; the
//! others are the SQLite and the JetStream store with something wrong inside. Beside them hangs
//! [`control`], the memory store wrapped the same way without a defect, on which every case must
//! pass.

mod beyond;
mod cut_off;
mod decisions;
mod defect;
mod hunt;
#[cfg(all(feature = "jetstream", unix))]
mod jetstream;
mod keys;
mod life;
mod listings;
mod lost;
mod members;
mod mutant;
#[cfg(all(feature = "jetstream", unix))]
pub(crate) mod naive;
mod past;
mod races;
mod rooms;
mod shipped;
mod single;
#[cfg(feature = "sqlite")]
mod sqlite;
mod subtle;
mod surroundings;
mod tests;
mod users;

use std::sync::Arc;

pub use hunt::{Kill, Survived, all_kills, hunt};
pub use tests::main;

use crate::target::Target;
use defect::Defect;
use mutant::Museum;

/// A broken store.
#[derive(Clone)]
pub struct Mutant {
    /// What is wrong with it, as a short name.
    pub name: &'static str,
    /// The clause it breaks.
    pub clause: &'static str,
    /// What it does, in words.
    pub what: &'static str,
    /// Whether a single caller can see it, without faults, races and thousands of records: then a
    /// golden transcript must change.
    pub visible: bool,
    /// The case that is tried first, where the others that may catch it take long.
    pub first: Option<&'static str>,
    /// The store, as the suite takes it.
    pub target: Arc<dyn Target>,
}

/// Has no panic printed. Some of these stores panic on purpose; a case that ends so reports it, and
/// nobody else need.
pub(crate) fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// Every broken store.
#[must_use]
pub fn all() -> Vec<Mutant> {
    [
        rooms::mutants(),
        members::mutants(),
        listings::mutants(),
        keys::mutants(),
        users::mutants(),
        decisions::mutants(),
        life::mutants(),
        lost::mutants(),
        races::mutants(),
        single::mutants(),
        subtle::mutants(),
        past::mutants(),
        shipped::mutants(),
        cut_off::mutants(),
        beyond::mutants(),
        #[cfg(feature = "sqlite")]
        sqlite::mutants(),
        #[cfg(all(feature = "jetstream", unix))]
        jetstream::mutants(),
    ]
    .concat()
}

/// A store built like the broken ones, and sound: what fails on it is the gallery's own fault.
#[must_use]
pub fn control() -> Arc<dyn Target> {
    #[derive(Default)]
    struct Sound;
    impl Defect for Sound {}
    Arc::new(Museum::<Sound>::new("control"))
}

/// Lists the broken stores of a file: `name: "CLAUSE", "what it does" => Defect;`, with `unseen`
/// after the name of one that no golden transcript can show.
macro_rules! mutants {
    ($($name:ident $($unseen:ident)?: $clause:literal, $what:literal => $defect:ty;)+) => {
        pub(super) fn mutants() -> Vec<$crate::gallery::Mutant> {
            vec![$($crate::gallery::Mutant {
                name: stringify!($name),
                clause: $clause,
                what: $what,
                visible: true $(&& stringify!($unseen) != "unseen")?,
                first: None,
                target: std::sync::Arc::new(
                    $crate::gallery::mutant::Museum::<$defect>::new(stringify!($name)),
                ),
            }),+]
        }
    };
}
use mutants;

/// The same of stores that are broken by a switch inside them, with which `make` opens them; with
/// `by` after the clause and the words, the case that is tried first.
#[cfg(any(feature = "sqlite", all(feature = "jetstream", unix)))]
macro_rules! switched {
    ($make:expr; $($name:ident: $clause:literal, $what:literal => $defect:expr $(, by $first:literal)?;)+) => {
        vec![$($crate::gallery::Mutant {
            name: stringify!($name),
            clause: $clause,
            what: $what,
            visible: false,
            first: [None $(, Some($first))?].into_iter().flatten().next(),
            target: std::sync::Arc::new($make(stringify!($name), $defect)),
        }),+]
    };
}
#[cfg(any(feature = "sqlite", all(feature = "jetstream", unix)))]
use switched;

#[cfg(test)]
mod odd;
#[cfg(test)]
mod sound {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::registry;
    use crate::contract;

    /// Kept by the types before any store is asked: their cases are about constructors.
    const KEPT_BY_TYPES: [&str; 2] = ["TYPE-4", "TYPE-5"];
    /// Of stores on servers.
    const OF_SERVERS: [&str; 2] = ["AUTH-4", "FAULT-1"];

    #[test]
    fn every_clause_is_broken_by_one() {
        let broken: BTreeSet<_> = all().iter().map(|mutant| mutant.clause).collect();
        for clause in contract::clauses() {
            let excused = KEPT_BY_TYPES.contains(&clause.id)
                || (!cfg!(feature = "jetstream") && OF_SERVERS.contains(&clause.id));
            assert_ne!(broken.contains(clause.id), excused, "{}", clause.id);
        }
    }

    #[test]
    fn each_has_a_name_of_its_own_and_breaks_a_clause_that_exists() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), all.len());
        for mutant in all {
            assert!(contract::clause(mutant.clause).is_some(), "{}", mutant.name);
            if let Some(first) = mutant.first {
                let case = registry().find(|case| case.name() == first);
                let cites = case.is_some_and(|case| case.clauses.contains(&mutant.clause));
                assert!(cites, "{}: {first}", mutant.name);
            }
        }
    }
}
