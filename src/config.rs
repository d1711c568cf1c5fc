//! The switch between the stores: defaults, over them a TOML file, over that the environment.

mod environment;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::error::Invalid;
use crate::{Error, Store};

/// Which store to use, and how. While `decentralized` is off (the default) it is the `SQLite` store,
/// while it is on, the JetStream store.
///
/// ```
/// use membership::StoreConfig;
///
/// let config = StoreConfig::from_toml(
///     r#"
///     decentralized = true
///
///     [jetstream]
///     servers = ["nats://a:4222", "nats://b:4222", "nats://c:4222"]
///     replicas = 3
///     "#,
/// )?;
/// assert_eq!(config.jetstream.replicas, 3);
/// assert!(!StoreConfig::default().decentralized);
/// # Ok::<(), membership::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// One file on this machine, or buckets on NATS servers.
    pub decentralized: bool,
    /// How long a call may take, in milliseconds; 5,000 unless given.
    pub op_timeout_ms: u64,
    /// Used while `decentralized` is off.
    pub sqlite: SqliteSection,
    /// Used while `decentralized` is on.
    pub jetstream: JetStreamSection,
}

/// Where the `SQLite` store is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteSection {
    /// The file; `membership.db` unless given.
    pub path: PathBuf,
}

/// Where the JetStream store is, and who we are to it: at most one of user with password, token,
/// nkey seed and credentials file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JetStreamSection {
    /// URLs; `nats://127.0.0.1:4222` unless given.
    pub servers: Vec<String>,
    /// What the names of the buckets begin with.
    pub prefix: String,
    /// How many servers keep each bucket when it is made; 1 unless given.
    pub replicas: u8,
    /// Answer decisions from memory, at most so stale; without it they are never stale.
    pub bounded_staleness_ms: Option<u64>,
    /// The user, with `password`.
    pub user: Option<String>,
    /// The password, with `user`.
    pub password: Option<Secret>,
    /// A token.
    pub token: Option<Secret>,
    /// The seed of a user nkey.
    pub nkey_seed: Option<Secret>,
    /// A file with a JWT and its seed.
    pub credentials_file: Option<PathBuf>,
    /// A PEM file of the authorities to trust; asks for TLS.
    pub tls_ca_file: Option<PathBuf>,
    /// A PEM file with our certificate, with `tls_key_file`; asks for TLS.
    pub tls_cert_file: Option<PathBuf>,
    /// A PEM file with our certificate's key, with `tls_cert_file`.
    pub tls_key_file: Option<PathBuf>,
}

/// A text that is not shown (clause TYPE-5).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Any text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            decentralized: false,
            op_timeout_ms: 5000,
            sqlite: SqliteSection::default(),
            jetstream: JetStreamSection::default(),
        }
    }
}

impl Default for SqliteSection {
    fn default() -> Self {
        Self { path: PathBuf::from("membership.db") }
    }
}

impl Default for JetStreamSection {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            prefix: String::new(),
            replicas: 1,
            bounded_staleness_ms: None,
            user: None,
            password: None,
            token: None,
            nkey_seed: None,
            credentials_file: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
        }
    }
}

impl StoreConfig {
    /// The defaults, over them the file if there is one to read, over that the environment:
    /// `MEMBERSHIP_DECENTRALIZED`, `MEMBERSHIP_OP_TIMEOUT_MS`, `MEMBERSHIP_SQLITE_PATH`, and each
    /// field of the section as `MEMBERSHIP_JETSTREAM_SERVERS` (separated by commas),
    /// `MEMBERSHIP_JETSTREAM_PREFIX` and so on.
    ///
    /// Errors: [`Error::Invalid`] for a file that cannot be read, an unknown field, a value of
    /// the wrong kind.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let mut config = match file {
            None => Self::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    let problem = format!("file {} cannot be read: {error}", file.display());
                    Invalid::new("configuration", problem)
                })?;
                Self::from_toml(&text)?
            }
        };
        config.apply(|name| std::env::var(name).ok())?;
        Ok(config)
    }

    /// The defaults, and over them a TOML text.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| {
                text.get(..span.start).map_or(0, |before| before.matches('\n').count() + 1)
            });
            let what = error.message().replace('\n', " ");
            Invalid::new("configuration", format!("is wrong at line {line}: {what}")).into()
        })
    }

    /// How long a call may take.
    #[must_use]
    pub fn op_timeout(&self) -> Duration {
        Duration::from_millis(self.op_timeout_ms)
    }
}

/// Opens the store that `config` says.
///
/// Errors: those of opening that store, and [`Error::Invalid`] for one that was not built in.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, Error> {
    if config.decentralized { open_jetstream(config).await } else { open_sqlite(config).await }
}

#[cfg(feature = "sqlite")]
async fn open_sqlite(config: &StoreConfig) -> Result<Arc<dyn Store>, Error> {
    let options = crate::SqliteOptions::new().op_timeout(config.op_timeout());
    Ok(Arc::new(options.open(&config.sqlite.path).await?))
}

#[cfg(not(feature = "sqlite"))]
#[allow(clippy::unused_async, reason = "of one shape with the one that is built in")]
async fn open_sqlite(_: &StoreConfig) -> Result<Arc<dyn Store>, Error> {
    Err(not_built_in("is off, but this program was built without the feature sqlite"))
}

#[cfg(feature = "jetstream")]
async fn open_jetstream(config: &StoreConfig) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(crate::JetStreamStore::open(config.jetstream()?).await?))
}

