//! The options of a cluster, and the servers' configuration files.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use async_nats::ConnectOptions;

use super::Provision;

/// The options of a cluster: how many servers, and how they are set up.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub(super) servers: usize,
    pub(super) provision: Provision,
    pub(super) auth: Auth,
    pub(super) jetstream: bool,
    pub(super) sync: Sync,
    pub(super) max_file_store: Option<u64>,
    pub(super) tls: Option<Tls>,
    pub(super) lines: String,
}

impl ClusterOptions {
    /// One, three or five servers with JetStream in files.
    ///
    /// Clients need no authentication, and everything else is the server's default.
    #[must_use]
    pub fn servers(servers: usize) -> Self {
        Self {
            servers,
            provision: Provision::Auto,
            auth: Auth::None,
            jetstream: true,
            sync: Sync::Default,
            max_file_store: None,
            tls: None,
            lines: String::new(),
        }
    }

    /// Sets where the server comes from.
    #[must_use]
    pub fn provision(self, provision: Provision) -> Self {
        Self { provision, ..self }
    }

    /// Which clients the servers let in.
    #[must_use]
    pub fn auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }

    /// Switches JetStream off.
    #[must_use]
    pub fn without_jetstream(self) -> Self {
        Self { jetstream: false, ..self }
    }

    /// Sets when writes reach the disk.
    #[must_use]
    pub fn sync(self, sync: Sync) -> Self {
        Self { sync, ..self }
    }

    /// Sets the most bytes that a server stores. A server that is full refuses writes.
    #[must_use]
    pub fn max_file_store(self, bytes: u64) -> Self {
        Self { max_file_store: Some(bytes), ..self }
    }

    /// Makes clients connect by TLS.
    #[must_use]
    pub fn tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Sets further lines of each server's configuration file.
    #[must_use]
    pub fn lines(self, lines: impl Into<String>) -> Self {
        Self { lines: lines.into(), ..self }
    }
}

/// When a server syncs the writes that it acknowledges to its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// The server syncs every two minutes, which is its default. Writes since the last sync are
    /// lost if the machine loses its power.
    #[default]
    Default,
    /// The server syncs before each acknowledgement (`sync_interval: always`).
    Always,
}

/// TLS between the servers and their clients, as PEM texts.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The authority that signed the certificates of the servers and of their clients.
    pub authority: String,
    /// The servers' certificate, for 127.0.0.1, and its key.
    pub server: (String, String),
    /// A client's certificate and its key. If they are given, the servers refuse clients without a
    /// certificate.
    pub client: Option<(String, String)>,
    /// Whether the servers wait for TLS before they send anything.
    pub handshake_first: bool,
}

/// The files that hold a [`Tls`], below the cluster's directory.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    authority: PathBuf,
    server: [PathBuf; 2],
    client: Option<[PathBuf; 2]>,
    handshake_first: bool,
}

impl Tls {
    pub(super) fn write(&self, dir: &Path) -> io::Result<TlsFiles> {
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).map(|()| path)
        };
        let pair = |name: &str, (certificate, key): &(String, String)| {
            let [pem, secret] = [format!("{name}.pem"), format!("{name}.key")];
            Ok::<_, io::Error>([file(&pem, certificate)?, file(&secret, key)?])
        };
        Ok(TlsFiles {
            authority: file("authority.pem", &self.authority)?,
            server: pair("server", &self.server)?,
            client: self.client.as_ref().map(|client| pair("client", client)).transpose()?,
            handshake_first: self.handshake_first,
        })
    }
}

impl TlsFiles {
    /// Adds TLS to a client's options.
    pub(super) fn options(&self, options: ConnectOptions) -> ConnectOptions {
        let mut options = options.require_tls(true).add_root_certificates(self.authority.clone());
        if self.handshake_first {
            options = options.tls_first();
        }
        match self.client.clone() {
            None => options,
            Some([certificate, key]) => options.add_client_certificate(certificate, key),
        }
    }
}

