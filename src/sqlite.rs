//! The SQLite store: one file, one node, any number of processes.
//!
//! Reads run on the caller's thread, over a pool of connections (`readers.rs`). Each client has one thread that writes
//! (`writer.rs`); it runs the waiting writes as one transaction. The calls themselves are plain functions over a
//! connection, in `create_room.rs`, `rooms.rs`, `rooms_of.rs`, `members.rs`, `read_key.rs`, `rekey.rs` and `users.rs`.
//! `layout.rs` turns records into rows, and checks rows and turns them back into records. `driver.rs` turns SQLite's
//! errors into [`Error`].

mod columns;
mod config;
mod create_room;
mod cutoff;
mod decisions;
mod defect;
mod driver;
mod keys;
mod layout;
mod log;
mod members;
mod open;
mod place;
mod read_key;
mod readers;
mod rekey;
mod rooms;
mod rooms_of;
mod schema;
mod sum;
#[cfg(feature = "testing")]
mod testing;
mod users;
mod watch;
mod writer;

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::time::{sleep, timeout};

use crate::decision::{self, Standing};
use crate::gate::Gate;
use crate::mutation::Mutation;
use crate::trace::{Span, event, span};
use crate::{
    Decision, EndpointId, Epoch, Error, Member, NewMember, NewRoom, NewUser, Page, Rekey, Room,
    RoomId, SealedKey, Store, Timestamp, User, UserKey,
};
pub use config::SqliteConfig;
use decisions::Decisions;
#[cfg(feature = "testing")]
pub use defect::SqliteDefect;
#[cfg(not(feature = "testing"))]
use defect::SqliteDefect;
use readers::Readers;
use writer::Writer;

/// How often a read checks whether a lock was released.
const POLL: Duration = Duration::from_millis(2);
/// How many times `op_timeout` a rekey, a deletion and the opening of the file may take (TIME-1).
const LONG: u32 = 10;

/// A [`Store`] in one SQLite file, which any number of clients and processes may share.
///
/// The file is in WAL mode: while it is open, `-wal` and `-shm` are beside it. The file must be on a local disk, and a
/// container must mount its directory, not the file. If one of the three files is replaced, removed or moved while it
/// is open, every later call of every client with these files is [`Error::Unavailable`], and decisions deny. An
/// acknowledged write is on the disk (`synchronous = FULL`), also after a power cut, if the disk does not lie about its
/// syncs (clause DUR-1). Every record has a checksum. A record whose checksum is wrong is [`Error::Corrupt`] and lets
/// nobody in (clauses ERR-3, AUTH-2).
///
/// Needs a tokio runtime with timers. A read runs on the caller's thread for microseconds, a page of 1,000 records for
/// some milliseconds, and is interrupted at its deadline. A disk that hangs inside the operating system blocks the
/// reading thread beyond the deadline.
///
/// ```
/// use membership::{NewRoom, SqliteConfig, SqliteStore, Store, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), membership::Error> {
/// # let dir = tempfile::tempdir().expect("a directory");
/// # let path = dir.path().join("members.db");
/// let store = SqliteStore::open(SqliteConfig::new(&path)).await?;
/// let room = NewRoom::unencrypted("ops".parse()?, "ann".parse()?, Timestamp::from_millis(0));
/// store.create_room(room).await?;
/// store.close().await?;
///
/// let store = SqliteStore::open(SqliteConfig::new(&path)).await?;
/// assert_eq!(store.room(&"ops".parse()?).await?.owner.as_str(), "ann");
/// # store.close().await
/// # }
/// ```
pub struct SqliteStore {
    op_timeout: Duration,
    gate: Gate,
    readers: Arc<Readers>,
    decisions: Decisions,
    writer: Writer,
}

impl SqliteStore {
    /// Opens the file at [`SqliteConfig::path`].
    ///
    /// A file that does not exist, or is empty, becomes a new store, which its owner alone may read
    /// ([`SqliteConfig::mode`], [`SqliteConfig::must_exist`]). The directory of the file must exist. A store of an
    /// older version is migrated in one transaction (clause DUR-3).
    ///
    /// Errors, none of which touches the file:
    ///
    /// - [`Invalid`](Error::Invalid) for a setting outside its limits, a directory, a file with a second name, a file
    ///   that is a mount of its own, another application's database, and a store of a newer version.
    /// - [`Corrupt`](Error::Corrupt) for a file that is no database, a damaged database, and a log without its
    ///   database.
    /// - [`Unavailable`](Error::Unavailable) for a file that cannot be read and written.
    /// - [`Timeout`](Error::Timeout) if another process holds the file locked.
    pub async fn open(config: SqliteConfig) -> Result<Self, Error> {
        let span = span!("open", path = config.path.display());
        span.call(Self::start(config, Mutation::NONE)).await
    }

    async fn start(config: SqliteConfig, mutation: Mutation<SqliteDefect>) -> Result<Self, Error> {
        config.check()?;
        let op_timeout = config.op_timeout;
        let readers = Arc::new(Readers::new(mutation));
        let deadline = Instant::now() + op_timeout * LONG;
        let writer = Writer::start(Arc::clone(&readers), config, mutation, deadline).await?;
        Ok(Self {
            op_timeout,
            gate: Gate::default(),
            readers,
            decisions: Decisions::default(),
            writer,
        })
    }

