//! The runner as a person or a CI job sees it: its output, its refusals and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Command, Output};

use rstest::rstest;

fn conformance(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(arguments)
        .env_remove("MEMBERSHIP_SEED")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[rstest]
#[case::unknown_flag(&["--sotre", "memory"], "unexpected argument '--sotre'")]
#[case::unknown_control(&["controls", "nonesuch"], "no broken store's name contains \"nonesuch\"; --broken lists them")]
#[case::unknown_store(&["--store", "mongodb"], "no store \"mongodb\"; there are memory, sqlite")]
#[case::filter_matches_nothing(&["--filter", "nonesuch"], "no case's name contains \"nonesuch\"; --list shows them all")]
#[case::bad_seed(&["--seed", "tomorrow"], "\"tomorrow\" is no seed")]
#[case::negative_seed(&["--seed=-1"], "\"-1\" is no seed")]
#[case::no_jobs(&["--jobs", "0"], "invalid value '0' for '--jobs <N>'")]
#[case::bad_soak(&["--soak", "forever"], "\"forever\" is no duration")]
#[case::unwritable_report(&["--store", "memory", "--filter", "a_missing_room_is_not_found", "--json", "/nonexistent/out.json"], "cannot write /nonexistent/out.json")]
fn a_run_that_cannot_start_exits_with_2_and_says_why(
    #[case] arguments: &[&str],
    #[case] message: &str,
) {
    let output = conformance(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
    assert!(stderr.lines().any(|line| line.starts_with("error: ")), "{stderr}");
}

#[test]
fn a_bad_seed_in_the_environment_is_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    let output = command.env("MEMBERSHIP_SEED", "0xyz").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: MEMBERSHIP_SEED: \"0xyz\" is no seed"));
}

#[test]
fn a_bad_filter_of_events_is_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    let output = command.env("RUST_LOG", "membership=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: RUST_LOG: \"membership=loud\" is no filter"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn events_are_shown_only_if_they_are_asked_for() {
    let events = |filter: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
        let arguments = ["--store", "sqlite", "--filter", "a_missing_room_is_not_found"];
        let output = command.args(arguments).env("RUST_LOG", filter).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let stderr = text(&output.stderr);
        assert!(!stderr.contains('\u{1b}'), "colours without a terminal: {stderr}");
        stderr.lines().filter(|line| line.contains("membership::")).count()
    };
    assert_eq!((events(""), events("membership=info")), (0, 0));
    assert!(events("membership=debug") > 0);
}

#[test]
fn an_unwritable_report_is_refused_before_anything_runs() {
    let output = conformance(&["--filter", "a_missing_room", "--junit", "/nonexistent/out.xml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_run_that_passes_exits_with_0_and_ends_with_its_verdict() {
    let output = conformance(&["--store", "memory", "--filter", "rooms::", "--seed", "42"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.starts_with("membership conformance   contract 1.1   seed 0x2a\n"), "{stdout}");
    assert!(stdout.lines().last().unwrap().starts_with("PASSED "), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "colours without a terminal: {stdout}");
}

#[test]
fn a_broken_store_exits_with_1_and_is_reported_in_full() {
    let store = "folds_case_in_room_ids";
    let output =
        conformance(&["--store", store, "--filter", "differ_only_in_case", "--seed", "42"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    let failure = stdout.split("✗ ").find(|part| part.starts_with(store)).unwrap_or_default();
    for part in ["TYPE-1 ", "expected  ", "got       ", "calls     #1 ", "--seed 0x2a"] {
        assert!(failure.contains(part), "no {part:?} in {failure}");
    }
    assert!(stdout.lines().last().unwrap().starts_with("FAILED "), "{stdout}");
}

#[test]
fn the_table_of_controls_says_which_case_caught_which() {
    let output = conformance(&["controls", "folds_case", "answers_epoch_zero", "--seed", "42"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let row = stdout.lines().find(|line| line.contains("folds_case_in_room_ids")).unwrap();
    assert!(row.contains("TYPE-1") && row.contains("ids::"), "{row}");
    assert!(stdout.lines().last().unwrap().starts_with("CAUGHT 2 of 2 · seed 0x2a"), "{stdout}");
}

#[test]
fn the_table_of_cases_says_which_controls_each_catches() {
    let output = conformance(&["controls", "folds_case", "--cases", "--seed", "42"]);
    let stdout = text(&output.stdout);
    let row = stdout.lines().find(|line| line.contains("ids_that_differ_only_in_case")).unwrap();
    assert!(row.contains("folds_case_in_room_ids"), "{row}");
    assert!(stdout.lines().last().unwrap().contains("of which catch none of 1"), "{stdout}");
}

#[test]
fn help_has_examples() {
    let output = conformance(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("cargo conformance --store sqlite"));
}

#[test]
fn every_clause_is_listed_with_its_cases() {
    let output = conformance(&["--clauses"]);
    let stdout = text(&output.stdout);
    for clause in membership_conformance::contract::clauses() {
        assert!(stdout.contains(clause.id), "{} is not listed", clause.id);
    }
}

#[test]
fn the_machine_readable_reports_agree_with_the_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let (json, junit) = (folder.path().join("out.json"), folder.path().join("out.xml"));
    let output = conformance(&[
        "--store",
        "memory",
        "--filter",
        "rooms::",
        "--seed",
        "7",
        "--json",
        json.to_str().unwrap(),
        "--junit",
        junit.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0));

    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(json["stores"], serde_json::json!(["memory"]));
    assert_eq!(json["seed"], "0x7");
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(json["summary"]["passed"], cases.len());
    assert_eq!(json["summary"]["failed"], 0);
    for case in cases {
        assert_eq!(case["group"], "rooms");
        assert_eq!(case["results"]["memory"]["status"], "pass");
        assert!(!case["clauses"].as_array().unwrap().is_empty());
    }

    let junit = std::fs::read_to_string(junit).unwrap();
    assert_eq!(junit.matches("<testcase ").count(), cases.len());
}

#[test]
fn a_violation_is_saved_and_replays_from_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    let found = command
        .args([
            "--store",
            "lets_two_rekeys_win",
            "--filter",
            "concurrent_calls_on_rooms_members_and_keys",
        ])
        .env("MEMBERSHIP_HISTORIES", directory.path())
        .output()
        .unwrap();
    let stdout = text(&found.stdout);
    assert_eq!(found.status.code(), Some(1), "{stdout}");
    let file = stdout.lines().find_map(|line| line.split_once("conformance replay ")).unwrap().1;

    let again = conformance(&["replay", file]);
    let stdout = text(&again.stdout);
    assert_eq!(again.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("✗ no order explains this"), "{stdout}");
}

#[rstest]
#[case::missing("/nonexistent/history.json", "cannot read /nonexistent/history.json")]
#[case::another_file(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "is no saved history")]
fn a_file_that_cannot_be_replayed_is_refused(#[case] file: &str, #[case] message: &str) {
    let output = conformance(&["replay", file]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: ") && stderr.contains(message), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
