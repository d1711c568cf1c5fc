//! The runner as a person or a CI job meets it: what it prints, what it refuses, how it exits.

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
#[case::unknown_store(&["--store", "mongodb"], "no store \"mongodb\"; there are memory, sqlite, jetstream-r1, jetstream-r3, jetstream-r5, and the broken ones")]
#[case::unknown_way(&["--nats", "carrier-pigeon"], "unknown way \"carrier-pigeon\" to a nats-server: say auto, binary, docker or url")]
#[case::no_way(&["--nats"], "a value is required for '--nats <WAY>'")]
#[case::filter_matches_nothing(&["--filter", "nonesuch"], "no case's name contains \"nonesuch\"; --list shows them all")]
#[case::bad_seed(&["--seed", "tomorrow"], "\"tomorrow\" is no seed")]
#[case::negative_seed(&["--seed=-1"], "\"-1\" is no seed")]
#[case::no_jobs(&["--jobs", "0"], "invalid value '0' for '--jobs <N>'")]
#[case::unwritable_report(&["--store", "memory", "--filter", "a_missing_room_is_not_found", "--json", "/nonexistent/out.json"], "cannot write /nonexistent/out.json")]
fn what_cannot_run_exits_with_2_and_says_why(#[case] arguments: &[&str], #[case] message: &str) {
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
fn an_unwritable_report_is_refused_before_anything_runs() {
    let output = conformance(&["--filter", "a_missing_room", "--junit", "/nonexistent/out.xml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_green_run_exits_with_0_and_ends_with_its_verdict() {
    let output = conformance(&["--store", "memory", "--filter", "rooms::", "--seed", "42"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.starts_with("membership conformance   contract 1.0   seed 0x2a\n"), "{stdout}");
    assert!(stdout.lines().last().unwrap().starts_with("PASSED "), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "colours without a terminal: {stdout}");
}

#[test]
fn a_broken_store_exits_with_1_and_is_told_of_in_full() {
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
fn the_reports_for_machines_say_what_the_matrix_says() {
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

/// The runner where there is nothing to be found, but what `set` says.
fn without_server(arguments: &[&str], set: &[(&str, &str)]) -> Output {
    let empty = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(arguments)
        .env_clear()
        .env("PATH", empty.path())
        // Where no server was ever fetched to, and no Docker engine listens.
        .env("CARGO_TARGET_DIR", empty.path())
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .envs(set.iter().copied())
        .output()
        .unwrap()
}

#[rstest]
#[case::none(&[], &[], "no nats-server to be had")]
#[case::no_binary(&["--nats", "binary"], &[], "no nats-server by way of binary: no nats-server on PATH")]
#[case::named_and_missing(&[], &[("NATS_SERVER", "/nonexistent/nats-server")], "no nats-server by way of NATS_SERVER: cannot run /nonexistent/nats-server")]
#[case::no_url(&["--nats", "url"], &[], "set MEMBERSHIP_NATS_URL to the server's address")]
#[case::no_cluster_at_a_url(&["--store", "jetstream-r3", "--nats", "url"], &[("MEMBERSHIP_NATS_URL", "nats://127.0.0.1:1")], "no cluster of 3 can be made of the server at MEMBERSHIP_NATS_URL")]
fn without_a_server_nothing_runs_and_nothing_is_green(
    #[case] arguments: &[&str],
    #[case] set: &[(&str, &str)],
    #[case] message: &str,
) {
    let output = without_server(arguments, set);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("error: jetstream-r"), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn the_two_ways_to_a_server_are_told() {
    let output = without_server(&["--store", "jetstream-r1"], &[]);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("either give a binary"), "{stderr}");
    assert!(stderr.contains("or start a Docker engine"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn stores_that_need_no_server_run_without_one() {
    let arguments = ["--store", "memory", "--filter", "a_missing_room_is_not_found"];
    let output = without_server(&arguments, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_run_says_which_server_it_was_on() {
    let arguments = ["--store", "jetstream-r1", "--filter", "a_missing_room_is_not_found"];
    let output = conformance(&arguments);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let server = stdout.lines().nth(1).unwrap();
    assert!(server.starts_with("nats-server ") && server.contains(" ("), "{stdout}");
}
