use std::collections::BTreeMap;

use serde::Serialize;

use super::Results;
use crate::contract;
use crate::run::{Outcome, Report, Status};

#[derive(Serialize)]
struct Document<'a> {
    contract: &'a str,
    seed: String,
    stores: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    servers: &'a [String],
    cases: Vec<Case<'a>>,
    summary: Summary,
}

#[derive(Serialize)]
struct Case<'a> {
    name: String,
    group: &'a str,
    clauses: &'a [&'a str],
    results: BTreeMap<&'a str, Result>,
}

#[derive(Serialize)]
struct Result {
    status: &'static str,
    ms: u64,
    message: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reached: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Summary {
    passed: usize,
    failed: usize,
    not_claimed: usize,
    inconclusive: usize,
    ms: u64,
}

/// The run as a JSON document.
pub(crate) fn json(results: &Results) -> serde_json::Result<String> {
    let cases = results.cases.iter().map(|(case, outcomes)| {
        let stores = results.stores.iter().map(String::as_str);
        Case {
            name: case.name(),
            group: case.group,
            clauses: case.clauses,
            results: stores.zip(outcomes.iter().map(result)).collect(),
        }
    });
    let tally = results.tally();
    let document = Document {
        contract: contract::version(),
        seed: format!("{:#x}", results.seed),
        stores: &results.stores,
        servers: &results.servers,
        cases: cases.collect(),
        summary: Summary {
            passed: tally.passed,
            failed: tally.failed,
            not_claimed: tally.not_claimed,
            inconclusive: tally.inconclusive,
            ms: millis(results.took),
        },
    };
    serde_json::to_string_pretty(&document).map(|text| text + "\n")
}

fn result(outcome: &Outcome) -> Result {
    let (status, message) = match &outcome.status {
        Status::Pass => ("pass", None),
        Status::Fail(report) => ("fail", Some(said(report))),
        Status::Inconclusive(report) => ("inconclusive", Some(said(report))),
        Status::NotClaimed(need, reason) => ("not_claimed", Some(format!("{need}: {reason}"))),
    };
    Result { status, ms: millis(outcome.took), message, reached: outcome.reached.clone() }
}

fn said(report: &Report) -> String {
    format!("expected {}; got {}", report.failure.expected, report.failure.got)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
