//! The gallery: stores that are broken on purpose, by which the suite itself is tested.
//!
//! Each broken store has one named defect, which breaks one clause; a case that cites the clause
//! must fail on the store. Most broken stores are the memory store in a wrapper that has the
//! defect; the others are the SQLite and the JetStream store with the defect in their own code.
//! The sound store, [`control`], is the memory store in the same wrapper without a defect; every
//! case must pass on it.

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
    /// The store's unique name, which says what is wrong.
    pub name: &'static str,
    /// The clause that the store breaks.
    pub clause: &'static str,
    /// What the store does wrong: a sentence without its subject, the store.
    pub what: &'static str,
    /// Whether a single caller sees the defect without faults, races or thousands of records.
    ///
    /// If so, a golden transcript must change.
    pub visible: bool,
    /// The case to try first, if the other cases that cite the clause take long.
    pub first: Option<&'static str>,
    /// The store, for the suite to run.
    pub target: Arc<dyn Target>,
}

/// Turns off the printing of panics.
///
/// Some broken stores panic on purpose, and the failure's report has the panic anyway.
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

/// The sound store: the memory store in the broken stores' wrapper, without a defect.
///
/// A case that fails on it shows a bug of the gallery.
#[must_use]
pub fn control() -> Arc<dyn Target> {
    #[derive(Default)]
    struct Sound;
    impl Defect for Sound {}
    Arc::new(Museum::<Sound>::new("control"))
}

/// Lists the broken stores of a file: `name: "CLAUSE", "what it does" => Defect;`.
///
/// The word `unseen` after the name says that no golden transcript can show the defect.
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

/// As `mutants!`, for stores with a defect in their own code, which `make` switches on.
///
/// After the defect, `by` may name the case to try first.
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

    /// Clauses that the types keep, whatever the store does.
    const KEPT_BY_TYPES: [&str; 2] = ["TYPE-4", "TYPE-5"];
    /// Clauses that only stores on servers can break.
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
