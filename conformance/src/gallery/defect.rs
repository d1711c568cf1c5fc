use std::sync::Arc;

use async_trait::async_trait;
use membership::{
    Decision, EndpointId, Epoch, Error, Member, MemoryStore, NewMember, NewRoom, NewUser, Page,
    Rekey, Room, RoomId, SealedKey, Store, Timestamp, User, UserKey,
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

    /// Breaks the store, as the fault of the target promises.
    fn inject(&self, inner: &MemoryStore) {
        inner.poison();
    }

    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        inner.create_room(new).await
    }

    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        inner.room(room).await
    }

    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        inner.rooms_of(endpoint, page).await
    }

    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        inner.delete_room(room).await
    }

    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        inner.add_member(room, new).await
    }

    async fn member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<Member, Error> {
        inner.member(room, endpoint).await
    }

    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        inner.members(room, page).await
    }

    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        inner.remove_member(room, endpoint).await
    }

    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        inner.rekey(room, rekey).await
    }

    async fn key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        inner.key(room, endpoint, epoch).await
    }

    async fn latest_key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<SealedKey, Error> {
        inner.latest_key(room, endpoint).await
    }

    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        inner.bootstrap_admin(new).await
    }

    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        inner.add_user(new).await
    }

    async fn user(&self, inner: &dyn Store, key: &UserKey) -> Result<User, Error> {
        inner.user(key).await
    }

    async fn users(&self, inner: &dyn Store, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        inner.users(page).await
    }

    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        inner.revoke_user(key, at).await
    }

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        inner.is_authorized(key).await
    }

    async fn is_admin(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        inner.is_admin(key).await
    }

    async fn has_admin(&self, inner: &dyn Store) -> Result<bool, Error> {
        inner.has_admin().await
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        inner.close().await
    }
}

/// A store with a defect: one client of it.
pub(super) struct Broken<D> {
    pub(super) inner: MemoryStore,
    pub(super) defect: Arc<D>,
}

#[async_trait]
impl<D: Defect> Store for Broken<D> {
    async fn create_room(&self, new: NewRoom) -> Result<Room, Error> {
        let new = NewRoom { id: self.defect.room_id(&new.id), ..new };
        self.defect.create_room(&self.inner, new).await
    }

    async fn room(&self, room: &RoomId) -> Result<Room, Error> {
        self.defect.room(&self.inner, &self.defect.room_id(room)).await
    }

    async fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        self.defect.rooms_of(&self.inner, endpoint, page).await
    }

    async fn delete_room(&self, room: &RoomId) -> Result<(), Error> {
        self.defect.delete_room(&self.inner, &self.defect.room_id(room)).await
    }

    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error> {
        self.defect.add_member(&self.inner, &self.defect.room_id(room), new).await
    }

    async fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        self.defect.member(&self.inner, &self.defect.room_id(room), endpoint).await
    }

    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error> {
        self.defect.members(&self.inner, &self.defect.room_id(room), page).await
    }

    async fn remove_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error> {
        self.defect.remove_member(&self.inner, &self.defect.room_id(room), endpoint).await
    }

    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        self.defect.rekey(&self.inner, &self.defect.room_id(room), rekey).await
    }

    async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        self.defect.key(&self.inner, &self.defect.room_id(room), endpoint, epoch).await
    }

    async fn latest_key(&self, room: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error> {
        self.defect.latest_key(&self.inner, &self.defect.room_id(room), endpoint).await
    }

    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error> {
        self.defect.bootstrap_admin(&self.inner, new).await
    }

    async fn add_user(&self, new: NewUser) -> Result<User, Error> {
        self.defect.add_user(&self.inner, new).await
    }

    async fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.defect.user(&self.inner, key).await
    }

    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        self.defect.users(&self.inner, page).await
    }

    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        self.defect.revoke_user(&self.inner, key, at).await
    }

    async fn is_authorized(&self, key: &UserKey) -> Decision {
        self.defect.is_authorized(&self.inner, key).await
    }

    async fn is_admin(&self, key: &UserKey) -> Decision {
        self.defect.is_admin(&self.inner, key).await
    }

    async fn has_admin(&self) -> Result<bool, Error> {
        self.defect.has_admin(&self.inner).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.defect.close(&self.inner).await
    }
}
