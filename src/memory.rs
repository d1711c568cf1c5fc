//! The memory store, for tests and small tools.
//!
//! All data are in plain maps under one lock. No call awaits while it holds the lock, so each call
//! is atomic, and the calls are linearized in the order in which they take the lock (clause LIN-1).

mod state;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;

use crate::decision::{self, Standing};
use crate::{
    Decision, EndpointId, Epoch, Error, Member, NewMember, NewRoom, NewUser, Page, Rekey, Room,
    RoomId, SealedKey, Store, Timestamp, User, UserKey,
};
use state::State;

/// A [`Store`] that keeps everything in memory; the data end with the last client.
///
/// ```
/// use membership::{MemoryStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), membership::Error> {
/// let store = MemoryStore::new();
/// let other = store.client();
/// store.close().await?;
/// assert!(store.has_admin().await.is_err());
/// assert!(!other.has_admin().await?);
/// # Ok(())
/// # }
/// ```
pub struct MemoryStore {
    /// A std lock suffices, since no critical section awaits. The lock is a read-write lock, since
    /// decisions outnumber writes. A panic in a write poisons the lock, and a poisoned lock denies
    /// (AUTH-2).
    state: Arc<RwLock<State>>,
    /// Set under the write lock. So `close` returns only after the calls that began before it.
    closed: AtomicBool,
}

impl MemoryStore {
    /// Makes an empty store, and returns its first client.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::default(), closed: AtomicBool::new(false) }
    }

    /// Returns another client of the same data. The new client is open, even if this client is
    /// closed.
    #[must_use]
    pub fn client(&self) -> Self {
        Self { state: Arc::clone(&self.state), closed: AtomicBool::new(false) }
    }

    fn read(&self) -> Result<RwLockReadGuard<'_, State>, Error> {
        self.open(self.state.read().map_err(poisoned))
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, State>, Error> {
        self.open(self.state.write().map_err(poisoned))
    }

    /// Returns the guard, unless this client is closed. `Closed` precedes other errors (clause
    /// ERR-4).
    fn open<Guard>(&self, guard: Result<Guard, Error>) -> Result<Guard, Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { guard }
    }

    fn standing(&self, key: &UserKey) -> Result<Option<Standing>, Error> {
        Ok(self.read()?.standing(key))
    }
}

fn poisoned<Guard>(_: PoisonError<Guard>) -> Error {
    Error::unavailable("a thread panicked while it changed the memory store")
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.closed.load(Ordering::Relaxed);
        f.debug_struct("MemoryStore").field("closed", &closed).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create_room(&self, new: NewRoom) -> Result<Room, Error> {
        self.write()?.create_room(new)
    }

    async fn room(&self, room: &RoomId) -> Result<Room, Error> {
        self.read()?.room(room)
    }

    async fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        self.read()?.rooms_of(endpoint, &page)
    }

    async fn delete_room(&self, room: &RoomId) -> Result<(), Error> {
        self.write()?.delete_room(room)
    }

    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error> {
        self.write()?.add_member(room, new)
    }

    async fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        self.read()?.member(room, endpoint)
    }

    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error> {
        self.read()?.members(room, &page)
    }

    async fn remove_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error> {
        self.write()?.remove_member(room, endpoint)
    }

    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        self.write()?.rekey(room, &rekey)
    }

    async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        self.read()?.key(room, endpoint, Some(epoch))
    }

    async fn latest_key(&self, room: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error> {
        self.read()?.key(room, endpoint, None)
    }

    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error> {
        self.write()?.bootstrap_admin(new)
    }

    async fn add_user(&self, new: NewUser) -> Result<User, Error> {
        self.write()?.add_user(&new)
    }

    async fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.read()?.user(key)
    }

    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        Ok(self.read()?.users(&page))
    }

    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        self.write()?.revoke_user(key, at)
    }

    async fn is_authorized(&self, key: &UserKey) -> Decision {
        decision::authorized(self.standing(key))
    }

    async fn is_admin(&self, key: &UserKey) -> Decision {
        decision::admin(self.standing(key))
    }

    async fn has_admin(&self) -> Result<bool, Error> {
        Ok(self.read()?.has_admin())
    }

    async fn close(&self) -> Result<(), Error> {
        // Taking the lock waits for the calls in flight. A poisoned lock must not keep the client
        // from closing.
        let _guard = self.state.write().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

/// Access for the conformance suite, which other callers do not have.
#[cfg(feature = "testing")]
impl MemoryStore {
    /// Puts an encrypted room at `epoch`, as if it had been rekeyed that often with the same keys.
    #[doc(hidden)]
    pub fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), Error> {
        self.write()?.plant_epoch(room, epoch)
    }

    /// Poisons the lock, as a panic in the middle of a write would.
    #[doc(hidden)]
    pub fn poison(&self) {
        let state = Arc::clone(&self.state);
        let panicked = std::thread::Builder::new().spawn(move || {
            let _guard = state.write();
            std::panic::resume_unwind(Box::new("poison"));
        });
        if let Ok(thread) = panicked {
            let _ = thread.join();
        }
    }

    /// Returns another store, with a copy of the current data.
    #[doc(hidden)]
    pub fn copy(&self) -> Result<Self, Error> {
        let state = Arc::new(RwLock::new(self.read()?.clone()));
        Ok(Self { state, closed: AtomicBool::new(false) })
    }

    /// Replaces the data of all clients of this store by a copy of the data of `other`.
    #[doc(hidden)]
    pub fn become_like(&self, other: &Self) -> Result<(), Error> {
        let state = other.read()?.clone();
        *self.write()? = state;
        Ok(())
    }

    /// Removes all users, all rooms, or all sealed keys, without a trace.
    #[doc(hidden)]
    pub fn forget(&self, users: bool, rooms: bool, keys: bool) -> Result<(), Error> {
        self.write()?.forget(users, rooms, keys);
        Ok(())
    }

    /// Clears the poison of the lock.
    #[doc(hidden)]
    pub fn heal(&self) {
        self.state.clear_poison();
    }
}
