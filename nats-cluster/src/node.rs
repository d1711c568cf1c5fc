//! One server of a cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::Signal;
use serde::Deserialize;
use tokio::sync::Mutex as AsyncMutex;

#[cfg(feature = "docker")]
use super::docker;
use super::link::Upstream;
use super::process::Process;
use super::provision::Means;
use super::{Link, NatsError, NatsServer};

/// How long a server may take to start, or to stop after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a running server listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) client: SocketAddr,
    pub(super) monitor: SocketAddr,
    pub(super) cluster: Option<SocketAddr>,
}

/// One server: its process, its data and its log. Made by [`Cluster`](super::Cluster).
#[derive(Debug)]
pub struct Node {
    index: usize,
    name: String,
    /// A std lock, which is held only for a clone.
    means: Mutex<Means>,
    config: PathBuf,
    log: PathBuf,
    store: PathBuf,
    ports_dir: PathBuf,
    /// Held during a whole start or stop, so that only one happens at a time.
    process: AsyncMutex<Option<Process>>,
    ports: Mutex<Option<Ports>>,
}

/// The file in which a server reports where it listens.
#[derive(Deserialize)]
struct PortsFile {
    nats: Vec<String>,
    monitoring: Vec<String>,
    #[serde(default)]
    cluster: Vec<String>,
}

impl Node {
    pub(super) fn new(index: usize, means: &Means, dir: &Path, data: &Path) -> Self {
        let name = format!("n{index}");
        Self {
            index,
            means: Mutex::new(means.clone()),
            config: dir.join(format!("{name}.conf")),
            log: dir.join(format!("{name}.log")),
            store: data.join(&name),
            ports_dir: dir.join(format!("{name}.ports")),
            name,
            process: AsyncMutex::default(),
            ports: Mutex::default(),
        }
    }

