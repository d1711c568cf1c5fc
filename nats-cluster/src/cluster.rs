//! A cluster of servers, and every link to and between them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;
use std::{fmt, fs, io};

use async_nats::{ConnectOptions, ServerAddr};
use futures::future::{join_all, try_join_all};
use percent_encoding::percent_decode_str;
use tokio::net::TcpSocket;

use super::config::{Place, TlsFiles};
use super::link::Upstream;
use super::monitor::{self, Clients, Routes};
use super::node::Links;
use super::provision::Means;
use super::workdir::WorkDir;
use super::{ClusterOptions, Flow, Link, NatsError, NatsServer, Node, Sync, Way, ready};

/// One, three or five servers on loopback. Every connection goes through a [`Link`].
///
/// Dropping a cluster kills its servers. So does the end of this process, however the process ends.
///
/// Nodes are numbered from 0. A *route* is the link between two servers. The server with the lower
/// number connects: if two servers connect to each other at once, each drops the other's connection
/// as a duplicate. The servers try again a second later, and the cluster misses its first election.
pub struct Cluster {
    server: NatsServer,
    options: ClusterOptions,
    nodes: Vec<Node>,
    /// The routes, by the numbers of their two nodes. The node with the lower number is first, and
    /// connects.
    routes: BTreeMap<(usize, usize), Link>,
    clients: Vec<Link>,
    /// The address of a server at a URL, if this process did not start the server.
    elsewhere: Option<ServerAddr>,
    /// Ports that lead nowhere.
    dead_ends: DeadEnds,
    tls: Option<TlsFiles>,
    /// The last field, so that the servers have ended before the directory is removed.
    dir: WorkDir,
}

impl Cluster {
    /// Starts the servers and waits until they are ready.
    ///
    /// # Errors
    /// [`NatsError::NoServer`] or [`NatsError::Way`] if no server can be found;
    /// [`NatsError::NotOurs`] if several are asked for and there is one at a URL; otherwise the
    /// reason why a server did not start, with the end of its log.
    pub async fn start(options: ClusterOptions) -> Result<Self, NatsError> {
        let provision = options.provision;
        let find = tokio::task::spawn_blocking(move || NatsServer::find(provision)).await;
        let server = find.map_err(|_| NatsError::NoRuntime)??;
        Self::start_with(server, options).await
    }

