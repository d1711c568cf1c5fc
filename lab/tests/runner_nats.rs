//! The runner and its NATS servers: which ones it uses, and what it reports if there are none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Command, Output};

use nats_cluster::{Cluster, ClusterOptions};
use rstest::rstest;

fn conformance(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conformance")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[rstest]
#[case::unknown_way(&["--nats", "carrier-pigeon"], "unknown way \"carrier-pigeon\" to a nats-server: say auto, binary, docker or url")]
#[case::no_way(&["--nats"], "a value is required for '--nats <WAY>'")]
fn a_wrong_way_to_a_server_is_refused(#[case] arguments: &[&str], #[case] message: &str) {
    let output = conformance(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
}

/// Runs the runner where no server can be found, with the environment `set`.
fn without_server(arguments: &[&str], set: &[(&str, &str)]) -> Output {
    let empty = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(arguments)
        .env_clear()
        .env("PATH", empty.path())
        // No server was ever fetched to this directory, and no Docker engine listens here.
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
#[case::nobody_at_the_url(&["--nats", "url"], &[("MEMBERSHIP_NATS_URL", "nats://127.0.0.1:1")], "no nats-server by way of url: cannot reach 127.0.0.1:1: Connection refused")]
fn without_a_server_nothing_runs_and_nothing_passes(
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

#[tokio::test]
async fn a_server_at_a_url_is_one_server() {
    let cluster = Cluster::start(ClusterOptions::servers(1)).await.unwrap();
    let url = cluster.direct_url(0).unwrap();
    let set = [("MEMBERSHIP_NATS_URL", url.as_str())];
    let output = without_server(&["--store", "jetstream-r3", "--nats", "url"], &set);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("no cluster of 3 can be made of the server at MEMBERSHIP_NATS_URL"));

    let one = ["--store", "jetstream-r1", "--nats", "url", "--filter", "a_missing_room_is_not"];
    let mut runner = Command::new(env!("CARGO_BIN_EXE_conformance"));
    let output = runner.args(one).envs(set).output().unwrap();
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let version = cluster.server().version();
    let address = url.trim_start_matches("nats://");
    assert_eq!(stdout.lines().nth(1), Some(&*format!("nats-server {version} (url, {address})")));
}

#[test]
fn the_message_names_both_ways_to_a_server() {
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
fn a_run_and_its_reports_name_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (json, junit) = (folder.path().join("out.json"), folder.path().join("out.xml"));
    let arguments = [
        "--store",
        "jetstream-r1",
        "--filter",
        "a_missing_room_is_not_found",
        "--json",
        json.to_str().unwrap(),
        "--junit",
        junit.to_str().unwrap(),
    ];
    let output = conformance(&arguments);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let server = stdout.lines().nth(1).unwrap();
    assert!(server.starts_with("nats-server ") && server.contains(" ("), "{stdout}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(json["servers"], serde_json::json!([server]));
    let junit = std::fs::read_to_string(junit).unwrap();
    assert!(junit.contains(&format!("name=\"server\" value=\"{server}\"")), "{junit}");
}
