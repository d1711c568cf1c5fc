//! The clauses of the contract, parsed from `CONTRACT.md`, so that there is no second list of them.

use std::sync::LazyLock;

/// A clause of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The id, such as `KEY-7`.
    pub id: &'static str,
    /// The text.
    pub text: &'static str,
}

static CLAUSES: LazyLock<Vec<Clause>> = LazyLock::new(|| parse(include_str!("../CONTRACT.md")));

/// Every clause of the contract, in its order.
#[must_use]
pub fn clauses() -> &'static [Clause] {
    &CLAUSES
}

/// The clause with this id.
#[must_use]
pub fn clause(id: &str) -> Option<&'static Clause> {
    clauses().iter().find(|clause| clause.id == id)
}

/// The version that the contract states, such as `1.0`.
#[must_use]
pub fn version() -> &'static str {
    let stated = include_str!("../CONTRACT.md").lines().find_map(|l| l.strip_prefix("Version "));
    stated.map_or("", |line| line.trim_end_matches('.'))
}

/// Parses the clauses: lines of the form `- **ID** text`.
fn parse(contract: &'static str) -> Vec<Clause> {
    let clause = |line: &'static str| {
        let (id, text) = line.strip_prefix("- **")?.split_once("** ")?;
        Some(Clause { id, text })
    };
    contract.lines().filter_map(clause).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_clause_has_a_unique_id() {
        let ids: BTreeSet<_> = clauses().iter().map(|clause| clause.id).collect();
        assert_eq!(ids.len(), clauses().len());
        assert!(ids.contains("TYPE-1") && ids.contains("FAULT-1"), "{ids:?}");
    }

    #[test]
    fn the_version_is_stated() {
        assert_eq!(version(), "1.1");
    }
}
