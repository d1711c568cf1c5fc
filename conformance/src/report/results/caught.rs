use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::case::Case;
use crate::controls::{Control, Kill, Survived};
use crate::report::human;

/// A broken store, and the case that caught it, if one did.
pub(crate) struct Caught {
    pub(crate) name: &'static str,
    pub(crate) clause: &'static str,
    pub(crate) by: Option<String>,
    pub(crate) took: Duration,
}

impl From<(&Control, &Result<Kill, Survived>)> for Caught {
    fn from((control, outcome): (&Control, &Result<Kill, Survived>)) -> Self {
        let (by, took) = match outcome {
            Ok(kill) => (Some(kill.case.name()), kill.took),
            Err(_) => (None, Duration::ZERO),
        };
        Self { name: control.name, clause: control.clause, by, took }
    }
}

/// The broken stores, each with its clause, the case that caught it, and how long that took.
pub(crate) fn controls(rows: &[Caught]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["control", "clause", "caught by", "after"]);
    for Caught { name, clause, by, took } in rows {
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
pub(crate) fn cases_with_controls(rows: &[(&'static Case, Vec<&str>)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (case, controls) in rows {
        let shown = if controls.is_empty() { "–".to_owned() } else { controls.join(" ") };
        table.add_row([case.name(), shown]);
    }
    table.trim_fmt()
}
