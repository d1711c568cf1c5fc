//! Controls whose defect is in the code of the SQLite or the JetStream store, behind a switch that
//! only tests have.

#[cfg(unix)]
mod jetstream;
mod sqlite;

use membership_conformance::controls::Control;

/// All controls of the SQLite and the JetStream store.
#[must_use]
pub fn all() -> Vec<Control> {
    #[cfg(unix)]
    return [sqlite::controls(), jetstream::controls()].concat();
    #[cfg(not(unix))]
    sqlite::controls()
}

/// Lists controls. `make` makes the target of each from its name and its defect. A case after `by`
/// is tried first.
macro_rules! switched {
    ($make:expr; $($name:ident: $clause:literal, $what:literal => $defect:expr $(, by $first:literal)?;)+) => {
        vec![$(membership_conformance::controls::Control {
            name: stringify!($name),
            clause: $clause,
            what: $what,
            visible: false,
            first: [None $(, Some($first))?].into_iter().flatten().next(),
            target: std::sync::Arc::new($make(stringify!($name), $defect)),
        }),+]
    };
}
use switched;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use membership_conformance::controls;
    use membership_conformance::{case, contract};

    /// Clauses that the types keep before a store is called. Their cases are about constructors.
    const KEPT_BY_TYPES: [&str; 2] = ["TYPE-4", "TYPE-5"];

    fn all() -> Vec<super::Control> {
        [controls::all(), super::all()].concat()
    }

    #[test]
    fn every_clause_is_broken_by_a_control() {
        let broken: BTreeSet<_> = all().iter().map(|control| control.clause).collect();
        for clause in contract::clauses() {
            let excused = KEPT_BY_TYPES.contains(&clause.id);
            assert_ne!(broken.contains(clause.id), excused, "{}", clause.id);
        }
    }

    #[test]
    fn every_control_has_a_name_of_its_own_and_breaks_a_clause_that_exists() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|control| control.name).collect();
        assert_eq!(names.len(), all.len());
        for control in all {
            assert!(contract::clause(control.clause).is_some(), "{}", control.name);
            if let Some(first) = control.first {
                let case = case::registry().find(|case| case.name() == first);
                let cites = case.is_some_and(|case| case.clauses.contains(&control.clause));
                assert!(cites, "{}: {first}", control.name);
            }
        }
    }
}