/// Which clients the servers let in.
#[derive(Clone, Default)]
pub enum Auth {
    /// Every client.
    #[default]
    None,
    /// Clients that know the password.
    User {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// Clients that know the token.
    Token(String),
    /// Clients that hold the seed of a user nkey.
    NKey {
        /// The public key (`U…`).
        public: String,
        /// Its seed (`SU…`).
        seed: String,
    },
    /// The clients that [`ClusterOptions::lines`] allow. The text is the credentials file
    /// (`.creds`) of one of them.
    Credentials(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::User { .. } => "User",
            Self::Token(_) => "Token",
            Self::NKey { .. } => "NKey",
            Self::Credentials(_) => "Credentials",
        })
    }
}

impl Auth {
    /// Returns connect options with which a client is let in.
    ///
    /// # Errors
    /// Returns the error of malformed [`Credentials`](Self::Credentials).
    pub(super) fn options(&self) -> io::Result<ConnectOptions> {
        let options = ConnectOptions::new();
        Ok(match self {
            Self::None => options,
            Self::User { user, password } => {
                options.user_and_password(user.clone(), password.clone())
            }
            Self::Token(token) => options.token(token.clone()),
            Self::NKey { seed, .. } => options.nkey(seed.clone()),
            Self::Credentials(text) => options.credentials(text)?,
        })
    }
}

/// One server's names, paths and addresses in its cluster.
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) cluster: &'a str,
    pub(super) store: &'a Path,
    pub(super) ports: &'a Path,
    /// The links to the other servers.
    pub(super) routes: &'a [SocketAddr],
    /// The address that the server advertises to the others: a port at which nothing listens.
    pub(super) nowhere: SocketAddr,
    pub(super) tls: Option<&'a TlsFiles>,
}

impl ClusterOptions {
    /// The configuration file of one server.
    pub(super) fn file(&self, place: &Place<'_>) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{line}");
        };
        line(format_args!("server_name: {}", place.name));
        // The kernel picks the ports and the server reports them. So no other program can have
        // taken a port before.
        line(format_args!("listen: \"127.0.0.1:-1\""));
        line(format_args!("http: \"127.0.0.1:-1\""));
        line(format_args!("ports_file_dir: {:?}", place.ports.to_string_lossy()));
        if self.jetstream {
            line(format_args!("jetstream {{"));
            line(format_args!("  store_dir: {:?}", place.store.to_string_lossy()));
            if let Some(bytes) = self.max_file_store {
                line(format_args!("  max_file_store: {bytes}"));
            }
            if self.sync == Sync::Always {
                line(format_args!("  sync_interval: always"));
            }
            line(format_args!("}}"));
        }
        if !place.routes.is_empty() {
            line(format_args!("cluster {{"));
            line(format_args!("  name: {}", place.cluster));
            line(format_args!("  listen: \"127.0.0.1:-1\""));
            // Servers tell one another, and their clients, the addresses of all servers.
            // Connections to these addresses would bypass the links. So clients are told nothing,
            // and servers are told an address at which nothing listens.
            line(format_args!("  no_advertise: true"));
            line(format_args!("  cluster_advertise: \"{}\"", place.nowhere));
            line(format_args!("  routes: ["));
            for route in place.routes {
                line(format_args!("    \"nats-route://{route}\""));
            }
            line(format_args!("  ]"));
            line(format_args!("}}"));
        }
        if let Some(tls) = place.tls {
            let TlsFiles { authority, server: [certificate, key], client, handshake_first } = tls;
            let [authority, certificate, key] =
                [authority, certificate, key].map(|path| path.to_string_lossy());
            line(format_args!("tls {{ cert_file: {certificate:?}, key_file: {key:?}"));
            line(format_args!("  ca_file: {authority:?}, verify: {}", client.is_some()));
            line(format_args!("  handshake_first: {handshake_first} }}"));
        }
        line(format_args!("{}", self.lines));
        match &self.auth {
            Auth::None | Auth::Credentials(_) => {}
            Auth::User { user, password } => {
                line(format_args!("authorization {{ user: {user:?}, password: {password:?} }}"));
            }
            Auth::Token(token) => line(format_args!("authorization {{ token: {token:?} }}")),
            Auth::NKey { public, .. } => {
                line(format_args!("authorization {{ users: [ {{ nkey: {public:?} }} ] }}"));
            }
        }
        text
    }
}
