use async_trait::async_trait;

use crate::{
    Decision, EndpointId, Epoch, Error, Member, NewMember, NewRoom, NewUser, Page, Rekey, Room,
    RoomId, SealedKey, Timestamp, User, UserKey,
};

/// A store of rooms, their members and sealed keys, and of the users allowed on the bus.
///
/// One value is one *client* of a store. Several clients, in one process or in several, may share
/// the same data. `CONTRACT.md` lists what every implementation must do; the package
/// `membership-conformance` tests it. These clauses hold for every call:
///
/// - All calls are linearizable (LIN-1).
/// - A call returns within the store's `op_timeout` plus 250 ms. A rekey or a deletion of a room
///   may take ten times as long (TIME-1).
/// - A write that ends in [`Error::Timeout`] or [`Error::Unavailable`], or whose future is dropped,
///   takes effect once and entirely, possibly later, or never (ERR-2, TIME-2, LIN-1).
/// - A record that cannot be decoded is [`Error::Corrupt`] (ERR-3).
/// - After [`close`](Self::close) every call is [`Error::Closed`] (CLOSE-2).
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
    /// Creates a room with its owner as its first member.
    ///
    /// An encrypted room also gets the owner's sealed key at epoch 1. All of it is one atomic step
    /// (ROOM-1). A room created under the id of a deleted room has nothing of the deleted one
    /// (ROOM-5).
    ///
    /// Errors: [`AlreadyExists`](Error::AlreadyExists) for an id in use (ROOM-2).
    async fn create_room(&self, new: NewRoom) -> Result<Room, Error>;

    /// Returns a room, with its current epoch and `rekey_due` (ROOM-3).
    ///
    /// Errors: [`NotFound`](Error::NotFound) if there is no such room (ERR-1).
    async fn room(&self, room: &RoomId) -> Result<Room, Error>;

    /// Returns one page of the rooms of which an endpoint is a member, in byte order of their ids.
    ///
    /// The page is one consistent state (LIST-1, LIST-2, LIST-4, LIST-5). The page is empty for an
    /// endpoint that is in no room (LIST-3).
    async fn rooms_of(&self, endpoint: &EndpointId, page: Page<RoomId>)
    -> Result<Vec<Room>, Error>;

    /// Deletes a room, its members and all its sealed keys in one atomic step (ROOM-4).
    ///
    /// Afterwards no page of [`rooms_of`](Self::rooms_of) lists the room.
    ///
    /// Errors: [`NotFound`](Error::NotFound) if there is no such room.
    async fn delete_room(&self, room: &RoomId) -> Result<(), Error>;

    /// Adds an endpoint to a room, with [`Role::Member`](crate::Role::Member).
    ///
    /// In an encrypted room the call also stores the member's sealed key for the current epoch, in
    /// the same atomic step (MEM-1). An endpoint that was a member before gets none of its former
    /// keys back (MEM-5).
    ///
    /// Errors, the first that applies:
    ///
    /// 1. `NotFound` of the room.
    /// 2. `Conflict` for a key that is missing in an encrypted room, or given in an unencrypted
    ///    one.
    /// 3. `AlreadyExists` for an endpoint that is a member already (MEM-2).
    /// 4. `StaleEpoch` for a key of another epoch than the current one.
    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error>;

    /// Returns the membership of an endpoint in a room.
    ///
    /// Errors: `NotFound` of the room, or of the member (ERR-1).
    async fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error>;

    /// Returns one page of the members of a room, in byte order of their endpoints.
    ///
    /// The page is one consistent state (LIST-1, LIST-2, LIST-5).
    ///
    /// Errors: `NotFound` of the room (LIST-3).
    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error>;

    /// Removes a member and every sealed key that it has in the room, in one atomic step.
    ///
    /// An encrypted room is due a rekey afterwards (MEM-3).
    ///
    /// Errors: `NotFound` of the room, or of the member; `Conflict` for the owner (MEM-4).
    async fn remove_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error>;

    /// Moves an encrypted room to its next epoch, and returns the room as it is afterwards.
    ///
    /// In one atomic step the call removes the members in `remove`, stores one sealed key for each
    /// remaining member, and clears `rekey_due` (KEY-4 to KEY-9, KEY-11).
    ///
    /// Errors, the first that applies:
    ///
    /// 1. `NotFound` of the room.
    /// 2. `Conflict` for an unencrypted room (KEY-10).
    /// 3. `StaleEpoch` if `from` is not the current epoch.
    /// 4. `NotFound` of the first endpoint in `remove` (in byte order) that is not a member.
    /// 5. `Conflict` if `remove` has the owner, if the room is at the last epoch (TYPE-6), or if
    ///    the keys are not for exactly the remaining members (KEY-6).
    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error>;

    /// Returns the sealed key that was stored for exactly this room, endpoint and epoch.
    ///
    /// The key of an earlier epoch stays readable while the endpoint is a member (KEY-2, KEY-9).
    ///
    /// Errors: `NotFound` of the room, or of the key. An unencrypted room has no keys (KEY-10).
    async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error>;

    /// Returns the endpoint's sealed key at the room's current epoch (KEY-1, KEY-3).
    ///
    /// Errors: `NotFound` of the room, or of the key. An unencrypted room has no keys (KEY-10).
    async fn latest_key(&self, room: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error>;

    /// Creates the first admin. Works once in a store's life (USER-1).
    ///
    /// The user is an admin whatever `new.admin` says.
    ///
    /// Errors, the first that applies: `Conflict` if an admin was ever made, even if that admin is
    /// revoked; `AlreadyExists` for a known key.
    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error>;

    /// Adds a user, who may be an admin (USER-2).
    ///
    /// Errors: `AlreadyExists` for a known key, even if its user is revoked.
    async fn add_user(&self, new: NewUser) -> Result<User, Error>;

    /// Returns a user, revoked or not (USER-5).
    ///
    /// Errors: `NotFound` if there is no such user (ERR-1).
    async fn user(&self, key: &UserKey) -> Result<User, Error>;

    /// Returns one page of the users, revoked ones included, in byte order of their keys.
    ///
    /// The page is one consistent state (USER-5, LIST-1, LIST-2, LIST-5).
    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error>;

    /// Revokes a user for ever (USER-3).
    ///
    /// Revoking a revoked user succeeds and changes nothing.
    ///
    /// Errors: `NotFound` if there is no such user; `Conflict` for the last active admin (USER-4).
    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error>;

    /// Decides whether a user is let in (AUTH-1).
    ///
    /// Once a revocation has returned, no call that starts afterwards, on any client, allows that
    /// user (AUTH-3). A store in a bounded-staleness mode notices a revocation at most its bound
    /// later (AUTH-4). A failure denies, within the deadline (AUTH-2).
    async fn is_authorized(&self, key: &UserKey) -> Decision;

    /// Decides whether a user is let in and is an admin (AUTH-1 to AUTH-4).
    async fn is_admin(&self, key: &UserKey) -> Decision;

    /// Returns whether an active admin exists (AUTH-5).
    ///
    /// Both answers are proved. A failure is an error, never `false`: otherwise a failure would
    /// allow a second bootstrap.
    async fn has_admin(&self) -> Result<bool, Error>;

    /// Closes this client, and releases everything that it holds.
    ///
    /// Waits for this client's calls in flight, or ends them at their deadline. Idempotent, and
    /// safe to call concurrently (CLOSE-1). Other clients of the same data go on. Every later call
    /// on this client is [`Error::Closed`], and every decision denies (CLOSE-2). Dropping a store
    /// without `close` leaks nothing and loses nothing that was acknowledged (CLOSE-3).
    async fn close(&self) -> Result<(), Error>;
}
