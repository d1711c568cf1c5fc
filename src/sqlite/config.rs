use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use crate::error::Invalid;

/// Where the file of a [`SqliteStore`](crate::SqliteStore) is, and how the store behaves.
///
/// ```
/// use std::time::Duration;
/// use membership::SqliteConfig;
///
/// let config = SqliteConfig {
///     must_exist: true,
///     op_timeout: Duration::from_secs(1),
///     ..SqliteConfig::new("/var/lib/membership/members.db")
/// };
/// assert!(config.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The database file. Its directory must exist.
    pub path: PathBuf,
    /// Whether the store must exist already. If it does not, opening is [`Invalid`](Error::Invalid) instead of a new
    /// store in which anybody may become the first admin. Set it once the store is set up: it detects a wrong path and
    /// a volume that is not mounted.
    pub must_exist: bool,
    /// The mode of a new file, its log and its shared memory, as in `chmod`. The umask does not change it. The owner
    /// must be able to read and write the file. An existing file keeps its mode.
    pub mode: u32,
    /// How large the file may grow, in bytes, rounded down to pages of 4 KiB; `None` sets no limit. A file that is
    /// larger already does not grow. A write that needs more is [`Error::Unavailable`]. The limit is this client's own,
    /// and does not count the write-ahead log.
    pub max_bytes: Option<u64>,
    /// Whether waiting writes share one transaction, and so one sync of the disk. In both cases each caller is answered
    /// after the commit of its write. Benches set `false`, to measure what sharing saves.
    pub group_commit: bool,
    /// How long a call may take before it ends in [`Error::Timeout`]: 1 ms to an hour. A rekey, the
    /// deletion of a room and the opening of the file may take ten times that (clause TIME-1).
    pub op_timeout: Duration,
}

impl SqliteConfig {
    /// The default `mode`: the owner reads and writes the file, nobody else.
    pub const MODE: u32 = 0o600;
    /// The shortest `op_timeout`.
    pub const MIN_OP_TIMEOUT: Duration = Duration::from_millis(1);
    /// The longest `op_timeout`.
    pub const MAX_OP_TIMEOUT: Duration = Duration::from_hours(1);

    /// Returns the defaults: a new file if there is none, for its owner alone, without a limit of
    /// size; grouped commits; an `op_timeout` of 5 s.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            must_exist: false,
            mode: Self::MODE,
            max_bytes: None,
            group_commit: true,
            op_timeout: Duration::from_secs(5),
        }
    }

    /// Checks that every setting is within its limits.
    ///
    /// Errors: [`Error::Invalid`] names the first setting that is not.
    pub fn check(&self) -> Result<(), Error> {
        if self.mode & 0o600 != 0o600 || self.mode > 0o777 {
            let problem = format!(
                "is {:#o}; it must let the owner read and write, and go up to 0o777",
                self.mode
            );
            return Err(Invalid::new("mode", problem).into());
        }
        let allowed = Self::MIN_OP_TIMEOUT..=Self::MAX_OP_TIMEOUT;
        if !allowed.contains(&self.op_timeout) {
            let problem = format!("is {:?}; 1 ms to an hour are allowed", self.op_timeout);
            return Err(Invalid::new("op_timeout", problem).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn config(change: impl FnOnce(&mut SqliteConfig)) -> String {
        let mut config = SqliteConfig::new("members.db");
        change(&mut config);
        config.check().map_or_else(|error| error.to_string(), |()| "ok".to_owned())
    }

    #[rstest]
    #[case::plain(config(|_| ()), "ok")]
    #[case::group(config(|c| c.mode = 0o660), "ok")]
    #[case::unreadable(
        config(|c| c.mode = 0o400),
        "invalid mode: is 0o400; it must let the owner read and write, and go up to 0o777"
    )]
    #[case::sticky(
        config(|c| c.mode = 0o1600),
        "invalid mode: is 0o1600; it must let the owner read and write, and go up to 0o777"
    )]
    #[case::shortest(config(|c| c.op_timeout = Duration::from_millis(1)), "ok")]
    #[case::hasty(
        config(|c| c.op_timeout = Duration::ZERO),
        "invalid op_timeout: is 0ns; 1 ms to an hour are allowed"
    )]
    #[case::endless(
        config(|c| c.op_timeout = Duration::MAX),
        "invalid op_timeout: is 18446744073709551615.999999999s; 1 ms to an hour are allowed"
    )]
    fn limits(#[case] outcome: String, #[case] expected: &str) {
        assert_eq!(outcome, expected);
    }
}
