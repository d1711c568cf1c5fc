mod credentials;
pub(super) mod server_url;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Invalid};
use crate::shown;

pub use credentials::Credentials;

/// How to reach the servers of a [`JetStreamStore`](crate::JetStreamStore), and how it behaves.
///
/// ```
/// use std::time::Duration;
/// use membership::{Credentials, JetStreamConfig};
///
/// let config = JetStreamConfig {
///     credentials: Credentials::Token("secret".into()),
///     replicas: 3,
///     op_timeout: Duration::from_secs(2),
///     ..JetStreamConfig::new(["nats://a:4222", "nats://b:4222", "nats://c:4222"])
/// };
/// assert!(config.check().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JetStreamConfig {
    /// The servers to connect to, as URLs (`nats://host:port`, `tls://host:port`). Only these are
    /// used: servers of the cluster that are not listed are never connected to. A client whose
    /// server stops answering goes on to the next. A URL may name a user (`nats://user:password@host`);
    /// characters with a meaning in URLs are percent-encoded there.
    pub servers: Vec<String>,
    /// The credentials of the clients.
    pub credentials: Credentials,
    /// TLS beyond what the URLs ask for.
    pub tls: Option<Tls>,
    /// The JetStream domain of the buckets, if it is not the domain of `servers`.
    ///
    /// For example, `servers` may be leaf nodes. A `domain` is short for the `api_prefix` `$JS.<domain>.API`, and is
    /// not allowed beside an `api_prefix`.
    pub domain: Option<String>,
    /// The beginning of the subjects of JetStream's API; `$JS.API` by default. If another account exports its
    /// JetStream, this is the subject under which the store's account imports it. The store then writes to
    /// `<api_prefix>.$KV.<bucket>.<key>`, as other NATS clients do.
    pub api_prefix: Option<String>,
    /// The beginning of the subjects of answers and deliveries; `_INBOX` by default. Set this if the user may subscribe
    /// to no other subjects, or if the account imports no other subjects.
    pub inbox_prefix: Option<String>,
    /// The beginning of the five buckets' names: at most 32 of the characters `[-_a-zA-Z0-9]`. Stores with different
    /// prefixes share nothing.
    pub prefix: String,
    /// How many servers keep each bucket, 1 to 5, when the store makes the buckets. Buckets that
    /// exist keep what they have; [`set_replicas`](crate::JetStreamStore::set_replicas) changes it.
    pub replicas: u8,
    /// The most bytes each bucket may hold, 1 MiB or more, when the store makes the buckets; `None`
    /// sets no limit. Some accounts demand a limit. A bucket that is full refuses writes, and
    /// decisions deny.
    pub bucket_max_bytes: Option<u64>,
    /// Whether the five buckets must exist already. If so, opening makes none, so a wrong prefix, account or domain
    /// does not open an empty store.
    pub must_exist: bool,
    /// How long a call may take: 50 ms to an hour. Rekey, delete and `set_replicas` may take ten
    /// times that (clause TIME-1).
    pub op_timeout: Duration,
    /// How fresh decisions are.
    pub read_mode: ReadMode,
}

/// Shows no secret, not even those in URLs (clause TYPE-5). This impl names every field, so that it does not compile if
/// a new field is forgotten.
impl fmt::Debug for JetStreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            servers,
            credentials,
            tls,
            domain,
            api_prefix,
            inbox_prefix,
            prefix,
            replicas,
            bucket_max_bytes,
            must_exist,
            op_timeout,
            read_mode,
        } = self;
        f.debug_struct("JetStreamConfig")
            .field("servers", &shown::servers(servers))
            .field("credentials", credentials)
            .field("tls", tls)
            .field("domain", domain)
            .field("api_prefix", api_prefix)
            .field("inbox_prefix", inbox_prefix)
            .field("prefix", prefix)
            .field("replicas", replicas)
            .field("bucket_max_bytes", bucket_max_bytes)
            .field("must_exist", must_exist)
            .field("op_timeout", op_timeout)
            .field("read_mode", read_mode)
            .finish()
    }
}

