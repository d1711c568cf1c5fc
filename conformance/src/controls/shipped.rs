//! Stores with bugs that other systems shipped to their users.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use membership::{
    EndpointId, Error, Member, MemoryStore, NewMember, NewRoom, NewUser, Rekey, Room, RoomId,
    Store, User,
};
use tokio::sync::Semaphore;

use super::controls;
use super::defect::Defect;
use super::listings::locked;
use super::races::pause;

controls! {
    loses_acknowledged_writes unseen: "LIN-1", "acknowledges concurrent writes, and keeps one of them (SpiceDB issue 3212)" => LosesWrites;
    merges_endpoints_by_case: "TYPE-1", "treats endpoints that differ only in case as one (SpiceDB issue 3161, OpenFGA issue 3169)" => MergesCase;
    locks_up_inside_itself unseen: "TIME-1", "deadlocks in a rekey with removals, and blocks all later changes of members (dex issue 5017)" => LocksUp;
    closes_nothing: "CLOSE-2", "does nothing at close (Matrix Rust SDK issue 6675)" => ClosesNothing;
    keeps_nothing_it_claims_to unseen: "DUR-1", "claims that it can be reopened, and is empty afterwards (OpenDAL issue 7565)" => KeepsNothing;
}

/// How many writes are in flight.
#[derive(Default)]
struct LosesWrites(AtomicUsize);

impl LosesWrites {
    /// Returns whether no other write was in flight when this one began.
    async fn alone(&self) -> bool {
        let others = self.0.fetch_add(1, Ordering::SeqCst);
        pause().await;
        self.0.fetch_sub(1, Ordering::SeqCst);
        others == 0
    }
}

#[async_trait]
impl Defect for LosesWrites {
    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        if self.alone().await || inner.user(&new.key).await.is_ok() {
            return inner.add_user(new).await;
        }
        Ok(new.user())
    }

    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        if self.alone().await || inner.room(&new.id).await.is_ok() {
            return inner.create_room(new).await;
        }
        Ok(new.room())
    }
}

#[derive(Default)]
struct MergesCase;

impl Defect for MergesCase {
    fn endpoint_id(&self, endpoint: &EndpointId) -> EndpointId {
        EndpointId::new(endpoint.as_str().to_lowercase()).unwrap_or_else(|_| endpoint.clone())
    }
}

/// One lock for all changes of members. A call that takes it twice waits for itself.
struct LocksUp(Semaphore);

impl Default for LocksUp {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl LocksUp {
    async fn lock(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

#[async_trait]
impl Defect for LocksUp {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        self.lock().await;
        let added = inner.add_member(room, new).await;
        self.0.add_permits(1);
        added
    }

    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        self.lock().await;
        let removed = inner.remove_member(room, endpoint).await;
        self.0.add_permits(1);
        removed
    }

    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        self.lock().await;
        if let Some(endpoint) = rekey.remove().first() {
            self.remove_member(inner, room, endpoint).await?;
        }
        let moved = inner.rekey(room, rekey).await;
        self.0.add_permits(1);
        moved
    }
}

#[derive(Default)]
struct ClosesNothing;

#[async_trait]
impl Defect for ClosesNothing {
    async fn close(&self, _: &dyn Store) -> Result<(), Error> {
        Ok(())
    }
}

/// The data since the last `close`; `None` before the first open.
#[derive(Default)]
struct KeepsNothing(Mutex<Option<MemoryStore>>);

#[async_trait]
impl Defect for KeepsNothing {
    fn open(&self, data: &MemoryStore) -> MemoryStore {
        locked(&self.0).get_or_insert_with(|| data.client()).client()
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        *locked(&self.0) = Some(MemoryStore::new());
        inner.close().await
    }
}
