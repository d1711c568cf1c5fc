//! Chooses and opens a store, as defaults, a TOML file and the environment say.

mod environment;
#[cfg(feature = "toml")]
mod file;
#[cfg(feature = "jetstream")]
mod jetstream;
mod section;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::error::Invalid;
use crate::{Error, Store};

pub use section::JetStreamSection;

/// Which store to open, and with which settings.
///
/// The store is the `SQLite` store if `decentralized` is false, and the JetStream store if it is
/// true.
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
///
/// Fields that `SqliteConfig` has, too, mean the same there.
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

    /// Checks that this program contains the store that `decentralized` chooses, and that each
    /// setting of that store is within its limits.
    ///
    /// Errors: [`Error::Invalid`], which names the first setting outside its limits.
    pub fn check(&self) -> Result<(), Error> {
        self.chosen().map(drop)
    }

    /// How long a call may take: [`op_timeout_ms`](Self::op_timeout_ms).
    #[must_use]
    pub fn op_timeout(&self) -> Duration {
        Duration::from_millis(self.op_timeout_ms)
    }

    #[allow(clippy::match_bool, reason = "an arm can depend on a feature")]
    fn chosen(&self) -> Result<Chosen, Error> {
        if !(1..=Self::MAX_OP_TIMEOUT_MS).contains(&self.op_timeout_ms) {
            let (given, most) = (self.op_timeout_ms, Self::MAX_OP_TIMEOUT_MS);
            let problem = format!("is {given}; 1 to {most} (an hour) are allowed");
            return Err(Invalid::new("op_timeout_ms", problem).into());
        }
        match self.decentralized {
            #[cfg(feature = "sqlite")]
            false => self.sqlite().map(Chosen::Sqlite),
            #[cfg(not(feature = "sqlite"))]
            false => Err(not_built_in("is off", "sqlite")),
            #[cfg(feature = "jetstream")]
            true => self.jetstream().map(|config| Chosen::JetStream(Box::new(config))),
            #[cfg(not(feature = "jetstream"))]
            true => Err(not_built_in("is on", "jetstream")),
        }
    }
}

/// The configuration of the one store to open.
enum Chosen {
    #[cfg(feature = "sqlite")]
    Sqlite(crate::SqliteConfig),
    #[cfg(feature = "jetstream")]
    JetStream(Box<crate::JetStreamConfig>),
}

#[cfg(not(all(feature = "sqlite", feature = "jetstream")))]
fn not_built_in(is: &str, feature: &str) -> Error {
    let problem = format!("{is}, but this program was built without the feature {feature}");
    Invalid::new("decentralized", problem).into()
}

/// Opens the store that `config` describes.
///
/// Errors: those of [`StoreConfig::check`], and those of opening that store.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "jetstream")),
    allow(clippy::unused_async, reason = "no store is built in")
)]
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, Error> {
    match config.chosen()? {
        #[cfg(feature = "sqlite")]
        Chosen::Sqlite(config) => Ok(Arc::new(crate::SqliteStore::open(config).await?)),
        #[cfg(feature = "jetstream")]
        Chosen::JetStream(config) => Ok(Arc::new(crate::JetStreamStore::open(*config).await?)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[cfg(feature = "sqlite")]
    #[test]
    fn the_sections_have_the_defaults_of_the_stores() {
        let expected = crate::SqliteConfig::new("membership.db");
        assert_eq!(StoreConfig::default().sqlite(), Ok(expected));
        #[cfg(feature = "jetstream")]
        {
            let expected = crate::JetStreamConfig::new(["nats://127.0.0.1:4222"]);
            assert_eq!(StoreConfig::default().jetstream(), Ok(expected));
        }
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
        assert_eq!(config.check().unwrap_err().to_string(), error);
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