    /// The server's name in its cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of the server's log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last `lines` lines of the server's log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all.iter().skip(all.len().saturating_sub(lines)).copied().collect::<Vec<_>>().join("\n")
    }

    /// The directory of the server's data.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The id of the server's process; `None` while it is down.
    pub async fn process_id(&self) -> Option<u32> {
        self.process.lock().await.as_ref().map(Process::id)
    }

    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    pub(super) fn ports_dir(&self) -> &Path {
        &self.ports_dir
    }

    pub(super) fn ports(&self) -> Option<Ports> {
        *self.lock_ports()
    }

    fn lock_ports(&self) -> MutexGuard<'_, Option<Ports>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the server, unless it runs. Connections through its links wait until it listens.
    pub(super) async fn start(&self, to_it: &Links<'_>) -> Result<(), NatsError> {
        let mut process = self.process.lock().await;
        if let Some(running) = process.as_mut()
            && running.ended().map_err(self.io("ask after"))?.is_none()
        {
            return Ok(());
        }
        match fs::remove_dir_all(&self.ports_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.io("clear the files of")(error));
            }
            _ => fs::create_dir(&self.ports_dir).map_err(self.io("make the files of"))?,
        }
        to_it.lead(Upstream::Starting, Upstream::Starting);
        let (running, ports) = match self.launch().await {
            Ok(launched) => launched,
            Err(error) => {
                to_it.lead(Upstream::Down, Upstream::Down);
                return Err(error);
            }
        };
        *process = Some(running);
        *self.lock_ports() = Some(ports);
        let cluster = ports.cluster.map_or(Upstream::Down, Upstream::At);
        to_it.lead(Upstream::At(ports.client), cluster);
        Ok(())
    }

    async fn launch(&self) -> Result<(Process, Ports), NatsError> {
        let means = self.means.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match &means {
            Means::Url(_) => Err(NatsError::NotOurs { what: "start" }),
            Means::Binary(binary) => {
                let args = [Path::new("-c"), &self.config];
                let started = Process::start(binary, &args, &self.log);
                let mut running = started.map_err(self.io("start"))?;
                let (ports, _) = self.listening(Some(&mut running)).await?;
                Ok((running, ports))
            }
            #[cfg(feature = "docker")]
            Means::Docker(image) => {
                let dir = self.config.parent().unwrap_or(&self.config);
                let started = docker::Container::start(image, dir, &self.config, &self.log).await;
                let what = format!("start a container for {}", self.name);
                let container = started.map_err(|why| NatsError::Refused { what, why })?;
                let (ports, file) = self.listening(None).await?;
                let pid = docker::pid_of(&file).ok_or(io::ErrorKind::InvalidData.into());
                let running = pid.and_then(|pid| Process::inside(container, pid));
                Ok((running.map_err(self.io("find the process of"))?, ports))
            }
        }
    }

    /// Waits until the server reports its ports. Returns the ports, and the path of the file that
    /// reports them.
    async fn listening(
        &self,
        mut running: Option<&mut Process>,
    ) -> Result<(Ports, PathBuf), NatsError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(ports) = self.read_ports() {
                return Ok(ports);
            }
            let ended = match &mut running {
                Some(running) => running.ended().map_err(self.io("ask after"))?,
                None => None,
            };
            if let Some(status) = ended {
                return Err(NatsError::Ended {
                    node: self.index,
                    status: status.to_owned(),
                    log: self.log.clone(),
                    tail: self.log_tail(5).replace('\n', " | "),
                });
            }
            if Instant::now() > deadline {
                return Err(NatsError::TooLate {
                    what: format!("{} listens", self.name),
                    seconds: PATIENCE.as_secs(),
                    state: self.log_tail(5).replace('\n', " | "),
                });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Reads the file of ports; `None` while it is missing or incomplete.
    fn read_ports(&self) -> Option<(Ports, PathBuf)> {
        let path = fs::read_dir(&self.ports_dir).ok()?.next()?.ok()?.path();
        let file: PortsFile = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let address = |urls: &[String]| urls.first()?.rsplit('/').next()?.parse().ok();
        let ports = Ports {
            client: address(&file.nats)?,
            monitor: address(&file.monitoring)?,
            cluster: address(&file.cluster),
        };
        Some((ports, path))
    }

    /// Ends the server: in good order (SIGTERM), or at once (SIGKILL).
    pub(super) async fn end(&self, nicely: bool, to_it: &Links<'_>) -> Result<(), NatsError> {
        let mut process = self.process.lock().await;
        *self.lock_ports() = None;
        let ended = match process.as_mut() {
            Some(running) if nicely => self.terminate(running).await,
            _ => Ok(()),
        };
        // Dropping the value kills a process that has not ended.
        *process = None;
        to_it.lead(Upstream::Down, Upstream::Down);
        ended
    }

    async fn terminate(&self, running: &mut Process) -> Result<(), NatsError> {
        running.signal(Signal::CONT).map_err(self.io("resume"))?;
        running.signal(Signal::TERM).map_err(self.io("stop"))?;
        if running.wait(PATIENCE).await.map_err(self.io("wait for"))? {
            return Ok(());
        }
        Err(NatsError::TooLate {
            what: format!("{} ended after SIGTERM", self.name),
            seconds: PATIENCE.as_secs(),
            state: self.log_tail(5).replace('\n', " | "),
        })
    }

    /// Freezes the server (SIGSTOP), or lets it go on (SIGCONT).
    pub(super) async fn freeze(&self, freeze: bool) -> Result<(), NatsError> {
        let mut process = self.process.lock().await;
        match process.as_mut() {
            Some(running) if freeze => running.pause().map_err(self.io("pause")),
            Some(running) => running.signal(Signal::CONT).map_err(self.io("resume")),
            None => Ok(()),
        }
    }

    /// Sets the program from which the server is started next.
    pub(super) fn serve_with(&self, server: &NatsServer) {
        *self.means.lock().unwrap_or_else(PoisonError::into_inner) = server.means.clone();
    }

    /// Removes the server's data.
    pub(super) fn empty(&self) -> Result<(), NatsError> {
        match fs::remove_dir_all(&self.store) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.io("remove the data of")(error))
            }
            _ => Ok(()),
        }
    }

    fn io(&self, what: &str) -> impl FnOnce(io::Error) -> NatsError + use<> {
        NatsError::io(format!("{what} {}", self.name))
    }
}

/// The links that lead to one server.
pub(super) struct Links<'a> {
    pub(super) client: &'a Link,
    pub(super) routes: Vec<&'a Link>,
}

impl Links<'_> {
    fn lead(&self, client: Upstream, cluster: Upstream) {
        self.client.lead(client);
        for route in &self.routes {
            route.lead(cluster);
        }
    }
}
