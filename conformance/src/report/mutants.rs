use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::human;
use crate::case::Case;
use crate::gallery::{Kill, Mutant, Survived};

/// A broken store, and the case that caught it, if one did.
pub(crate) struct CaughtRow {
    pub(crate) name: &'static str,
    pub(crate) clause: &'static str,
    pub(crate) by: Option<String>,
    pub(crate) took: Duration,
}

impl From<(&Mutant, &Result<Kill, Survived>)> for CaughtRow {
    fn from((mutant, outcome): (&Mutant, &Result<Kill, Survived>)) -> Self {
        let (by, took) = match outcome {
            Ok(kill) => (Some(kill.case.name()), kill.took),
            Err(_) => (None, Duration::ZERO),
        };
        Self { name: mutant.name, clause: mutant.clause, by, took }
    }
}

/// The broken stores, each with its clause, the case that caught it, and how long that took.
pub(crate) fn mutants(rows: &[CaughtRow]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["mutant", "clause", "caught by", "after"]);
    for CaughtRow { name, clause, by, took } in rows {
        let (by, took) = match by {
            Some(by) => (by.as_str(), human(*took)),
            None => ("✗ no case", String::new()),
        };
        let took = Cell::new(took).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(name), Cell::new(clause), Cell::new(by), took]);
    }
    table.trim_fmt()
}

/// The cases, each with the broken stores that it catches.
pub(crate) fn cases_with_mutants(rows: &[(&'static Case, Vec<&str>)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (case, mutants) in rows {
        let shown = if mutants.is_empty() { "–".to_owned() } else { mutants.join(" ") };
        table.add_row([case.name(), shown]);
    }
    table.trim_fmt()
}
