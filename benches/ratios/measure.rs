//! Ratios of a store's cost to a floor.
//!
//! A store's cost and its floor are measured alternately, round by round, so that other load on the
//! machine hits both. A ratio is that of the two medians.

use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};

/// The factor by which a ratio may miss its limit before the bench fails, since machines are noisy.
const TOLERANCE: f64 = 4.0 / 3.0;

/// The limit of a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// One line of the table.
pub(crate) struct Row {
    what: String,
    ours: Duration,
    floor: Option<(String, Duration)>,
    ratio: f64,
    limit: Limit,
}

impl Row {
    /// Compares times: how many times the floor's cost the store's cost is.
    pub(crate) fn cost(
        what: &str,
        floor: &str,
        limit: Limit,
        rounds: usize,
        mut ours: impl FnMut() -> Duration,
        mut bare: impl FnMut() -> Duration,
    ) -> Self {
        let (ours, bare) = interleaved(rounds, &mut ours, &mut bare);
        let ratio = ours.as_secs_f64() / bare.as_secs_f64();
        Self { what: what.to_owned(), ours, floor: Some((floor.to_owned(), bare)), ratio, limit }
    }

    /// Compares rates: how many times the floor's throughput the store's throughput is.
    pub(crate) fn rate(
        what: &str,
        floor: &str,
        limit: Limit,
        rounds: usize,
        ours: impl FnMut() -> Duration,
        bare: impl FnMut() -> Duration,
    ) -> Self {
        let row = Self::cost(what, floor, limit, rounds, ours, bare);
        Self { ratio: row.ratio.recip(), ..row }
    }

    /// Compares a time with a fixed bound.
    pub(crate) fn absolute(
        what: &str,
        bound: Duration,
        rounds: usize,
        mut ours: impl FnMut() -> Duration,
    ) -> Self {
        let (ours, _) = interleaved(rounds, &mut ours, &mut || bound);
        let ratio = ours.as_secs_f64() / bound.as_secs_f64();
        let floor = Some((format!("{} itself", human(bound)), bound));
        Self { what: what.to_owned(), ours, floor, ratio, limit: Limit::AtMost(1.0) }
    }

    fn kept(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.ratio <= limit,
            Limit::AtLeast(limit) => self.ratio >= limit,
        }
    }

    /// Whether the limit is missed by more than noise explains.
    pub(crate) fn missed(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.ratio > limit * TOLERANCE,
            Limit::AtLeast(limit) => self.ratio < limit / TOLERANCE,
        }
    }
}

/// Returns the medians of both costs, over `rounds` rounds. Each round measures both, and every
/// second round in the other order. One round before them warms up.
fn interleaved(
    rounds: usize,
    ours: &mut dyn FnMut() -> Duration,
    bare: &mut dyn FnMut() -> Duration,
) -> (Duration, Duration) {
    ours();
    bare();
    let (mut all_ours, mut all_bare) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            all_ours.push(ours());
            all_bare.push(bare());
        } else {
            all_bare.push(bare());
            all_ours.push(ours());
        }
    }
    (median(all_ours), median(all_bare))
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// Returns the time of one call, where `calls` makes `count` calls.
pub(crate) fn each(count: u32, calls: impl FnOnce()) -> Duration {
    let began = Instant::now();
    calls();
    began.elapsed() / count
}

/// The table of `docs/speed.md`.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["what", "took", "floor", "took", "ratio", "limit", ""]);
    for column in [1, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows {
        let (floor, took) = row.floor.as_ref().map_or(("", Duration::ZERO), |(f, t)| (f, *t));
        let limit = match row.limit {
            Limit::AtMost(limit) => format!("≤ {limit:?}"),
            Limit::AtLeast(limit) => format!("≥ {limit:?}"),
        };
        let mark = if row.missed() {
            "missed"
        } else if row.kept() {
            ""
        } else {
            "near"
        };
        table.add_row([
            row.what.as_str(),
            &human(row.ours),
            floor,
            &human(took),
            &shown(row.ratio),
            &limit,
            mark,
        ]);
    }
    table.trim_fmt()
}

fn shown(ratio: f64) -> String {
    if ratio < 0.095 { format!("{ratio:.4}") } else { format!("{ratio:.2}") }
}

fn human(time: Duration) -> String {
    let nanos = time.as_secs_f64() * 1e9;
    match nanos {
        ..1e3 => format!("{nanos:.0} ns"),
        ..1e6 => format!("{:.1} µs", nanos / 1e3),
        _ => format!("{:.1} ms", nanos / 1e6),
    }
}
