use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Invalid};
use crate::jetstream::counters::Counters;

/// How to reach the servers of a [`JetStreamStore`](crate::JetStreamStore), and how it behaves.
///
/// ```
/// use std::time::Duration;
/// use membership::{Credentials, JetStreamConfig};
///
/// let config = JetStreamConfig {
///     credentials: Credentials::Token("secret".to_owned()),
///     replicas: 3,
///     op_timeout: Duration::from_secs(2),
///     ..JetStreamConfig::new(["nats://a:4222", "nats://b:4222", "nats://c:4222"])
/// };
/// assert!(config.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct JetStreamConfig {
    /// The servers to connect to, as URLs (`nats://host:port`, `tls://host:port`). Only these are
    /// used: servers of the cluster that are not listed are never connected to. A client whose
    /// server stops answering goes on to the next.
    pub servers: Vec<String>,
    /// Who the store is to the servers.
    pub credentials: Credentials,
    /// TLS beyond what the URLs ask for.
    pub tls: Option<Tls>,
    /// What the names of the five buckets begin with: at most 32 of the characters
    /// `[-_a-zA-Z0-9]`. Stores with different prefixes share nothing.
    pub prefix: String,
    /// How many servers keep each bucket, 1 to 5, when the buckets are made. Buckets that exist
    /// keep what they have; [`set_replicas`](crate::JetStreamStore::set_replicas) changes it.
    pub replicas: u8,
    /// How long a call may take: 50 ms to an hour. Rekey, delete and `set_replicas` may take ten
    /// times that (clause TIME-1).
    pub op_timeout: Duration,
    /// How fresh a decision is.
    pub read_mode: ReadMode,
    /// Counts what its clients go through.
    pub counters: Counters,
}

/// Who a store is to its servers.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
    /// The seed of a user nkey (`SU…`).
    Nkey(String),
    /// A file with a user's JWT and nkey seed, as `nsc` makes it.
    File(PathBuf),
}

/// Secrets are not shown (clause TYPE-5).
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::UserPassword { user, password } => {
                write!(f, "UserPassword {{ user: {user:?}, password: <{} bytes> }}", password.len())
            }
            Self::Token(token) => write!(f, "Token(<{} bytes>)", token.len()),
            Self::Nkey(seed) => write!(f, "Nkey(<{} bytes>)", seed.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

/// TLS to the servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// A PEM file of the authorities to trust; `None` trusts those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How fresh the answers of `is_authorized` and `is_admin` are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMode {
    /// No stale allow, ever (clause AUTH-3).
    #[default]
    Linearizable,
    /// From memory, without asking: a revocation may go unnoticed for at most `bound`, and
    /// without contact for that long every decision is a denial (clause AUTH-4). All other calls
    /// are as fresh as ever.
    BoundedStaleness {
        /// 10 ms to an hour.
        bound: Duration,
    },
}

impl JetStreamConfig {
    /// The longest prefix.
    pub const MAX_PREFIX_BYTES: usize = 32;
    /// The shortest `op_timeout`.
    pub const MIN_OP_TIMEOUT: Duration = Duration::from_millis(50);
    /// The longest `op_timeout`, and the longest bound of [`ReadMode::BoundedStaleness`].
    pub const MAX_OP_TIMEOUT: Duration = Duration::from_hours(1);

