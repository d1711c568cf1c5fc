//! The gallery: stores that are broken on purpose, to hold the suite itself to something.
//!
//! Each is the memory store with one named defect, which breaks one clause;
//! the suite is good enough when a case that cites that clause fails on it. Beside them hangs
//! [`control`], built the same way without a defect, on which every case must pass.

mod decisions;
mod defect;
mod hunt;
mod keys;
mod life;
mod listings;
mod members;
mod mutant;
#[cfg(all(feature = "jetstream", unix))]
pub(crate) mod naive;
mod races;
mod rooms;
mod users;

use std::sync::Arc;

pub use hunt::{Kill, Survived, hunt, main};

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
    /// The store, as the suite takes it.
    pub target: Arc<dyn Target>,
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
        races::mutants(),
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

/// Lists the broken stores of a file: `name: "CLAUSE", "what it does" => Defect;`.
macro_rules! mutants {
    ($($name:ident: $clause:literal, $what:literal => $defect:ty;)+) => {
        pub(super) fn mutants() -> Vec<$crate::gallery::Mutant> {
            vec![$($crate::gallery::Mutant {
                name: stringify!($name),
                clause: $clause,
                what: $what,
                target: std::sync::Arc::new(
                    $crate::gallery::mutant::Museum::<$defect>::new(stringify!($name)),
                ),
            }),+]
        }
    };
}
use mutants;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::contract;

    #[test]
    fn each_has_a_name_of_its_own_and_breaks_a_clause_that_exists() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), all.len());
        for mutant in all {
            assert!(contract::clause(mutant.clause).is_some(), "{}", mutant.name);
        }
    }
}