#[cfg(not(feature = "jetstream"))]
#[allow(clippy::unused_async, reason = "of one shape with the one that is built in")]
async fn open_jetstream(_: &StoreConfig) -> Result<Arc<dyn Store>, Error> {
    Err(not_built_in("is on, but this program was built without the feature jetstream"))
}

#[cfg(not(all(feature = "sqlite", feature = "jetstream")))]
fn not_built_in(problem: &str) -> Error {
    Invalid::new("decentralized", problem).into()
}

#[cfg(feature = "jetstream")]
impl StoreConfig {
    /// What the section says to the JetStream store.
    ///
    /// Errors: [`Error::Invalid`] for two ways to say who we are, and for half of one.
    pub fn jetstream(&self) -> Result<crate::JetStreamConfig, Error> {
        use crate::{Credentials, JetStreamConfig, ReadMode, Tls};

        let section = &self.jetstream;
        let secret = |secret: &Secret| secret.reveal().to_owned();
        let mut ways = Vec::new();
        match (&section.user, &section.password) {
            (Some(user), Some(password)) => ways
                .push(Credentials::UserPassword { user: user.clone(), password: secret(password) }),
            (None, None) => {}
            _ => return Err(half("user", "password")),
        }
        ways.extend(section.token.as_ref().map(|token| Credentials::Token(secret(token))));
        ways.extend(section.nkey_seed.as_ref().map(|seed| Credentials::Nkey(secret(seed))));
        ways.extend(section.credentials_file.clone().map(Credentials::File));
        if ways.len() > 1 {
            let problem = "are given in more than one way; keep one of user and password, token, \
                           nkey_seed, credentials_file";
            return Err(Invalid::new("credentials", problem).into());
        }
        let client = match (&section.tls_cert_file, &section.tls_key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(half("tls_cert_file", "tls_key_file")),
        };
        let ca_file = section.tls_ca_file.clone();
        let tls = (ca_file.is_some() || client.is_some()).then_some(Tls { ca_file, client });
        let read_mode = section.bounded_staleness_ms.map_or(ReadMode::Linearizable, |bound| {
            ReadMode::BoundedStaleness { bound: Duration::from_millis(bound) }
        });
        let config = JetStreamConfig {
            servers: section.servers.clone(),
            credentials: ways.pop().unwrap_or_default(),
            tls,
            prefix: section.prefix.clone(),
            replicas: section.replicas,
            op_timeout: self.op_timeout(),
            read_mode,
        };
        config.check()?;
        Ok(config)
    }
}

#[cfg(feature = "jetstream")]
fn half(a: &'static str, b: &'static str) -> Error {
    Invalid::new(a, format!("needs {b} beside it; one of the two is missing")).into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn fixture(name: &str) -> Result<StoreConfig, Error> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config").join(name);
        StoreConfig::from_toml(&std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn the_defaults_are_one_file() {
        let config = StoreConfig::from_toml("").unwrap();
        assert_eq!(config, StoreConfig::default());
        assert!(!config.decentralized);
        assert_eq!(fixture("sqlite.toml").unwrap().sqlite.path, Path::new("/var/lib/m.db"));
    }

    #[rstest]
    #[case("unknown-field.toml", "line 2: unknown field `replica`")]
    #[case("wrong-kind.toml", "line 1: invalid type: string \"yes\", expected a boolean")]
    #[case("no-toml.toml", "line 1")]
    fn what_is_wrong_is_named(#[case] name: &str, #[case] expected: &str) {
        let error = fixture(name).unwrap_err().to_string();
        assert!(error.starts_with("invalid configuration: is wrong at "), "{error}");
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }

    #[cfg(feature = "jetstream")]
    #[test]
    fn a_cluster() {
        let config = fixture("cluster.toml").unwrap().jetstream().unwrap();
        assert_eq!((config.servers.len(), config.replicas), (3, 3));
        assert_eq!(config.op_timeout, Duration::from_secs(2));
        assert!(matches!(config.credentials, crate::Credentials::File(_)));
        assert!(config.tls.is_some());
    }

    #[cfg(feature = "jetstream")]
    #[rstest]
    #[case("user = \"u\"", "invalid user: needs password beside it")]
    #[case("tls_key_file = \"k\"", "invalid tls_cert_file: needs tls_key_file beside it")]
    #[case(
        "token = \"t\"\nnkey_seed = \"s\"",
        "invalid credentials: are given in more than one way"
    )]
    #[case("replicas = 6", "invalid replicas: is 6; 1 to 5 are allowed")]
    fn sections_that_do_not_fit(#[case] section: &str, #[case] expected: &str) {
        let text = format!("decentralized = true\n[jetstream]\n{section}");
        let error = StoreConfig::from_toml(&text).unwrap().jetstream().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = "[jetstream]\nuser = \"u\"\npassword = \"hidden\"\ntoken = \"hidden\"";
        let shown = format!("{:?}", StoreConfig::from_toml(text).unwrap());
        assert!(!shown.contains("hidden"), "{shown}");
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn off_it_opens_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.db");
        let config =
            StoreConfig { sqlite: SqliteSection { path: path.clone() }, ..StoreConfig::default() };
        let store = open(&config).await.unwrap();
        assert_eq!(store.has_admin().await, Ok(false));
        store.close().await.unwrap();
        assert!(path.exists());
    }
}
