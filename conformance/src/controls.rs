//! Controls: stores with one named defect each, by which the suite itself is tested.
//!
//! Each defect breaks one clause. The suite is good enough if a case that cites that clause fails
//! on the store. The defects of this package wrap the memory store; [`sound`] is the wrapper
//! without a defect, on which every case must pass. [`main`] makes tests of any list of controls.

mod beyond;
mod broken_memory;
mod cut_off;
mod decisions;
mod defect;
mod hunt;
mod keys;
mod life;
mod listings;
mod lost;
mod members;
mod past;
mod races;
mod rooms;
mod shipped;
mod single;
mod subtle;
mod surroundings;
mod tests;
mod users;

use std::sync::Arc;

pub use hunt::{Kill, Survived, all_kills, hunt};
pub use tests::main;

use crate::target::Target;
use broken_memory::BrokenMemory;
use defect::Defect;

/// A store with one known defect.
#[derive(Clone)]
pub struct Control {
    /// The control's unique name, which says what is wrong.
    pub name: &'static str,
    /// The clause that the store breaks.
    pub clause: &'static str,
    /// What the store does wrong, as a sentence without its subject: the store.
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

/// Every control of this package.
#[must_use]
pub fn all() -> Vec<Control> {
    [
        rooms::controls(),
        members::controls(),
        listings::controls(),
        keys::controls(),
        users::controls(),
        decisions::controls(),
        life::controls(),
        lost::controls(),
        races::controls(),
        single::controls(),
        subtle::controls(),
        past::controls(),
        shipped::controls(),
        cut_off::controls(),
        beyond::controls(),
    ]
    .concat()
}

/// The memory store, wrapped as the broken ones are, without a defect. A case that fails on it shows a
/// fault of the wrapper.
#[must_use]
pub fn sound() -> Arc<dyn Target> {
    #[derive(Default)]
    struct Sound;
    impl Defect for Sound {}
    Arc::new(BrokenMemory::<Sound>::new("control"))
}

/// Lists the controls of a file: `name: "CLAUSE", "what it does" => Defect;`.
///
/// The word `unseen` after the name says that no golden transcript can show the defect.
macro_rules! controls {
    ($($name:ident $($unseen:ident)?: $clause:literal, $what:literal => $defect:ty;)+) => {
        pub(super) fn controls() -> Vec<$crate::controls::Control> {
            vec![$($crate::controls::Control {
                name: stringify!($name),
                clause: $clause,
                what: $what,
                visible: true $(&& stringify!($unseen) != "unseen")?,
                first: None,
                target: std::sync::Arc::new(
                    $crate::controls::broken_memory::BrokenMemory::<$defect>::new(stringify!($name)),
                ),
            }),+]
        }
    };
}
use controls;

#[cfg(test)]
mod odd;
#[cfg(test)]
mod sound {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::registry;
    use crate::contract;

    /// Clauses that no control of this package breaks. Two of them are kept by the types before a store is called, and
    /// their cases are about constructors. The others are about stores on files and servers.
    const UNBROKEN: &[&str] =
        &["TYPE-4", "TYPE-5", "ERR-3", "LIST-5", "AUTH-4", "TIME-3", "DUR-2", "DUR-3", "FAULT-1"];

    #[test]
    fn every_clause_but_a_few_is_broken_by_a_control() {
        let broken: BTreeSet<_> = all().iter().map(|control| control.clause).collect();
        let clauses = contract::clauses().iter().map(|clause| clause.id);
        let unbroken: Vec<_> = clauses.filter(|clause| !broken.contains(clause)).collect();
        assert_eq!(unbroken, UNBROKEN);
    }

    #[test]
    fn each_has_a_name_of_its_own_and_breaks_a_clause_that_exists() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|control| control.name).collect();
        assert_eq!(names.len(), all.len());
        for control in all {
            assert!(contract::clause(control.clause).is_some(), "{}", control.name);
            if let Some(first) = control.first {
                let case = registry().find(|case| case.name() == first);
                let cites = case.is_some_and(|case| case.clauses.contains(&control.clause));
                assert!(cites, "{}: {first}", control.name);
            }
        }
    }
}
