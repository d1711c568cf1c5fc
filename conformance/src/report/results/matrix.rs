use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};
use owo_colors::OwoColorize;

use super::{Results, Tally, human};
use crate::run::{Outcome, Status};
use crate::target::Need;

/// The matrix: for each group and store, how many of the claimed cases passed.
pub(crate) fn matrix(results: &Results) -> String {
    let mut groups: Vec<(&str, Vec<&[Outcome]>)> = Vec::new();
    for (case, outcomes) in &results.cases {
        match groups.last_mut() {
            Some((group, rows)) if *group == case.group => rows.push(outcomes),
            _ => groups.push((case.group, vec![outcomes])),
        }
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header("", &results.stores));
    for (group, rows) in &groups {
        table.add_row(row(group, &results.stores, rows));
    }
    let all: Vec<_> = results.cases.iter().map(|(_, outcomes)| outcomes.as_slice()).collect();
    table.add_row(row("all", &results.stores, &all));
    table.trim_fmt()
}

pub(super) fn header(first: &str, stores: &[String]) -> Vec<Cell> {
    let names = stores.iter().map(|name| right(name.clone()));
    std::iter::once(Cell::new(first)).chain(names).collect()
}

fn row(name: &str, stores: &[String], rows: &[&[Outcome]]) -> Vec<Cell> {
    let counts = (0..stores.len()).map(|column| {
        let tally = Tally::of(rows.iter().filter_map(|outcomes| outcomes.get(column)));
        right(match tally {
            Tally { passed: 0, failed: 0, inconclusive: 0, .. } => "–".to_owned(),
            Tally { failed: 0, inconclusive: 0, .. } => {
                format!("{}/{}", tally.passed, tally.claimed())
            }
            Tally { failed: 0, .. } => format!("? {}/{}", tally.passed, tally.claimed()),
            _ => format!("✗ {}/{}", tally.passed, tally.claimed()),
        })
    });
    std::iter::once(Cell::new(name)).chain(counts).collect()
}

pub(super) fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// The needs that each store does not claim, the number of cases, and the reason. Empty if there
/// are none.
pub(crate) fn not_claimed(results: &Results) -> String {
    let mut by_store: BTreeMap<(&str, Need), (usize, &str)> = BTreeMap::new();
    for (_, store, outcome) in results.outcomes() {
        if let Status::NotClaimed(need, reason) = outcome.status {
            by_store.entry((store, need)).or_insert((0, reason)).0 += 1;
        }
    }
    if by_store.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for ((store, need), (count, reason)) in by_store {
        let cases = if count == 1 { "1 case".to_owned() } else { format!("{count} cases") };
        table.add_row([store.to_owned(), need.to_string(), cases, reason.to_owned()]);
    }
    format!("not claimed\n{}\n", table.trim_fmt())
}

/// The last line: whether the stores conform.
pub(crate) fn verdict(results: &Results) -> String {
    let tally = results.tally();
    let (verdict, cases) = match tally {
        Tally { failed: 0, inconclusive: 0, .. } => {
            ("PASSED".green().bold().to_string(), tally.passed)
        }
        Tally { failed: 0, inconclusive, .. } => {
            ("INCONCLUSIVE".yellow().bold().to_string(), inconclusive)
        }
        Tally { failed, .. } => ("FAILED".red().bold().to_string(), failed),
    };
    let mut line = format!("{verdict} {cases} of {}", tally.claimed());
    if tally.failed > 0 && tally.inconclusive > 0 {
        let _ = write!(line, " · {} inconclusive", tally.inconclusive);
    }
    if tally.not_claimed > 0 {
        let _ = write!(line, " · {} not claimed", tally.not_claimed);
    }
    let _ = write!(line, " · {}", human(results.took));
    line
}
