use std::time::Duration;

use super::defect::SqliteDefect;
use crate::Error;
use crate::error::Invalid;
use crate::mutation::Mutation;

/// How a [`SqliteStore`](crate::SqliteStore) is opened.
///
/// ```
/// use std::time::Duration;
/// use membership::{SqliteOptions, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), membership::Error> {
/// # let dir = tempfile::tempdir().expect("a directory");
/// # let path = dir.path().join("members.db");
/// let store = SqliteOptions::new().op_timeout(Duration::from_secs(1)).open(&path).await?;
/// assert!(!store.has_admin().await?);
/// # store.close().await
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SqliteOptions {
    pub(super) op_timeout: Duration,
    pub(super) group_commit: bool,
    pub(super) max_bytes: Option<u64>,
    pub(super) mode: u32,
    pub(super) must_exist: bool,
    pub(super) mutation: Mutation<SqliteDefect>,
}

impl SqliteOptions {
    /// A new file's mode unless [`mode`](Self::mode) sets another: its owner reads and writes it, nobody else.
    pub const MODE: u32 = 0o600;

    /// The defaults: `op_timeout` 5 seconds, grouped commits, no limit of size, made if it is not there, for its owner alone.
    pub const fn new() -> Self {
        Self {
            op_timeout: Duration::from_secs(5),
            group_commit: true,
            max_bytes: None,
            mode: Self::MODE,
            must_exist: false,
            mutation: Mutation::NONE,
        }
    }

    /// How long a call may take before it ends in [`Error::Timeout`]; a rekey, the deletion of a
    /// room and the opening of the file may take ten times that (clause TIME-1).
    pub const fn op_timeout(mut self, op_timeout: Duration) -> Self {
        self.op_timeout = op_timeout;
        self
    }

    /// Whether waiting writes share one transaction, and so one sync of the disk. Each caller is answered after its write's
    /// commit either way. Off is for comparison.
    pub const fn group_commit(mut self, group_commit: bool) -> Self {
        self.group_commit = group_commit;
        self
    }

    /// How large the file may grow, in bytes, rounded down to pages of 4 KiB. A file that is larger already does not grow. A write
    /// that needs more is [`Error::Unavailable`]. The limit is this client's own, and does not count the write-ahead log.
    pub const fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// The mode of a new file, its log and its shared memory, as in `chmod`, whatever the umask is. The owner must be able to
    /// read and write it. An existing file keeps its mode.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Whether the store must exist already. If it does not, opening is [`Invalid`](Error::Invalid) instead of a new store in which
    /// anybody may become the first admin. Set it once the store is set up: it detects a wrong path and a volume that is not
    /// mounted.
    pub const fn must_exist(mut self, must_exist: bool) -> Self {
        self.must_exist = must_exist;
        self
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.mode & 0o600 == 0o600 && self.mode <= 0o777 {
            return Ok(());
        }
        let problem = format!(
            "is {:#o}; it must let the owner read and write, and go up to 0o777",
            self.mode
        );
        Err(Invalid::new("mode", problem).into())
    }

    /// Opens a store with this defect, which the suite must catch.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub const fn broken(mut self, defect: SqliteDefect) -> Self {
        self.mutation = Mutation::of(defect);
        self
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self::new()
    }
}
