use std::path::Path;
use std::time::Duration;

use super::SqliteStore;
use super::defect::SqliteDefect;
use crate::Error;
use crate::mutation::Mutation;

/// How a [`SqliteStore`] is opened.
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
    pub(super) mutation: Mutation<SqliteDefect>,
}

impl SqliteOptions {
    /// `op_timeout` 5 seconds, grouped commits, no limit of size.
    pub const fn new() -> Self {
        Self {
            op_timeout: Duration::from_secs(5),
            group_commit: true,
            max_bytes: None,
            mutation: Mutation::NONE,
        }
    }

    /// How long a call may take before it ends in [`Error::Timeout`]; a rekey, the deletion of a
    /// room and the opening of the file may take ten times that (clause TIME-1).
    pub const fn op_timeout(mut self, op_timeout: Duration) -> Self {
        self.op_timeout = op_timeout;
        self
    }

    /// Whether writes that wait at the same time share one transaction, and so one sync of the
    /// disk. Each caller is answered after the commit that holds its write either way. Off is for
    /// comparison.
    pub const fn group_commit(mut self, group_commit: bool) -> Self {
        self.group_commit = group_commit;
        self
    }

    /// How large the file may grow, in bytes (rounded down to whole pages of 4 KiB; a file that
    /// is larger already does not grow). A write that needs more is [`Error::Unavailable`]. The
    /// limit is this client's own, and does not count the write-ahead log.
    pub const fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// Opens a store that is broken in this way, for the suite to catch.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub const fn broken(mut self, defect: SqliteDefect) -> Self {
        self.mutation = Mutation::of(defect);
        self
    }

    /// Opens the file at `path`, as [`SqliteStore::open`] does.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<SqliteStore, Error> {
        SqliteStore::start(path.as_ref(), self).await
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self::new()
    }
}
