//! The section `[jetstream]`.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use crate::config::secret::Secret;
use crate::shown;

/// Where the JetStream store is, and who we are to it: at most one of user with password, token,
/// nkey seed and credentials file.
///
/// Each field means what the field of the same name means in `JetStreamConfig`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JetStreamSection {
    /// URLs; `nats://127.0.0.1:4222` unless given. In a user or a password, characters with a
    /// meaning in URLs are percent-encoded (`#` as `%23`, `,` as `%2C`).
    pub servers: Vec<String>,
    /// What the names of the buckets begin with.
    pub prefix: String,
    /// How many servers keep each bucket when it is made; 1 unless given.
    pub replicas: u8,
    /// The most bytes a bucket may hold, where the store makes it; no limit unless given.
    pub bucket_max_bytes: Option<u64>,
    /// Whether the buckets must be there already; false unless given.
    pub must_exist: bool,
    /// Answer decisions from memory, at most so stale; without it they are never stale.
    pub bounded_staleness_ms: Option<u64>,
    /// The JetStream domain; not with `api_prefix`.
    pub domain: Option<String>,
    /// What the subjects of JetStream's API begin with; `$JS.API` unless given.
    pub api_prefix: Option<String>,
    /// What the subjects of answers begin with; `_INBOX` unless given.
    pub inbox_prefix: Option<String>,
    /// The user, with `password`.
    pub user: Option<String>,
    /// The password, with `user`.
    pub password: Option<Secret>,
    /// A token.
    pub token: Option<Secret>,
    /// The seed of a user nkey.
    pub nkey_seed: Option<Secret>,
    /// A file with a JWT and its seed; read anew for each connection.
    pub credentials_file: Option<PathBuf>,
    /// A PEM file of the authorities to trust; asks for TLS.
    pub tls_ca_file: Option<PathBuf>,
    /// A PEM file with our certificate, with `tls_key_file`; asks for TLS.
    pub tls_cert_file: Option<PathBuf>,
    /// A PEM file with our certificate's key, with `tls_cert_file`.
    pub tls_key_file: Option<PathBuf>,
    /// Begin with TLS, before the server has said anything; asks for TLS. False unless given.
    pub tls_handshake_first: bool,
}

impl Default for JetStreamSection {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            prefix: String::new(),
            replicas: 1,
            bucket_max_bytes: None,
            must_exist: false,
            bounded_staleness_ms: None,
            domain: None,
            api_prefix: None,
            inbox_prefix: None,
            user: None,
            password: None,
            token: None,
            nkey_seed: None,
            credentials_file: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            tls_handshake_first: false,
        }
    }
}

/// Secrets are not shown (clause TYPE-5), nor those in URLs. Written field by field, so that a new
/// field is not forgotten here.
impl fmt::Debug for JetStreamSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            servers,
            prefix,
            replicas,
            bucket_max_bytes,
            must_exist,
            bounded_staleness_ms,
            domain,
            api_prefix,
            inbox_prefix,
            user,
            password,
            token,
            nkey_seed,
            credentials_file,
            tls_ca_file,
            tls_cert_file,
            tls_key_file,
            tls_handshake_first,
        } = self;
        f.debug_struct("JetStreamSection")
            .field("servers", &shown::servers(servers))
            .field("prefix", prefix)
            .field("replicas", replicas)
            .field("bucket_max_bytes", bucket_max_bytes)
            .field("must_exist", must_exist)
            .field("bounded_staleness_ms", bounded_staleness_ms)
            .field("domain", domain)
            .field("api_prefix", api_prefix)
            .field("inbox_prefix", inbox_prefix)
            .field("user", user)
            .field("password", password)
            .field("token", token)
            .field("nkey_seed", nkey_seed)
            .field("credentials_file", credentials_file)
            .field("tls_ca_file", tls_ca_file)
            .field("tls_cert_file", tls_cert_file)
            .field("tls_key_file", tls_key_file)
            .field("tls_handshake_first", tls_handshake_first)
            .finish()
    }
}
