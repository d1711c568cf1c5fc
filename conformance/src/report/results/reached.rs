use std::collections::BTreeMap;

use comfy_table::{Table, presets};

use super::Results;
use super::matrix::{header, right};

/// The events that cases counted, summed up per store; the JSON report has them per case. Empty if
/// no case counts any.
pub(crate) fn reached(results: &Results) -> String {
    let mut met: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (_, store, outcome) in results.outcomes() {
        for (what, times) in &outcome.reached {
            *met.entry(what).or_default().entry(store).or_default() += times;
        }
    }
    if met.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header("reached", &results.stores));
    for (what, by_store) in met {
        let counts = results.stores.iter().map(|store| {
            let times = by_store.get(store.as_str());
            right(times.map_or_else(|| "–".to_owned(), ToString::to_string))
        });
        table.add_row(std::iter::once(what.into()).chain(counts));
    }
    format!("{}\n", table.trim_fmt())
}
