use std::sync::Arc;

use async_trait::async_trait;
use membership::{
    Decision, DenyReason, EndpointId, Epoch, Error, Member, MemoryStore, NewMember, NewRoom,
    NewUser, Page, Rekey, Room, RoomId, SealedKey, Store, Timestamp, User, UserKey,
};

/// What is wrong with a store: each method is a call of [`Store`] on the sound store `inner`, and
/// a defect overrides those it spoils.
///
/// One value is shared by all clients of the store, or belongs to one client where `PER_CLIENT`
/// says so.
#[async_trait]
pub(super) trait Defect: Default + Send + Sync + 'static {
    const PER_CLIENT: bool = false;

    /// What becomes of a room's id on its way into the store.
    fn room_id(&self, room: &RoomId) -> RoomId {
        room.clone()
    }

    /// What becomes of an endpoint's id on its way into the store.
    fn endpoint_id(&self, endpoint: &EndpointId) -> EndpointId {
        endpoint.clone()
    }

    /// What becomes of a user's key on its way into the store.
    fn user_key(&self, key: &UserKey) -> UserKey {
        *key
    }

    /// The defect of another client, where `shared` is that of all of them.
    fn client(shared: &Arc<Self>) -> Arc<Self> {
        if Self::PER_CLIENT { Arc::default() } else { Arc::clone(shared) }
    }

    /// Opens another client of the data.
    fn open(&self, data: &MemoryStore) -> MemoryStore {
        data.client()
    }

    /// Whether the faults of the target do what they promise.
    fn breaks(&self) -> bool {
        true
    }

    /// Whether data that must exist are looked for before a client is opened.
    fn makes_nothing(&self) -> bool {
        true
    }

    /// Whether it is looked at what serves the data when a client is opened.
    fn looks_when_opened(&self) -> bool {
        true
    }

    /// Whether open clients look at what serves the data.
    fn looks(&self) -> bool {
        true
    }

    /// The data were these, and are about to become others.
    fn become_past(&self, _: MemoryStore) {}

    /// What comes before every call that is not overridden.
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

/// A store with a defect: one client of it.
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
