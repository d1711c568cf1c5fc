use comfy_table::{Table, presets};

use crate::case::{self, Case};
use crate::controls::Control;

/// The cases by name, with their clauses and needs.
pub(crate) fn cases<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for case in cases {
        let needs: Vec<_> = case.needs.iter().map(ToString::to_string).collect();
        let needs =
            if needs.is_empty() { String::new() } else { format!("needs {}", needs.join(", ")) };
        table.add_row([case.name(), case.clauses.join(" "), needs]);
    }
    table.trim_fmt()
}

/// The clauses of the contract, each with the cases that test it.
pub(crate) fn clauses() -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (clause, cases) in case::by_clause() {
        let mut cases = cases.iter().map(|case| case.name());
        table.add_row([clause.to_owned(), cases.next().unwrap_or_else(|| "no case".to_owned())]);
        for name in cases {
            table.add_row([String::new(), name]);
        }
    }
    table.trim_fmt()
}

/// The broken stores by name, each with the clause that it breaks, and how.
pub(crate) fn broken(controls: &[Control]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for control in controls {
        table.add_row([control.name, control.clause, control.what]);
    }
    table.trim_fmt()
}
