use std::sync::Arc;

use async_trait::async_trait;
use membership::{
    Decision, DenyReason, EndpointId, Epoch, Error, Member, MemoryStore, NewMember, NewRoom,
    NewUser, Page, Rekey, Room, RoomId, SealedKey, Store, Timestamp, User, UserKey,
};

/// What is wrong with a store: a defect overrides the calls of [`Store`] that it spoils.
///
/// The other calls go to `inner`, a sound store, unchanged. All clients of the store share one
/// value, unless `PER_CLIENT` gives each client its own.
#[async_trait]
pub(super) trait Defect: Default + Send + Sync + 'static {
    const PER_CLIENT: bool = false;

    /// The id under which the store knows this room: the same, unless the defect changes it.
    fn room_id(&self, room: &RoomId) -> RoomId {
        room.clone()
    }

    /// The id under which the store knows this endpoint.
    fn endpoint_id(&self, endpoint: &EndpointId) -> EndpointId {
        endpoint.clone()
    }

    /// The key under which the store knows this user.
    fn user_key(&self, key: &UserKey) -> UserKey {
        *key
    }

    /// The defect of a new client; `shared` is the store's.
    fn client(shared: &Arc<Self>) -> Arc<Self> {
        if Self::PER_CLIENT { Arc::default() } else { Arc::clone(shared) }
    }

    /// Opens the sound client on which the defective one is built.
    fn open(&self, data: &MemoryStore) -> MemoryStore {
        data.client()
    }

    /// Whether injected faults take effect.
    fn breaks(&self) -> bool {
        true
    }

    /// Whether `open_existing` fails, and makes nothing, if there are no data.
    fn makes_nothing(&self) -> bool {
        true
    }

    /// Whether opening a client fails while something too old serves the data.
    fn looks_when_opened(&self) -> bool {
        true
    }

    /// Whether calls of an open client fail while something too old serves the data.
    fn looks(&self) -> bool {
        true
    }

    /// Receives a copy of the data before they go back, are replaced or vanish.
    fn become_past(&self, _: MemoryStore) {}

    /// Runs before every call but `close` that the defect does not override.
    async fn before(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        self.before().await?;
        inner.create_room(new).await
    }

    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        self.before().await?;
        inner.room(room).await
    }

    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        self.before().await?;
        inner.rooms_of(endpoint, page).await
    }

    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        self.before().await?;
        inner.delete_room(room).await
    }

    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        self.before().await?;
        inner.add_member(room, new).await
    }

    async fn member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<Member, Error> {
        self.before().await?;
        inner.member(room, endpoint).await
    }

    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        self.before().await?;
        inner.members(room, page).await
    }

    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        self.before().await?;
        inner.remove_member(room, endpoint).await
    }

    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        self.before().await?;
        inner.rekey(room, rekey).await
    }

    async fn key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        self.before().await?;
        inner.key(room, endpoint, epoch).await
    }

    async fn latest_key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<SealedKey, Error> {
        self.before().await?;
        inner.latest_key(room, endpoint).await
    }

    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        self.before().await?;
        inner.bootstrap_admin(new).await
    }

    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        self.before().await?;
        inner.add_user(new).await
    }

    async fn user(&self, inner: &dyn Store, key: &UserKey) -> Result<User, Error> {
        self.before().await?;
        inner.user(key).await
    }

    async fn users(&self, inner: &dyn Store, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        self.before().await?;
        inner.users(page).await
    }

    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.before().await?;
        inner.revoke_user(key, at).await
    }

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        match self.before().await {
            Ok(()) => inner.is_authorized(key).await,
            Err(error) => Decision::Deny(DenyReason::Failed(error)),
        }
    }

    async fn is_admin(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        match self.before().await {
            Ok(()) => inner.is_admin(key).await,
            Err(error) => Decision::Deny(DenyReason::Failed(error)),
        }
    }

    async fn has_admin(&self, inner: &dyn Store) -> Result<bool, Error> {
        self.before().await?;
        inner.has_admin().await
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        inner.close().await
    }
}

/// A client of a store with a defect.
pub(super) struct Broken<D> {
    pub(super) inner: Arc<dyn Store>,
    pub(super) defect: Arc<D>,
}

impl<D: Defect> Broken<D> {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn room_of(&self, room: &RoomId) -> RoomId {
        self.defect.room_id(room)
    }

    fn endpoint_of(&self, endpoint: &EndpointId) -> EndpointId {
        self.defect.endpoint_id(endpoint)
    }

    fn user_of(&self, new: NewUser) -> NewUser {
        NewUser { key: self.defect.user_key(&new.key), ..new }
    }
}

#[async_trait]
impl<D: Defect> Store for Broken<D> {
    async fn create_room(&self, new: NewRoom) -> Result<Room, Error> {
        let (id, owner) = (self.room_of(&new.id), self.endpoint_of(&new.owner));
        let new = NewRoom { id, owner, ..new };
        self.defect.create_room(self.inner(), new).await
    }

    async fn room(&self, room: &RoomId) -> Result<Room, Error> {
        self.defect.room(self.inner(), &self.room_of(room)).await
    }

    async fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        self.defect.rooms_of(self.inner(), &self.endpoint_of(endpoint), page).await
    }

    async fn delete_room(&self, room: &RoomId) -> Result<(), Error> {
        self.defect.delete_room(self.inner(), &self.room_of(room)).await
    }

    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error> {
        let new = NewMember { endpoint: self.endpoint_of(&new.endpoint), ..new };
        self.defect.add_member(self.inner(), &self.room_of(room), new).await
    }

    async fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        self.defect.member(self.inner(), &self.room_of(room), &self.endpoint_of(endpoint)).await
    }

    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error> {
        self.defect.members(self.inner(), &self.room_of(room), page).await
    }

    async fn remove_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error> {
        self.defect
            .remove_member(self.inner(), &self.room_of(room), &self.endpoint_of(endpoint))
            .await
    }

    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let remove: Vec<_> = rekey.remove().iter().map(|who| self.endpoint_of(who)).collect();
        let keys = rekey.keys().iter().map(|(who, key)| (self.endpoint_of(who), key.clone()));
        let rekey = Rekey::new(rekey.from(), remove, keys.collect::<Vec<_>>())?;
        self.defect.rekey(self.inner(), &self.room_of(room), rekey).await
    }

    async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        self.defect.key(self.inner(), &self.room_of(room), &self.endpoint_of(endpoint), epoch).await
    }

    async fn latest_key(&self, room: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error> {
        self.defect.latest_key(self.inner(), &self.room_of(room), &self.endpoint_of(endpoint)).await
    }

    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error> {
        self.defect.bootstrap_admin(self.inner(), self.user_of(new)).await
    }

    async fn add_user(&self, new: NewUser) -> Result<User, Error> {
        self.defect.add_user(self.inner(), self.user_of(new)).await
    }

    async fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.defect.user(self.inner(), &self.defect.user_key(key)).await
    }

    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        self.defect.users(self.inner(), page).await
    }

    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        self.defect.revoke_user(self.inner(), &self.defect.user_key(key), at).await
    }

    async fn is_authorized(&self, key: &UserKey) -> Decision {
        self.defect.is_authorized(self.inner(), &self.defect.user_key(key)).await
    }

    async fn is_admin(&self, key: &UserKey) -> Decision {
        self.defect.is_admin(self.inner(), &self.defect.user_key(key)).await
    }

    async fn has_admin(&self) -> Result<bool, Error> {
        self.defect.has_admin(self.inner()).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.defect.close(self.inner()).await
    }
}
