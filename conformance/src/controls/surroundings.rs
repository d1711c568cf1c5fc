//! A sound layer between the data and a defect.
//!
//! While the store is silent, calls through this layer time out. After the data were replaced or
//! vanished, or while something too old serves them, those calls fail that must fail on a sound
//! store. A defect is wrapped around this layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use membership::{EndpointId, Error, NewUser, RoomId, SealedKey, Store, User};

use super::defect::Defect;

/// How long a call on a silent store waits before it times out: less than its deadline allows.
const SILENCE: Duration = Duration::from_millis(50);

/// What happened to the data, seen by all clients.
#[derive(Default)]
pub(super) struct Events {
    /// Whether calls time out.
    pub(super) silent: AtomicBool,
    /// Whether something too old serves the data.
    pub(super) older: AtomicBool,
    /// Whether all users vanished.
    pub(super) lost_users: AtomicBool,
    /// Whether all keys vanished.
    pub(super) lost_keys: AtomicBool,
    /// How often the data were replaced.
    pub(super) replaced: AtomicU64,
}

/// One client's view of [`Events`].
#[derive(Default)]
pub(super) struct Surroundings {
    events: Arc<Events>,
    /// How often the data had been replaced when the client was opened.
    opened: u64,
    /// Whether calls fail while something too old serves the data.
    looks: bool,
    closed: AtomicBool,
}

impl Surroundings {
    pub(super) fn new(events: &Arc<Events>, looks: bool) -> Self {
        let (events, opened) = (Arc::clone(events), events.replaced.load(Ordering::SeqCst));
        Self { events, opened, looks, closed: AtomicBool::new(false) }
    }
}

fn gone() -> Error {
    Error::corrupt("users", "all", "there were some, and all are gone")
}

pub(super) fn too_old() -> Error {
    Error::unavailable("what serves the data is older than this store needs")
}

#[async_trait]
impl Defect for Surroundings {
    async fn before(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::SeqCst) {
            // The closed client below answers `Closed`, which must come at once (CLOSE-2).
            return Ok(());
        }
        if self.events.silent.load(Ordering::SeqCst) {
            tokio::time::sleep(SILENCE).await;
            return Err(Error::Timeout);
        }
        if self.looks && self.events.older.load(Ordering::SeqCst) {
            return Err(too_old());
        }
        if self.events.replaced.load(Ordering::SeqCst) != self.opened {
            return Err(Error::unavailable("the data were replaced; open the store again"));
        }
        Ok(())
    }

    async fn latest_key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<SealedKey, Error> {
        self.before().await?;
        match inner.latest_key(room, endpoint).await {
            Err(Error::NotFound(_))
                if self.events.lost_keys.load(Ordering::SeqCst)
                    && inner.room(room).await.is_ok_and(|room| room.encrypted)
                    && inner.member(room, endpoint).await.is_ok() =>
            {
                Err(Error::corrupt(
                    "room_keys",
                    format!("{room}, {endpoint}"),
                    "a member has no key",
                ))
            }
            other => other,
        }
    }

    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        self.before().await?;
        if self.events.lost_users.load(Ordering::SeqCst) {
            return Err(gone());
        }
        inner.bootstrap_admin(new).await
    }

    async fn has_admin(&self, inner: &dyn Store) -> Result<bool, Error> {
        self.before().await?;
        match inner.has_admin().await {
            Ok(false) if self.events.lost_users.load(Ordering::SeqCst) => Err(gone()),
            other => other,
        }
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        self.closed.store(true, Ordering::SeqCst);
        inner.close().await
    }
}
