//! One real server for a test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use membership::{JetStreamConfig, JetStreamStore};

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    monitor: u16,
    dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(extra: &[&str]) -> Self {
        let mut all = vec!["-js"];
        all.extend(extra);
        Self::start_as(&all)
    }

    /// A server without JetStream.
    pub(crate) fn start_plain() -> Self {
        Self::start_as(&[])
    }

    fn start_as(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let monitor = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = spawn(&dir, port, monitor, args);
        let server = Self { child, port, monitor, dir };
        server.wait();
        server
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the server did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.dir, self.port, self.monitor, &["-js"]);
        self.wait();
    }

    /// How many clients are connected, as the server's monitor says.
    pub(crate) fn connections(&self) -> u64 {
        let mut monitor = TcpStream::connect(("127.0.0.1", self.monitor)).unwrap();
        monitor.write_all(b"GET /connz HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        monitor.read_to_string(&mut answer).unwrap();
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<serde_json::Value>(json).unwrap()["num_connections"]
            .as_u64()
            .unwrap()
    }

    pub(crate) fn config(&self) -> JetStreamConfig {
        JetStreamConfig::new([format!("nats://127.0.0.1:{}", self.port)])
    }

    pub(crate) async fn open(&self, prefix: &str) -> JetStreamStore {
        let config = JetStreamConfig { prefix: prefix.to_owned(), ..self.config() };
        JetStreamStore::open(config).await.unwrap()
    }

    pub(crate) async fn raw(&self) -> async_nats::Client {
        async_nats::connect(format!("127.0.0.1:{}", self.port)).await.unwrap()
    }
}

fn spawn(dir: &tempfile::TempDir, port: u16, monitor: u16, args: &[&str]) -> Child {
    let binary = std::env::var("NATS_SERVER")
        .expect("set NATS_SERVER to a nats-server binary, 2.12 or later");
    Command::new(binary)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-m", &monitor.to_string(), "-sd"])
        .arg(dir.path())
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