    /// Starts servers of a kind that was found before, and waits until they are ready.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        server: NatsServer,
        options: ClusterOptions,
    ) -> Result<Self, NatsError> {
        let cluster = Self::new(server, options).await?;
        let started = try_join_all((0..cluster.nodes.len()).map(|node| cluster.run(node))).await;
        let ready = match started {
            Ok(_) => cluster.wait_ready().await,
            Err(error) => Err(error),
        };
        match ready {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.keep_logs();
                Err(error)
            }
        }
    }

    async fn new(server: NatsServer, options: ClusterOptions) -> Result<Self, NatsError> {
        let servers = options.servers;
        if ![1, 3, 5].contains(&servers) {
            return Err(NatsError::Options { servers, why: "say 1, 3 or 5".to_owned() });
        }
        // Only a binary can keep its data in `/dev/shm`. A container has a `/dev/shm` of its own,
        // which is lost with the container.
        let hastily = options.sync == Sync::Default && matches!(server.means, Means::Binary(_));
        let dir = WorkDir::new(hastily)?;
        let tls = options.tls.as_ref().map(|tls| tls.write(dir.path())).transpose();
        let tls = tls.map_err(NatsError::io("write certificates"))?;
        match &server.means {
            Means::Url(url) if servers == 1 => {
                let address = url.parse::<ServerAddr>().map_err(refused("read the URL"))?;
                let found = tokio::net::lookup_host((address.host(), address.port()))
                    .await
                    .map_err(NatsError::io("look up the host of MEMBERSHIP_NATS_URL"))?
                    .next();
                let found = found.ok_or(NatsError::NotOurs { what: "find" })?;
                return Ok(Self {
                    server,
                    options,
                    nodes: Vec::new(),
                    routes: BTreeMap::new(),
                    clients: vec![Link::to(found)?],
                    elsewhere: Some(address),
                    dead_ends: DeadEnds::take(0).map_err(NatsError::io("listen on 127.0.0.1"))?,
                    tls,
                    dir,
                });
            }
            Means::Url(_) => return Err(NatsError::NotOurs { what: "make a cluster of" }),
            #[cfg(feature = "docker")]
            Means::Docker(_) => {}
            Means::Binary(_) => {}
        }
        let mut routes = BTreeMap::new();
        let mut clients = Vec::new();
        let mut nodes = Vec::new();
        for from in 0..servers {
            clients.push(Link::new(Upstream::Down)?);
            nodes.push(Node::new(from, &server.means, dir.path(), dir.data()));
            for to in from + 1..servers {
                routes.insert((from, to), Link::new(Upstream::Down)?);
            }
        }
        let dead_ends = DeadEnds::take(servers).map_err(NatsError::io("listen on 127.0.0.1"))?;
        let cluster =
            Self { server, options, nodes, routes, clients, elsewhere: None, dead_ends, tls, dir };
        cluster.configure()?;
        Ok(cluster)
    }

    /// Writes the configuration files. The files never change: the links' addresses stay, and only
    /// the servers behind them move.
    fn configure(&self) -> Result<(), NatsError> {
        let name = format!("c{}", std::process::id());
        for (index, node) in self.nodes.iter().enumerate() {
            let of = self.routes.iter().filter(|((from, _), _)| *from == index);
            let mut routes: Vec<SocketAddr> = of.map(|(_, link)| link.address()).collect();
            // A server takes the number of its routes for the size of its cluster. So each server
            // gets as many routes as the others.
            routes.extend(self.dead_ends.silent.iter().take(index).map(|(_, address)| *address));
            let file = self.options.file(&Place {
                name: node.name(),
                cluster: &name,
                store: node.store(),
                ports: node.ports_dir(),
                routes: &routes,
                nowhere: self.dead_ends.refusing,
                tls: self.tls.as_ref(),
            });
            fs::write(node.config(), file).map_err(NatsError::io("write a configuration"))?;
        }
        Ok(())
    }

    /// The kind of server that this cluster runs, for a report.
    #[must_use]
    pub fn server(&self) -> &NatsServer {
        &self.server
    }

    /// How many servers the cluster has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.clients.len()
    }

    /// The servers that this process started.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A server.
    ///
    /// # Errors
    /// [`NatsError::NoNode`]; [`NatsError::NotOurs`] for the server at a URL.
    pub fn node(&self, node: usize) -> Result<&Node, NatsError> {
        if self.elsewhere.is_some() {
            return Err(NatsError::NotOurs { what: "manage" });
        }
        self.nodes.get(node).ok_or(NatsError::NoNode { node, servers: self.size() })
    }

    /// The URL of a node for clients, through the node's [`client_link`](Self::client_link).
    ///
    /// # Errors
    /// [`NatsError::NoNode`].
    pub fn client_url(&self, node: usize) -> Result<String, NatsError> {
        Ok(self.url_at(self.client_link(node)?.address()))
    }

    /// The URLs of all nodes for clients, through the links.
    #[must_use]
    pub fn client_urls(&self) -> Vec<String> {
        self.clients.iter().map(|link| self.url_at(link.address())).collect()
    }

    /// The link to a node that all users of its [`client_url`](Self::client_url) share.
    ///
    /// # Errors
    /// [`NatsError::NoNode`].
    pub fn client_link(&self, node: usize) -> Result<&Link, NatsError> {
        self.clients.get(node).ok_or(NatsError::NoNode { node, servers: self.size() })
    }

    /// Makes a link to a node for one client only, and returns the link with its URL. The link
    /// leads to where the node listens now. After a restart of the node, make another link.
    ///
    /// # Errors
    /// [`NatsError::NoNode`]; [`NatsError::Refused`] while the node is down.
    pub fn own_link(&self, node: usize) -> Result<(Link, String), NatsError> {
        let link = Link::to(self.address(node)?)?;
        let url = self.url_at(link.address());
        Ok((link, url))
    }

    /// The URL of a node without a link in between, for measurements and for looking at a node that
    /// is cut off. The URL changes when the node is restarted.
    ///
    /// # Errors
    /// [`NatsError::NoNode`]; [`NatsError::Refused`] while the node is down.
    pub fn direct_url(&self, node: usize) -> Result<String, NatsError> {
        match &self.elsewhere {
            Some(url) => Ok(url.clone().into_inner().to_string()),
            None => Ok(self.url_at(self.address(node)?)),
        }
    }

    fn address(&self, node: usize) -> Result<SocketAddr, NatsError> {
        let ports = self.node(node)?.ports().ok_or_else(|| NatsError::Refused {
            what: format!("reach n{node}"),
            why: "it is down; start it first".to_owned(),
        })?;
        Ok(ports.client)
    }

    /// The URL of an address, with the user and password of the URL that was given.
    fn url_at(&self, address: SocketAddr) -> String {
        let user = self.elsewhere.as_ref().and_then(|url| {
            let name = url.username()?;
            Some(url.password().map_or(format!("{name}@"), |pass| format!("{name}:{pass}@")))
        });
        format!("nats://{}{address}", user.unwrap_or_default())
    }

    /// Connects a client to a node without a link in between, with the cluster's credentials. The
    /// client is for administration: it does not retry, and waits a second for an answer.
    ///
    /// # Errors
    /// [`NatsError::Refused`] if the node refuses the client.
    pub async fn admin(&self, node: usize) -> Result<async_nats::Client, NatsError> {
        let options = self
            .connect_options()?
            .connection_timeout(Duration::from_secs(1))
            .request_timeout(Some(Duration::from_secs(1)))
            .max_reconnects(1);
        let url = self.direct_url(node)?;
        options.connect(url).await.map_err(refused(&format!("connect to n{node}")))
    }

    /// Returns connect options with the cluster's credentials, for clients of its URLs.
    ///
    /// # Errors
    /// [`NatsError::Refused`] for malformed credentials.
    pub fn connect_options(&self) -> Result<ConnectOptions, NatsError> {
        let options = match self.elsewhere.as_ref() {
            Some(url) if url.has_user_pass() => in_url(url),
            _ => self.options.auth.options().map_err(refused("use the credentials"))?,
        };
        Ok(match &self.tls {
            Some(tls) => tls.options(options),
            None => options,
        })
    }

    /// How many clients are connected to a node.
    ///
    /// # Errors
    /// [`NatsError::NoNode`]; [`NatsError::NotOurs`] for the server at a URL;
    /// [`NatsError::Refused`] when it does not answer.
    pub async fn clients_of(&self, node: usize) -> Result<usize, NatsError> {
        let asked = format!("list the clients of n{node}");
        let ports = self.node(node)?.ports().ok_or("it is down").map_err(refused(&asked))?;
        let clients: Clients =
            monitor::get(ports.monitor, "/connz").await.map_err(refused(&asked))?;
        Ok(clients.num_connections)
    }

    /// Waits until the cluster serves: every running node has joined and knows the same leader, and
    /// JetStream answers. Some nodes may be down, as long as a majority runs.
    ///
    /// # Errors
    /// [`NatsError::TooLate`] after 75 s. The error says what is missing.
    pub async fn wait_ready(&self) -> Result<(), NatsError> {
        ready::wait(self, self.options.jetstream).await
    }

    /// Starts a node that is down. Does not wait until the node has joined: see
    /// [`wait_ready`](Self::wait_ready).
    ///
    /// # Errors
    /// [`NatsError::Ended`] or [`NatsError::TooLate`] with the end of its log.
    pub async fn run(&self, node: usize) -> Result<(), NatsError> {
        self.node(node)?.start(&self.links_to(node)?).await
    }

    /// Stops a node in good order (SIGTERM).
    ///
    /// # Errors
    /// [`NatsError::TooLate`] if the server did not stop and had to be killed.
    pub async fn stop(&self, node: usize) -> Result<(), NatsError> {
        self.node(node)?.end(true, &self.links_to(node)?).await
    }

    /// Kills a node (SIGKILL).
    ///
    /// # Errors
    /// [`NatsError::NoNode`], [`NatsError::NotOurs`].
    pub async fn kill(&self, node: usize) -> Result<(), NatsError> {
        self.node(node)?.end(false, &self.links_to(node)?).await
    }

    /// Freezes a node (SIGSTOP): its connections stay open and silent.
    ///
    /// # Errors
    /// [`NatsError::NoNode`], [`NatsError::NotOurs`].
    pub async fn pause(&self, node: usize) -> Result<(), NatsError> {
        self.node(node)?.freeze(true).await
    }

    /// Lets a frozen node go on (SIGCONT).
    ///
    /// # Errors
    /// [`NatsError::NoNode`], [`NatsError::NotOurs`].
    pub async fn resume(&self, node: usize) -> Result<(), NatsError> {
        self.node(node)?.freeze(false).await
    }

    /// Stops a node in good order, and starts it again on its data.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`run`](Self::run).
    pub async fn restart(&self, node: usize) -> Result<(), NatsError> {
        self.stop(node).await?;
        self.run(node).await
    }

    /// Kills a node, removes its data and starts it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn restart_empty(&self, node: usize) -> Result<(), NatsError> {
        self.kill(node).await?;
        self.node(node)?.empty()?;
        self.run(node).await
    }

    /// The link between two nodes. [`Way::Up`] is the way from the node with the lower number to
    /// the other.
    ///
    /// # Errors
    /// [`NatsError::NoNode`].
    pub fn route(&self, a: usize, b: usize) -> Result<&Link, NatsError> {
        let none = || NatsError::NoNode { node: a.max(b), servers: self.size() };
        self.routes.get(&(a.min(b), a.max(b))).ok_or_else(none)
    }

    /// Cuts a node off from all others. The node's clients stay connected to it. To cut the clients
    /// off too, cut [`client_link`](Self::client_link).
    ///
    /// # Errors
    /// [`NatsError::NoNode`].
    pub fn isolate(&self, node: usize) -> Result<(), NatsError> {
        self.node(node)?;
        let others: Vec<usize> = (0..self.size()).filter(|other| *other != node).collect();
        self.partition(&[node], &others)
    }

    /// Cuts every route between two groups of nodes: connections are reset, and new ones refused.
    ///
    /// # Errors
    /// [`NatsError::NoNode`].
    pub fn partition(&self, a: &[usize], b: &[usize]) -> Result<(), NatsError> {
        self.between(a, b, Link::cut)
    }

    /// Cuts every route between two groups of nodes silently: connections stay open, and bytes that
    /// are sent are held until [`heal`](Self::heal).
    ///
    /// # Errors
    /// [`NatsError::NoNode`].
    pub fn blackhole(&self, a: &[usize], b: &[usize]) -> Result<(), NatsError> {
        self.between(a, b, Link::blackhole)
    }

    /// Whether all connections between servers go through links, so that cutting the links makes a
    /// partition.
    ///
    /// # Errors
    /// [`NatsError::Refused`] when a running node does not answer.
    pub async fn routes_keep_to_links(&self) -> Result<bool, NatsError> {
        let listen = self.nodes.iter().filter_map(|node| node.ports()?.cluster);
        let listen: Vec<u16> = listen.map(|address| address.port()).collect();
        for ports in self.nodes.iter().filter_map(Node::ports) {
            let routes: Routes =
                monitor::get(ports.monitor, "/routez").await.map_err(refused("list the routes"))?;
            // A server that connected to another server without a link sees the port at which that
            // server listens.
            if routes.routes.iter().any(|route| listen.contains(&route.port)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a node has noticed that it is connected to no other node. From then on nothing that
    /// was sent to the node before reaches it. `false` if the node does not answer.
    pub async fn is_alone(&self, node: usize) -> bool {
        let Some(ports) = self.node(node).ok().and_then(Node::ports) else { return false };
        let routes: Result<Routes, _> = monitor::get(ports.monitor, "/routez").await;
        routes.is_ok_and(|routes| routes.routes.is_empty())
    }

    /// How many clients of this name are connected to the servers.
    ///
    /// # Errors
    /// [`NatsError::Refused`] when a running node does not answer.
    pub async fn connections_of(&self, name: &str) -> Result<usize, NatsError> {
        Ok(self.nodes_of(name).await?.len())
    }

    /// The nodes to which clients of this name are connected, one for each connection.
    ///
    /// # Errors
    /// [`NatsError::Refused`] when a running node does not answer.
    pub async fn nodes_of(&self, name: &str) -> Result<Vec<usize>, NatsError> {
        let mut nodes = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(ports) = node.ports() else { continue };
            let asked = monitor::get(ports.monitor, "/connz?limit=100000").await;
            let all: Clients = asked.map_err(refused("list the connections"))?;
            let named = all.connections.iter().filter(|connection| connection.name == name);
            nodes.extend(named.map(|_| number));
        }
        Ok(nodes)
    }

    /// Sets what happens to the bytes that one node sends to another. The way back stays as it is.
    ///
    /// # Errors
    /// [`NatsError::NoNode`].
    pub fn one_way(&self, from: usize, to: usize, flow: Flow) -> Result<(), NatsError> {
        let way = if from < to { Way::Up } else { Way::Down };
        self.route(from, to)?.set(way, flow);
        Ok(())
    }

    fn between(&self, a: &[usize], b: &[usize], then: fn(&Link)) -> Result<(), NatsError> {
        for &left in a {
            for &right in b {
                then(self.route(left, right)?);
            }
        }
        Ok(())
    }

    /// Heals every link, including those of clients. Nodes that are down or frozen stay so.
    pub fn heal(&self) {
        self.routes.values().chain(&self.clients).for_each(Link::heal);
    }

    /// The node that leads a stream, as most of the stream's replicas see it.
    ///
    /// `None` while most replicas do not agree, or if there is no such stream.
    pub async fn leader_of(&self, stream: &str) -> Option<usize> {
        let seen = join_all(self.nodes.iter().map(|node| ready::leader(node, stream))).await;
        let mut votes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (leader, replicas) in seen.into_iter().flatten() {
            let (count, of) = votes.entry(leader).or_default();
            *count += 1;
            *of = (*of).max(replicas);
        }
        let (leader, _) = votes.into_iter().find(|(_, (count, of))| 2 * count > *of)?;
        self.nodes.iter().position(|node| node.name() == leader)
    }

    /// Whether a stream has a leader, and enough followers that writes are acknowledged.
    pub async fn serves(&self, stream: &str) -> bool {
        let leader = self.leader_of(stream).await;
        match leader.and_then(|leader| self.nodes.get(leader)) {
            Some(leader) => ready::is_followed(leader, stream).await,
            None => false,
        }
    }

    /// The state of a node's replica of a stream, as the node itself reports it.
    ///
    /// `None` if the node has no replica or does not answer.
    pub async fn replica(&self, node: usize, stream: &str) -> Option<Replica> {
        ready::replica(self.node(node).ok()?, stream).await
    }

    /// Makes the leader of a stream step down, and returns the next one once it leads.
    ///
    /// # Errors
    /// [`NatsError::Refused`] if there is no leader, or if the leader refuses;
    /// [`NatsError::TooLate`].
    pub async fn step_down(&self, stream: &str) -> Result<usize, NatsError> {
        ready::step_down(self, stream).await
    }

    /// Makes a node lead a stream, and waits until it does.
    ///
    /// # Errors
    /// [`NatsError::NoNode`]; [`NatsError::TooLate`].
    pub async fn lead(&self, node: usize, stream: &str) -> Result<(), NatsError> {
        ready::lead(self, stream, node).await
    }

    /// Keeps the logs when the cluster is dropped. A panic keeps them, too.
    pub fn keep_logs(&self) {
        self.dir.keep_logs();
    }

    /// The last `lines` lines of each server's log, each under the path of the log.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let _ = writeln!(text, "--- {}\n{}", node.log().display(), node.log_tail(lines));
        }
        text
    }

    fn links_to(&self, node: usize) -> Result<Links<'_>, NatsError> {
        let to_it = self.routes.iter().filter(|((_, to), _)| *to == node);
        Ok(Links { client: self.client_link(node)?, routes: to_it.map(|(_, link)| link).collect() })
    }
}

