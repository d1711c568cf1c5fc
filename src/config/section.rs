//! The section `[jetstream]`.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use crate::secret::Secret;
use crate::shown;

/// The settings of the JetStream store: the section `[jetstream]`.
///
/// At most one kind of credentials may be given: `user` with `password`, `token`, `nkey_seed` or
/// `credentials_file`.
///
/// Fields that `JetStreamConfig` has, too, mean the same there.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JetStreamSection {
    /// The URLs of the servers; `nats://127.0.0.1:4222` unless given. In a user or a password,
    /// characters with a meaning in URLs are percent-encoded (`#` as `%23`, `,` as `%2C`).
    pub servers: Vec<String>,
    /// The beginning of the buckets' names; empty unless given. At most 32 of the characters
    /// `[-_a-zA-Z0-9]`.
    pub prefix: String,
    /// How many servers keep each bucket, 1 to 5, when the store makes the buckets; 1 unless given.
    pub replicas: u8,
    /// The most bytes each bucket may hold; no limit unless given. 1 MiB or more; counts when the
    /// store makes the buckets.
    pub bucket_max_bytes: Option<u64>,
    /// Whether the buckets must exist already; false unless given.
    pub must_exist: bool,
    /// Answers decisions from memory: a revocation may go unnoticed for at most this many
    /// milliseconds, 10 to 3,600,000 (clause AUTH-4). Unless given, decisions are never stale.
    pub bounded_staleness_ms: Option<u64>,
    /// The JetStream domain of the buckets; not allowed beside `api_prefix`.
    pub domain: Option<String>,
    /// The beginning of the subjects of JetStream's API; `$JS.API` unless given.
    pub api_prefix: Option<String>,
    /// The beginning of the subjects of answers and deliveries; `_INBOX` unless given.
    pub inbox_prefix: Option<String>,
    /// The user; needs `password`.
    pub user: Option<String>,
    /// The password; needs `user`.
    pub password: Option<Secret>,
    /// A token.
    pub token: Option<Secret>,
    /// The seed of a user nkey.
    pub nkey_seed: Option<Secret>,
    /// A file with a user's JWT and nkey seed, which is read anew for each connection.
    pub credentials_file: Option<PathBuf>,
    /// A PEM file of the certificate authorities to trust. If given, connections use TLS.
    pub tls_ca_file: Option<PathBuf>,
    /// A PEM file with the client's certificate; needs `tls_key_file`. If given, connections use
    /// TLS.
    pub tls_cert_file: Option<PathBuf>,
    /// A PEM file with the key of the client's certificate; needs `tls_cert_file`.
    pub tls_key_file: Option<PathBuf>,
    /// Whether to begin with TLS, before the server sends anything; false unless given. If true,
    /// connections use TLS.
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

/// Shows no secret, not even those in URLs (clause TYPE-5). This impl names every field, so that it
/// does not compile if a new field is forgotten.
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
