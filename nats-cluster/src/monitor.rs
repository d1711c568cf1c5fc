//! The monitoring port of a server.
//!
//! A server reports its own state at this port, without a quorum and without a login.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How long a server may take to answer. A paused server does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// `/healthz`.
#[derive(Debug, Deserialize)]
pub(super) struct Health {
    pub(super) status: String,
    pub(super) error: Option<String>,
}

/// `/jsz`.
#[derive(Debug, Deserialize)]
pub(super) struct JetStream {
    pub(super) meta_cluster: Option<MetaCluster>,
    #[serde(default)]
    account_details: Vec<Account>,
}

/// The group of servers that keeps the list of streams.
#[derive(Debug, Deserialize)]
pub(super) struct MetaCluster {
    #[serde(default)]
    pub(super) leader: String,
    /// Reported by the leader only.
    #[serde(default)]
    pub(super) replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Replica {
    #[serde(default)]
    pub(super) current: bool,
    #[serde(default)]
    pub(super) offline: bool,
}

#[derive(Debug, Deserialize)]
struct Account {
    #[serde(default)]
    stream_detail: Vec<Stream>,
}

/// A stream of which the server has a replica.
#[derive(Debug, Deserialize)]
pub(super) struct Stream {
    name: String,
    pub(super) state: StreamState,
    pub(super) cluster: Option<StreamCluster>,
}

/// The data of the replica.
#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) last_seq: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamCluster {
    pub(super) leader: Option<String>,
    #[serde(default)]
    pub(super) replicas: Vec<Replica>,
}

impl JetStream {
    pub(super) fn stream(&self, name: &str) -> Option<&Stream> {
        self.account_details
            .iter()
            .flat_map(|account| &account.stream_detail)
            .find(|s| s.name == name)
    }
}

/// `/subsz`.
#[derive(Debug, Deserialize)]
pub(super) struct Subscriptions {
    /// The subscriptions of the server itself and of its clients, not those of other servers.
    #[serde(default)]
    pub(super) subscriptions_list: Vec<Subscription>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Subscription {
    pub(super) subject: String,
}

/// `/connz`.
#[derive(Debug, Deserialize)]
pub(super) struct Clients {
    pub(super) num_connections: usize,
    #[serde(default)]
    pub(super) connections: Vec<Connection>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Connection {
    /// The client's name, as the client gives it.
    #[serde(default)]
    pub(super) name: String,
}

/// `/routez`.
#[derive(Debug, Deserialize)]
pub(super) struct Routes {
    #[serde(default)]
    pub(super) routes: Vec<Route>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Route {
    /// The remote end, as this server sees it.
    pub(super) port: u16,
}

/// Requests `path`. Returns the server's answer, whatever its status, or why there is none.
pub(super) async fn get<T>(server: SocketAddr, path: &str) -> Result<T, String>
where
    T: DeserializeOwned + Send + 'static,
{
    // Each request has a connection of its own, since the server of the previous connection may
    // have ended. The buffers are as large as most answers, and no larger, since each buffer is
    // filled with zeros first.
    static AGENT: LazyLock<ureq::Agent> = LazyLock::new(|| {
        ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_idle_connections(0)
            .input_buffer_size(16 * 1024)
            .output_buffer_size(4 * 1024)
            .build()
            .into()
    });
    let path = path.to_owned();
    let ask = move || {
        let answer = AGENT.get(format!("http://{server}{path}")).call();
        let read = answer.and_then(|mut answer| answer.body_mut().read_to_vec());
        let body = read.map_err(|error| format!("{path}: {error}"))?;
        serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))
    };
    tokio::task::spawn_blocking(ask).await.unwrap_or_else(|error| Err(error.to_string()))
}
