//! A violation as a drawing in text: one row per client, time from left to right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Call, Reason, Says, Violation};
use crate::show::Show;

/// The number of columns per moment.
const WIDE: usize = 3;

/// Draws the calls of a violation, and lists them by number. `✗` marks the call that no order
/// explains.
#[must_use]
pub fn picture(violation: &Violation) -> String {
    let calls = &violation.witness.calls;
    let culprit = match violation.reason {
        Reason::NoOrder(number) => Some(number),
        Reason::TooMuch => None,
    };
    let mut text = String::new();
    for (number, line) in violation.witness.start.show().lines().enumerate() {
        let _ = writeln!(text, "{:<11}{line}", if number == 0 { "before" } else { "" });
    }
    let moments = moments(calls);
    let mut rows: BTreeMap<usize, Vec<char>> = BTreeMap::new();
    let width = moments.len() * WIDE + 1;
    for (number, call) in calls.iter().enumerate() {
        let row = rows.entry(call.client).or_insert_with(|| vec![' '; width]);
        draw(row, &bar(call, number, culprit == Some(number), &moments, width));
    }
    for (client, row) in rows {
        let row: String = row.into_iter().collect();
        let _ = writeln!(text, "client {client:<4}{}", row.trim_end());
    }
    for (number, call) in calls.iter().enumerate() {
        let _ = writeln!(text, "{}", line(call, number, culprit == Some(number)));
    }
    text
}

fn line(call: &Call, number: usize, culprit: bool) -> String {
    let answer = call.ended.as_ref().map_or("no answer yet".to_owned(), |(_, a)| a.show());
    let mut line = format!("{:>9}  {} -> {answer}", number + 1, call.op.show());
    if call.says() == Says::Perhaps {
        line.push_str("   (may take effect later, or never)");
    }
    if culprit {
        line.push_str("   ✗ no order explains this");
    }
    line
}

/// Numbers the moments at which a call begins or returns, in order.
fn moments(calls: &[Call]) -> BTreeMap<u64, usize> {
    let ended = calls.iter().filter_map(|call| call.ended.as_ref()).map(|(at, _)| *at);
    let all: BTreeSet<u64> = calls.iter().map(|call| call.began).chain(ended).collect();
    all.into_iter().zip(0..).collect()
}

/// The first column of a call's bar, and the bar's characters.
fn bar(
    call: &Call,
    number: usize,
    culprit: bool,
    moments: &BTreeMap<u64, usize>,
    width: usize,
) -> (usize, Vec<char>) {
    let column = |at: u64| moments.get(&at).map_or(0, |moment| moment * WIDE);
    let start = column(call.began);
    let end = call.ended.as_ref().map_or(width - 1, |(at, _)| column(*at));
    let open = call.says() == Says::Perhaps || call.ended.is_none();
    let mut bar = vec![if open { '╌' } else { '─' }; end.saturating_sub(start) + 1];
    if let Some(last) = bar.last_mut() {
        *last = if open { '›' } else { '┤' };
    }
    if let Some(first) = bar.first_mut() {
        *first = '├';
    }
    let mut label = (number + 1).to_string();
    if culprit {
        label.push('✗');
    }
    let room = bar.len().saturating_sub(label.chars().count());
    for (place, letter) in bar.iter_mut().skip(room.div_ceil(2).max(1)).zip(label.chars()) {
        *place = letter;
    }
    (start, bar)
}

fn draw(row: &mut [char], (start, bar): &(usize, Vec<char>)) {
    for (place, letter) in row.iter_mut().skip(*start).zip(bar) {
        *place = *letter;
    }
}
