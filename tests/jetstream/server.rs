//! One real server for a test.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use membership::{JetStreamConfig, JetStreamStore};

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = spawn(&dir, port, extra);
        let server = Self { child, port, dir };
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
        self.child = spawn(&self.dir, self.port, &[]);
        self.wait();
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

fn spawn(dir: &tempfile::TempDir, port: u16, extra: &[&str]) -> Child {
    let binary = std::env::var("NATS_SERVER")
        .expect("set NATS_SERVER to a nats-server binary, 2.12 or later");
    Command::new(binary)
        .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
        .arg(dir.path())
        .args(extra)
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