/// TLS to the servers. The files are read anew for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// A PEM file of the authorities to trust; `None` trusts those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the client's certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Whether the client begins with TLS before the server sends anything. Servers that are configured with
    /// `handshake_first` need this. Connections to other servers fail, since such a server sends first.
    pub handshake_first: bool,
}

/// How fresh the answers of `is_authorized` and `is_admin` are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMode {
    /// No stale allow, ever (clause AUTH-3).
    #[default]
    Linearizable,
    /// Decides from memory, without asking the servers. A revocation may go unnoticed for at most `bound`. Without
    /// contact for that long, every decision denies (clause AUTH-4). All other calls are as fresh as in
    /// [`Linearizable`](Self::Linearizable) mode.
    BoundedStaleness {
        /// 10 ms to an hour.
        bound: Duration,
    },
}

impl JetStreamConfig {
    /// The longest `prefix`, in bytes.
    pub const MAX_PREFIX_BYTES: usize = 32;
    /// The longest `domain`, `api_prefix` and `inbox_prefix`, in bytes.
    pub const MAX_SUBJECT_BYTES: usize = 128;
    /// The least `bucket_max_bytes`: 1 MiB.
    pub const MIN_BUCKET_BYTES: u64 = 1 << 20;
    /// The shortest `op_timeout`.
    pub const MIN_OP_TIMEOUT: Duration = Duration::from_millis(50);
    /// The longest `op_timeout`, and the longest bound of [`ReadMode::BoundedStaleness`].
    pub const MAX_OP_TIMEOUT: Duration = Duration::from_hours(1);

    /// Returns the defaults: one replica, no credentials, no prefix, linearizable decisions, an
    /// `op_timeout` of 5 s.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            credentials: Credentials::None,
            tls: None,
            domain: None,
            api_prefix: None,
            inbox_prefix: None,
            prefix: String::new(),
            replicas: 1,
            bucket_max_bytes: None,
            must_exist: false,
            op_timeout: Duration::from_secs(5),
            read_mode: ReadMode::Linearizable,
        }
    }

    /// Checks that every setting is within its limits.
    ///
    /// Errors: [`Error::Invalid`], which names the first setting outside its limits.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |field, problem: String| Err(Error::from(Invalid::new(field, problem)));
        if self.servers.is_empty() {
            return refuse("servers", "is empty; name at least one, e.g. nats://host:4222".into());
        }
        server_url::resolve(&self.servers, &self.credentials)?;
        if let Some(domain) = &self.domain {
            check_subject("domain", domain)?;
            if domain.contains('.') {
                return refuse("domain", "has a '.'; a domain is one word".into());
            }
            if self.api_prefix.is_some() {
                let problem = "is given, and api_prefix as well; keep one of them";
                return refuse("domain", problem.into());
            }
        }
        for (field, subject) in
            [("api_prefix", &self.api_prefix), ("inbox_prefix", &self.inbox_prefix)]
        {
            subject.as_deref().map_or(Ok(()), |subject| check_subject(field, subject))?;
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
        if let Some(bytes) = self.bucket_max_bytes
            && !(Self::MIN_BUCKET_BYTES..=i64::MAX.unsigned_abs()).contains(&bytes)
        {
            let least = Self::MIN_BUCKET_BYTES;
            return refuse("bucket_max_bytes", format!("is {bytes}; {least} or more are allowed"));
        }
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

    /// The beginning of the subjects of JetStream's API; `None` for the default.
    pub(super) fn api_prefix(&self) -> Option<String> {
        let of_domain = |domain: &String| format!("$JS.{domain}.API");
        self.api_prefix.clone().or_else(|| self.domain.as_ref().map(of_domain))
    }

    /// The URLs of the servers, without the users and passwords in them, for messages.
    pub(super) fn shown_servers(&self) -> String {
        shown::servers(&self.servers).join(", ")
    }
}