/// One node's replica of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The sequence of the last message that the replica has.
    pub last_sequence: u64,
    /// Whether the replica answers direct gets. A follower begins to answer up to two seconds after
    /// it began to follow. Until then another replica within reach answers, or none does.
    pub answers: bool,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.dir.path();
        f.debug_struct("Cluster")
            .field("size", &self.size())
            .field("dir", &dir)
            .finish_non_exhaustive()
    }
}

/// Makes the error of an operation `what` that failed, for `map_err`.
pub(super) fn refused<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> NatsError {
    move |error| NatsError::Refused { what: what.to_owned(), why: error.to_string() }
}

/// Connect options for the user and password, or the token, in a URL.
fn in_url(url: &ServerAddr) -> ConnectOptions {
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let name = plain(url.username().unwrap_or_default());
    match url.password() {
        Some(password) => ConnectOptions::new().user_and_password(name, plain(password)),
        None => ConnectOptions::new().token(name),
    }
}

/// Ports that this process occupies, so that no other program answers there. Connections to these
/// ports lead nowhere.
struct DeadEnds {
    /// A socket that is bound and does not listen: connections are refused.
    refusing: SocketAddr,
    _refusing: TcpSocket,
    /// A socket that listens and never answers: a server that connects waits, and logs no error.
    silent: Vec<(TcpListener, SocketAddr)>,
}

impl DeadEnds {
    fn take(silent: usize) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listen = |_| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let silent = (0..silent).map(listen).collect::<io::Result<_>>()?;
        Ok(Self { refusing: socket.local_addr()?, _refusing: socket, silent })
    }
}
