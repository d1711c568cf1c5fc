use async_trait::async_trait;

use crate::{
    Decision, EndpointId, Epoch, Error, Member, NewMember, NewRoom, NewUser, Page, Rekey, Room,
    RoomId, SealedKey, Timestamp, User, UserKey,
};

/// Who is in which room, with which keys, and who is allowed in at all.
///
/// One value is one *client* of a store; several clients, in one process or in many, may share
/// the same data. `CONTRACT.md` says clause by clause what every implementation owes, and the
/// package `membership-conformance` holds it to that. The clauses that hold for every call: all
/// of them are linearizable (LIN-1) and return within the store's `op_timeout` plus 250 ms, a
/// rekey or a deletion within ten times `op_timeout` (TIME-1); a write that ends in
/// [`Error::Timeout`] or [`Error::Unavailable`], or whose future is dropped, took effect entirely
/// or not at all (ERR-2, TIME-2); a record that cannot be decoded is [`Error::Corrupt`] (ERR-3);
/// after [`close`](Self::close) every call is [`Error::Closed`] (CLOSE-2).
///
/// ```
/// use std::sync::Arc;
/// use membership::{Ciphertext, Decision, Epoch, MemoryStore, NewMember, NewRoom, Store, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), membership::Error> {
/// let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
/// let (room, ann, bob) = ("ops".parse()?, "ann".parse()?, "bob".parse()?);
/// let now = Timestamp::from_millis(0);
/// let sealed = Ciphertext::new(b"for ann, epoch 1")?;
/// store.create_room(NewRoom::encrypted(room, ann, now, sealed)).await?;
///
/// let room = "ops".parse()?;
/// let sealed = Ciphertext::new(b"for bob, epoch 1")?;
/// store.add_member(&room, NewMember::sealed(bob, now, Epoch::FIRST, sealed.clone())).await?;
/// let bob = "bob".parse()?;
/// assert_eq!(store.latest_key(&room, &bob).await?.ciphertext, sealed);
///
/// store.remove_member(&room, &bob).await?;
/// assert!(store.room(&room).await?.rekey_due);
/// assert!(store.latest_key(&room, &bob).await.is_err());
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Store: Send + Sync {
    /// Makes a room, its owner's membership and, for an encrypted room, the owner's sealed key at
    /// epoch 1, in one atomic step (ROOM-1, ROOM-5).
    ///
    /// Errors: [`AlreadyExists`](Error::AlreadyExists) for an id in use (ROOM-2).
    async fn create_room(&self, new: NewRoom) -> Result<Room, Error>;

    /// The room as it is now (ROOM-3).
    ///
    /// Errors: [`NotFound`](Error::NotFound) (ERR-1).
    async fn room(&self, room: &RoomId) -> Result<Room, Error>;

    /// The rooms an endpoint is a member of, in byte order of their ids: one page, which is one
    /// consistent state (LIST-1, LIST-2, LIST-4, LIST-5). An endpoint in no room has an empty
    /// page (LIST-3).
    async fn rooms_of(&self, endpoint: &EndpointId, page: Page<RoomId>)
    -> Result<Vec<Room>, Error>;

    /// Removes a room, its members, all its sealed keys and every trace of it in
    /// [`rooms_of`](Self::rooms_of), in one atomic step (ROOM-4).
    ///
    /// Errors: [`NotFound`](Error::NotFound).
    async fn delete_room(&self, room: &RoomId) -> Result<(), Error>;

    /// Adds an endpoint with [`Role::Member`](crate::Role::Member) and, in an encrypted room, its
    /// sealed key for the current epoch, in one atomic step (MEM-1, MEM-5).
    ///
    /// Errors, the first that applies: `NotFound` of the room; `Conflict` for a key missing in an
    /// encrypted room or given in an unencrypted one; `AlreadyExists` for a member (MEM-2);
    /// `StaleEpoch` for a key of another epoch.
    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error>;

    /// The membership of an endpoint in a room.
    ///
    /// Errors: `NotFound` of the room, or of the member (ERR-1).
    async fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error>;

    /// The members of a room in byte order of their endpoints: one page, which is one consistent
    /// state (LIST-1, LIST-2, LIST-5).
    ///
    /// Errors: `NotFound` of the room (LIST-3).
    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error>;

    /// Removes a membership and every sealed key the endpoint has in that room, in one atomic
    /// step; an encrypted room is due a rekey afterwards (MEM-3).
    ///
    /// Errors: `NotFound` of the room, or of the member; `Conflict` for the owner (MEM-4).
    async fn remove_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error>;

    /// Moves an encrypted room to its next epoch: removes members, stores a sealed key for
    /// everyone who remains, clears `rekey_due`; all in one atomic step. Returns the room as it
    /// is afterwards (KEY-4 to KEY-9, KEY-11).
    ///
    /// Errors, the first that applies: `NotFound` of the room; `Conflict` for an unencrypted
    /// room (KEY-10); `StaleEpoch` where `from` is not the current epoch; `NotFound` of the first
    /// endpoint (in byte order) to remove that is no member; `Conflict` for the owner's removal,
    /// for the last epoch (TYPE-6), and for keys that are not for exactly those who remain
    /// (KEY-6).
    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error>;

    /// The sealed key that was stored for exactly this room, endpoint and epoch (KEY-2, KEY-9).
    ///
    /// Errors: `NotFound` of the room, or of the key; also in an unencrypted room (KEY-10).
    async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error>;

    /// The endpoint's sealed key at the room's current epoch (KEY-1, KEY-3).
    ///
    /// Errors: `NotFound` of the room, or of the key; also in an unencrypted room (KEY-10).
    async fn latest_key(&self, room: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error>;

    /// Makes the first admin; the user is an admin whatever `new.admin` says. Works once in a
    /// store's life (USER-1).
    ///
    /// Errors: `Conflict` when an admin was ever made; `AlreadyExists` for a known key.
    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error>;

    /// Adds a user, an admin or not (USER-2).
    ///
    /// Errors: `AlreadyExists` for a known key, revoked or not.
    async fn add_user(&self, new: NewUser) -> Result<User, Error>;

    /// A user, revoked or not (USER-5).
    ///
    /// Errors: `NotFound` (ERR-1).
    async fn user(&self, key: &UserKey) -> Result<User, Error>;

    /// The users, revoked ones too, in byte order of their keys: one page, which is one
    /// consistent state (USER-5, LIST-1, LIST-2, LIST-5).
    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error>;

    /// Revokes a user for ever; of one that is revoked already, nothing changes (USER-3).
    ///
    /// Errors: `NotFound`; `Conflict` for the last active admin (USER-4).
    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error>;

    /// Whether this user is let in (AUTH-1). Once a revocation has returned, no call that starts
    /// afterwards, on any client, allows (AUTH-3); a failure denies, in time (AUTH-2).
    async fn is_authorized(&self, key: &UserKey) -> Decision;

    /// Whether this user is let in and an admin (AUTH-1, AUTH-2, AUTH-3).
    async fn is_admin(&self, key: &UserKey) -> Decision;

    /// Whether an active admin provably exists, or provably none; a failure is an error, never
    /// `false` (AUTH-5).
    async fn has_admin(&self) -> Result<bool, Error>;

    /// Waits for this client's calls in flight, or ends them at their deadline, then releases
    /// everything it holds. Idempotent and safe to call concurrently (CLOSE-1). Other clients of
    /// the same data go on; every later call on this one is [`Error::Closed`], every decision a
    /// denial (CLOSE-2). A store that is dropped without it leaks and loses nothing (CLOSE-3).
    async fn close(&self) -> Result<(), Error>;
}