/// Refuses a text that cannot begin a subject.
fn check_subject(field: &'static str, text: &str) -> Result<(), Error> {
    let refuse = |problem: String| Err(Error::from(Invalid::new(field, problem)));
    let most = JetStreamConfig::MAX_SUBJECT_BYTES;
    if text.len() > most {
        return refuse(format!("is {} bytes long; 1 to {most} are allowed", text.len()));
    }
    let illegal = |c: &char| !c.is_ascii_graphic() || matches!(c, '*' | '>');
    if let Some(c) = text.chars().find(illegal) {
        return refuse(format!("has {c:?}; ASCII without spaces, '*' and '>' is allowed"));
    }
    if text.split('.').any(str::is_empty) {
        return refuse("has an empty word: words are joined by single dots".to_owned());
    }
    Ok(())
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
    #[case::domain(config(|c| c.domain = Some("hub".to_owned())), "ok")]
    #[case::api(config(|c| c.api_prefix = Some("$JS.hub.API".to_owned())), "ok")]
    #[case::inbox(config(|c| c.inbox_prefix = Some("_INBOX_app.x".to_owned())), "ok")]
    #[case::two_words(
        config(|c| c.domain = Some("a.b".to_owned())),
        "invalid domain: has a '.'; a domain is one word"
    )]
    #[case::twice(
        config(|c| (c.domain, c.api_prefix) = (Some("a".to_owned()), Some("b".to_owned()))),
        "invalid domain: is given, and api_prefix as well; keep one of them"
    )]
    #[case::wild(
        config(|c| c.api_prefix = Some("$JS.*.API".to_owned())),
        "invalid api_prefix: has '*'; ASCII without spaces, '*' and '>' is allowed"
    )]
    #[case::all(
        config(|c| c.inbox_prefix = Some("_INBOX.>".to_owned())),
        "invalid inbox_prefix: has '>'; ASCII without spaces, '*' and '>' is allowed"
    )]
    #[case::space(
        config(|c| c.inbox_prefix = Some("a b".to_owned())),
        "invalid inbox_prefix: has ' '; ASCII without spaces, '*' and '>' is allowed"
    )]
    #[case::last_dot(
        config(|c| c.api_prefix = Some("$JS.API.".to_owned())),
        "invalid api_prefix: has an empty word: words are joined by single dots"
    )]
    #[case::no_word(
        config(|c| c.inbox_prefix = Some(String::new())),
        "invalid inbox_prefix: has an empty word: words are joined by single dots"
    )]
    #[case::endless_subject(
        config(|c| c.api_prefix = Some("a".repeat(129))),
        "invalid api_prefix: is 129 bytes long; 1 to 128 are allowed"
    )]
    #[case::bytes(config(|c| c.bucket_max_bytes = Some(1 << 20)), "ok")]
    #[case::few_bytes(
        config(|c| c.bucket_max_bytes = Some((1 << 20) - 1)),
        "invalid bucket_max_bytes: is 1048575; 1048576 or more are allowed"
    )]
    #[case::many_bytes(
        config(|c| c.bucket_max_bytes = Some(1 << 63)),
        "invalid bucket_max_bytes: is 9223372036854775808; 1048576 or more are allowed"
    )]
    fn limits(#[case] outcome: String, #[case] expected: &str) {
        assert_eq!(outcome, expected);
    }

    #[test]
    fn servers_are_shown_without_their_credentials() {
        let config = JetStreamConfig::new(["nats://a:1", "nats://u:p@b:2"]);
        assert_eq!(config.shown_servers(), "<10 bytes>, nats://…@b:2");
    }

    #[test]
    fn debug_shows_no_secret() {
        let secrets = [
            Credentials::UserPassword { user: "u".into(), password: "secret".into() },
            Credentials::Token("secret".into()),
            Credentials::Nkey("secret".into()),
        ];
        assert!(!format!("{secrets:?}").contains("secret"));
        for url in ["nats://u:secret@a", "nats://u:22#secret@a", "nats://secret@a"] {
            let [credentials, ..] = secrets.clone();
            let config = JetStreamConfig { credentials, ..JetStreamConfig::new([url]) };
            let shown = format!("{config:?} {config:#?}");
            assert!(shown.contains("@a") || shown.contains(" bytes>"), "{shown}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
