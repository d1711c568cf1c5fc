//! Chooses and opens a store, as defaults, a TOML file and the environment say.

mod environment;
#[cfg(feature = "toml")]
mod file;
#[cfg(feature = "jetstream")]
mod jetstream;
mod secret;
mod section;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::error::Invalid;
use crate::{Error, Store};

pub use secret::Secret;
pub use section::JetStreamSection;

/// Which store to open, and with which settings.
///
/// It is the `SQLite` store if `decentralized` is false, and the JetStream store if it is true.
///
/// ```
/// use membership::{SqliteSection, StoreConfig};
///
/// let sqlite = SqliteSection { path: "members.db".into(), ..SqliteSection::default() };
/// let config = StoreConfig { op_timeout_ms: 1000, sqlite, ..StoreConfig::default() };
/// assert!(!config.decentralized);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Whether the store is in buckets on NATS servers, rather than in a file on this machine;
    /// false unless given.
    pub decentralized: bool,
    /// How long a call may take, in milliseconds; 5,000 unless given. At least 1, for the JetStream
    /// store 50; at most 3,600,000.
    pub op_timeout_ms: u64,
    /// The settings of the `SQLite` store.
    pub sqlite: SqliteSection,
    /// The settings of the JetStream store.
    pub jetstream: JetStreamSection,
}

/// The settings of the `SQLite` store: the section `[sqlite]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteSection {
    /// The database file; `membership.db` unless given.
    pub path: PathBuf,
    /// Whether the store must exist already; false unless given. If so, a wrong path or a volume
    /// that is not mounted does not open an empty store (clause DUR-4).
    pub must_exist: bool,
    /// The permissions of a new file, as for `chmod`; 0o600 unless given.
    pub mode: u32,
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
        Self { path: PathBuf::from("membership.db"), must_exist: false, mode: 0o600 }
    }
}

impl StoreConfig {
    /// The longest `op_timeout_ms`: an hour.
    pub const MAX_OP_TIMEOUT_MS: u64 = 3_600_000;

    /// Returns the defaults, overridden by the environment.
    ///
    /// The variables are `MEMBERSHIP_DECENTRALIZED`, `MEMBERSHIP_OP_TIMEOUT_MS`,
    /// `MEMBERSHIP_SQLITE_PATH`, `MEMBERSHIP_SQLITE_MUST_EXIST`, `MEMBERSHIP_SQLITE_MODE` (octal
    /// digits, as 0640), and one for each field of [`JetStreamSection`], as
    /// `MEMBERSHIP_JETSTREAM_PREFIX`. `MEMBERSHIP_JETSTREAM_SERVERS` is a list separated by commas;
    /// a comma in a password is `%2C`.
    ///
    /// Variables that an orchestrator sets for a service called `membership-jetstream` or
    /// `membership-sqlite` (`…_SERVICE_HOST`, `…_PORT_4222_TCP` and so on) are ignored.
    ///
    /// Errors: [`Error::Invalid`] for an unknown variable that begins like those of a section, a
    /// value of the wrong kind, and a variable without a value. The error shows no value that may
    /// be a secret.
    pub fn from_env() -> Result<Self, Error> {
        let mut config = Self::default();
        config.apply(std::env::vars_os())?;
        Ok(config)
    }

    /// How long a call may take: [`op_timeout_ms`](Self::op_timeout_ms).
    #[must_use]
    pub fn op_timeout(&self) -> Duration {
        Duration::from_millis(self.op_timeout_ms)
    }
}

/// Opens the store that `config` describes.
///
/// Errors: [`Error::Invalid`] for an `op_timeout_ms` outside its limits, and for a store that was
/// not built into this program; and the errors of opening that store.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, Error> {
    if !(1..=StoreConfig::MAX_OP_TIMEOUT_MS).contains(&config.op_timeout_ms) {
        let (given, most) = (config.op_timeout_ms, StoreConfig::MAX_OP_TIMEOUT_MS);
        let problem = format!("is {given}; 1 to {most} (an hour) are allowed");
        return Err(Invalid::new("op_timeout_ms", problem).into());
    }
    if config.decentralized { open_jetstream(config).await } else { open_sqlite(config).await }
}

#[cfg(feature = "sqlite")]
async fn open_sqlite(config: &StoreConfig) -> Result<Arc<dyn Store>, Error> {
    let SqliteSection { path, must_exist, mode } = &config.sqlite;
    let options = crate::SqliteOptions::new()
        .op_timeout(config.op_timeout())
        .must_exist(*must_exist)
        .mode(*mode);
    Ok(Arc::new(options.open(path).await?))
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_secret_shows_its_length_alone() {
        let secret = Secret::new("s3cr3t");
        assert_eq!(secret.reveal(), "s3cr3t");
        assert_eq!(format!("{secret:?}"), "<6 bytes>");
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn what_is_opened_is_what_the_configuration_says() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = StoreConfig::default();
        config.sqlite.path = directory.path().join("membership.sqlite");
        let store = open(&config).await.unwrap();
        assert!(config.sqlite.path.is_file());
        assert_eq!(store.has_admin().await, Ok(false));
        store.close().await.unwrap();
    }

    #[rstest]
    #[case(0)]
    #[case(u64::MAX)]
    #[tokio::test]
    async fn no_call_takes_no_time_or_for_ever(#[case] op_timeout_ms: u64) {
        let config = StoreConfig { op_timeout_ms, ..StoreConfig::default() };
        let error = open(&config).await.err().unwrap().to_string();
        let expected = format!("is {op_timeout_ms}; 1 to 3600000 (an hour) are allowed");
        assert_eq!(error, format!("invalid op_timeout_ms: {expected}"));
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn off_it_opens_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.db");
        let sqlite = SqliteSection { path: path.clone(), must_exist: true, mode: 0o640 };
        let mut config = StoreConfig { sqlite, ..StoreConfig::default() };
        let error = open(&config).await.err().unwrap().to_string();
        assert!(error.contains("holds no store, and must_exist says"), "{error}");
        config.sqlite.must_exist = false;
        let store = open(&config).await.unwrap();
        assert_eq!(store.has_admin().await, Ok(false));
        store.close().await.unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o640);
    }
}