    /// Reads on the caller's thread. Waits only for locks, and never inside SQLite.
    async fn read<T, F>(&self, span: Span, work: F) -> Result<T, Error>
    where
        F: Fn(&Connection) -> driver::Result<T> + Send,
    {
        span.call(self.patiently(|deadline| ready(self.readers.run(deadline, &work)))).await
    }

    /// A user's standing, for decisions. Concurrent callers share one read transaction.
    async fn standing(&self, key: &UserKey) -> Result<Option<Standing>, Error> {
        self.patiently(|deadline| self.decisions.ask(&self.readers, key, deadline)).await
    }

    /// Repeats `attempt` while another connection holds a lock, until the deadline.
    async fn patiently<T, A>(&self, attempt: impl Fn(Instant) -> A) -> Result<T, Error>
    where
        A: Future<Output = Result<T, Error>>,
    {
        let _inside = self.gate.enter()?;
        let deadline = Instant::now() + self.op_timeout;
        loop {
            match attempt(deadline).await {
                Err(Error::Timeout) if Instant::now() + POLL < deadline => {
                    event!(file: trace, "a read waits for a lock");
                    sleep(POLL).await;
                }
                result => return result,
            }
        }
    }

    async fn write<T, F>(&self, span: Span, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> driver::Result<T> + Send + 'static,
    {
        self.write_within(self.op_timeout, span, work).await
    }

    /// Runs a write that may take ten times `op_timeout`.
    async fn long_write<T, F>(&self, span: Span, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> driver::Result<T> + Send + 'static,
    {
        self.write_within(self.op_timeout * LONG, span, work).await
    }

    async fn write_within<T, F>(&self, budget: Duration, span: Span, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> driver::Result<T> + Send + 'static,
    {
        let write = async {
            if self.gate.is_shut() {
                Err(Error::Closed)
            } else {
                self.writer.write(budget, work).await
            }
        };
        span.call(write).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.readers.place().map(|place| place.names().given().to_owned()).ok())
            .field("closed", &self.gate.is_shut())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create_room(&self, new: NewRoom) -> Result<Room, Error> {
        self.write(span!("create_room", room = new.id), move |db| {
            create_room::create_room(db, &new)
        })
        .await
    }

    async fn room(&self, room: &RoomId) -> Result<Room, Error> {
        self.read(span!("room", room), |db| rooms::get(db, room)).await
    }

    async fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        self.read(span!("rooms_of", endpoint), |db| rooms_of::rooms_of(db, endpoint, &page)).await
    }

    async fn delete_room(&self, room: &RoomId) -> Result<(), Error> {
        let room = room.clone();
        self.long_write(span!("delete_room", room), move |db| rooms::delete(db, &room)).await
    }

    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error> {
        let room = room.clone();
        self.write(span!("add_member", room, endpoint = new.endpoint), move |db| {
            members::add(db, &room, &new)
        })
        .await
    }

    async fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        self.read(span!("member", room, endpoint), |db| members::get(db, room, endpoint)).await
    }

    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error> {
        self.read(span!("members", room), |db| members::list(db, room, &page)).await
    }

    async fn remove_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error> {
        let (room, endpoint) = (room.clone(), endpoint.clone());
        self.write(span!("remove_member", room, endpoint), move |db| {
            members::remove(db, &room, &endpoint)
        })
        .await
    }

    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let room = room.clone();
        self.long_write(span!("rekey", room, from = rekey.from()), move |db| {
            rekey::rekey(db, &room, &rekey)
        })
        .await
    }

    async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        self.read(span!("key", room, endpoint, epoch), |db| {
            read_key::read_key(db, room, endpoint, Some(epoch))
        })
        .await
    }

    async fn latest_key(&self, room: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error> {
        self.read(span!("latest_key", room, endpoint), |db| {
            read_key::read_key(db, room, endpoint, None)
        })
        .await
    }

    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error> {
        self.write(span!("bootstrap_admin", user = new.key), move |db| {
            users::bootstrap_admin(db, &new)
        })
        .await
    }

    async fn add_user(&self, new: NewUser) -> Result<User, Error> {
        self.write(span!("add_user", user = new.key), move |db| users::add(db, &new)).await
    }

    async fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.read(span!("user", user = key), |db| users::get(db, key)).await
    }

    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        self.read(span!("users"), |db| users::list(db, &page)).await
    }

    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        let key = *key;
        self.write(span!("revoke_user", user = key), move |db| users::revoke(db, &key, at)).await
    }

    async fn is_authorized(&self, key: &UserKey) -> Decision {
        let decision = async { decision::authorized(self.standing(key).await) };
        span!("is_authorized", user = key).call(decision).await
    }

    async fn is_admin(&self, key: &UserKey) -> Decision {
        let decision = async { decision::admin(self.standing(key).await) };
        span!("is_admin", user = key).call(decision).await
    }

    async fn has_admin(&self) -> Result<bool, Error> {
        self.read(span!("has_admin"), users::has_admin).await
    }

    async fn close(&self) -> Result<(), Error> {
        let close = async {
            self.gate.shut();
            // Every read ends at its own deadline, so the wait is bounded. The exception is a read whose caller stopped
            // polling it: it never ends, but then no caller waits for its answer.
            let _ = timeout(self.op_timeout, self.gate.empty()).await;
            self.writer.close().await;
            Ok(())
        };
        span!("close").call(close).await
    }
}