    /// One replica, no credentials, no prefix, linearizable reads, 5 s.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            credentials: Credentials::None,
            tls: None,
            prefix: String::new(),
            replicas: 1,
            op_timeout: Duration::from_secs(5),
            read_mode: ReadMode::Linearizable,
            counters: Counters::default(),
        }
    }

    /// Whether everything is within its limits; [`Error::Invalid`] names the first that is not.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |field, problem: String| Err(Error::from(Invalid::new(field, problem)));
        if self.servers.is_empty() {
            return refuse("servers", "is empty; name at least one, e.g. nats://host:4222".into());
        }
        if self.prefix.len() > Self::MAX_PREFIX_BYTES {
            let (len, max) = (self.prefix.len(), Self::MAX_PREFIX_BYTES);
            return refuse("prefix", format!("is {len} bytes long; 0 to {max} are allowed"));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if let Some(c) = self.prefix.chars().find(|c| !legal(*c)) {
            let problem = format!("has {c:?}; letters, digits, '-' and '_' are allowed");
            return refuse("prefix", problem);
        }
        check_replicas(self.replicas)?;
        let allowed = Self::MIN_OP_TIMEOUT..=Self::MAX_OP_TIMEOUT;
        if !allowed.contains(&self.op_timeout) {
            let problem = format!("is {:?}; 50 ms to an hour are allowed", self.op_timeout);
            return refuse("op_timeout", problem);
        }
        let allowed = Duration::from_millis(10)..=Self::MAX_OP_TIMEOUT;
        match self.read_mode {
            ReadMode::BoundedStaleness { bound } if !allowed.contains(&bound) => {
                let problem = format!("has a bound of {bound:?}; 10 ms to an hour are allowed");
                refuse("read_mode", problem)
            }
            _ => Ok(()),
        }
    }

    /// The servers without credentials, for messages.
    pub(super) fn shown_servers(&self) -> String {
        let host = |url: &String| url.rsplit_once('@').map_or(url.as_str(), |(_, h)| h).to_owned();
        self.servers.iter().map(host).collect::<Vec<_>>().join(", ")
    }
}

pub(super) fn check_replicas(replicas: u8) -> Result<(), Error> {
    if (1..=5).contains(&replicas) {
        return Ok(());
    }
    Err(Invalid::new("replicas", format!("is {replicas}; 1 to 5 are allowed")).into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn config(change: impl FnOnce(&mut JetStreamConfig)) -> String {
        let mut config = JetStreamConfig::new(["nats://a"]);
        change(&mut config);
        config.check().map_or_else(|error| error.to_string(), |()| "ok".to_owned())
    }

    #[rstest]
    #[case::plain(config(|_| ()), "ok")]
    #[case::prefix(config(|c| c.prefix = "a-B_9".to_owned()), "ok")]
    #[case::longest_prefix(config(|c| c.prefix = "a".repeat(32)), "ok")]
    #[case::bounded(
        config(|c| c.read_mode = ReadMode::BoundedStaleness { bound: Duration::from_millis(10) }),
        "ok"
    )]
    #[case::no_server(
        config(|c| c.servers.clear()),
        "invalid servers: is empty; name at least one, e.g. nats://host:4222"
    )]
    #[case::dot(
        config(|c| c.prefix = "a.b".to_owned()),
        "invalid prefix: has '.'; letters, digits, '-' and '_' are allowed"
    )]
    #[case::long(
        config(|c| c.prefix = "a".repeat(33)),
        "invalid prefix: is 33 bytes long; 0 to 32 are allowed"
    )]
    #[case::none(config(|c| c.replicas = 0), "invalid replicas: is 0; 1 to 5 are allowed")]
    #[case::six(config(|c| c.replicas = 6), "invalid replicas: is 6; 1 to 5 are allowed")]
    #[case::hasty(
        config(|c| c.op_timeout = Duration::from_millis(49)),
        "invalid op_timeout: is 49ms; 50 ms to an hour are allowed"
    )]
    #[case::endless(
        config(|c| c.op_timeout = Duration::MAX),
        "invalid op_timeout: is 18446744073709551615.999999999s; 50 ms to an hour are allowed"
    )]
    #[case::bound(
        config(|c| c.read_mode = ReadMode::BoundedStaleness { bound: Duration::from_millis(9) }),
        "invalid read_mode: has a bound of 9ms; 10 ms to an hour are allowed"
    )]
    fn limits(#[case] outcome: String, #[case] expected: &str) {
        assert_eq!(outcome, expected);
    }

    #[test]
    fn servers_are_shown_without_their_credentials() {
        let config = JetStreamConfig::new(["nats://a:1", "nats://u:p@b:2"]);
        assert_eq!(config.shown_servers(), "nats://a:1, b:2");
    }

    #[test]
    fn debug_shows_no_secret() {
        let secrets = [
            Credentials::UserPassword { user: "u".into(), password: "secret".into() },
            Credentials::Token("secret".into()),
            Credentials::Nkey("secret".into()),
        ];
        assert!(!format!("{secrets:?}").contains("secret"));
    }
}
