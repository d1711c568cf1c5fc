//! Stores with one defect that any single caller can see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use membership::{
    Ciphertext, Conflict, Decision, DenyReason, EndpointId, Epoch, Error, Label, Member, NewMember,
    NewRoom, NewUser, Page, Record, Rekey, Room, RoomId, SealedKey, Store, Timestamp, User,
    UserKey,
};

use super::controls;
use super::defect::Defect;
use super::listings::locked;

controls! {
    rounds_revocations_to_seconds unseen: "TYPE-3", "returns the time of a revocation in whole seconds" => RoundsRevocations;
    trims_labels unseen: "USER-2", "drops the spaces around a user's label" => TrimsLabels;
    remembers_that_a_rekey_was_due unseen: "ROOM-5", "keeps a deleted room's rekey_due for a room created again under its id" => DueAgain;
    plain_rooms_need_a_rekey unseen: "MEM-3", "sets rekey_due in an unencrypted room after a removal" => PlainDue;
    takes_members_without_a_key unseen: "MEM-1", "makes up a key for a member added to an encrypted room without one" => MakesUpKeys;
    an_owner_has_one_room unseen: "ROOM-1", "refuses to create a second room of the same owner" => OneRoom;
    joins_anew_at_each_rekey unseen: "KEY-5", "sets joined_epoch of all members to the new epoch at a rekey" => JoinsAnew;
    rekeys_nobody_alone unseen: "KEY-5", "refuses a rekey that leaves only the owner" => NeedsTwo;
    stale_before_kind unseen: "ERR-4", "returns StaleEpoch instead of Conflict for a rekey of an unencrypted room" => StaleBeforeKind;
    strangers_before_stale unseen: "ERR-4", "returns NotFound instead of StaleEpoch for a stale rekey that removes a non-member" => StrangersFirst;
    a_missing_key_has_no_epoch unseen: "ERR-1", "names a missing key without its epoch" => NamesNoEpoch;
    finds_keys_of_other_rooms unseen: "KEY-2", "returns an endpoint's key of another room when the key is missing" => OtherRooms;
    refuses_equal_keys unseen: "KEY-2", "refuses a rekey in which two keys have the same bytes" => RefusesEqual;
    misses_who_is_in_no_room unseen: "LIST-3", "returns NotFound from rooms_of for an endpoint without a room" => NoRooms;
    orders_users_backwards unseen: "LIST-1", "lists users in the order of their keys with the bytes reversed" => Backwards;
    lists_a_thousand_rooms_at_most unseen: "LIST-1", "lists only the first thousand rooms of an endpoint" => Thousand;
    bootstraps_a_plain_user unseen: "USER-1", "makes the bootstrapped user no admin when the request says so" => PlainBootstrap;
    any_user_ends_the_bootstrap unseen: "USER-1", "refuses the bootstrap once there is any user" => AnyUser;
    bootstrap_promotes unseen: "USER-2", "returns success for the bootstrap of a known user" => Promotes;
    keeps_admins_out unseen: "AUTH-1", "denies admins in is_authorized" => AdminsOut;
    has_had_an_admin unseen: "AUTH-5", "answers has_admin with true, also when there is no admin" => AlwaysAdmin;
    revokes_the_neighbour unseen: "USER-3", "revokes the next user in key order as well" => Neighbour;
    keeps_users_without_an_admin unseen: "USER-4", "refuses to revoke a user while there is no admin" => NoAdminNoEnd;
    misses_what_it_cannot_read unseen: "ERR-1", "returns NotFound of a room when the read fails" => MissesOnError;
    answers_one_at_a_time unseen: "TIME-1", "reads rooms one at a time, so that concurrent reads wait for one another" => OneAtATime;
    is_closed_slowly unseen: "CLOSE-2", "waits two seconds before it returns Closed" => ClosedSlowly;
    closes_slowly unseen: "CLOSE-1", "takes two seconds to close" => ClosesSlowly;
}

#[derive(Default)]
struct RoundsRevocations;

#[async_trait]
impl Defect for RoundsRevocations {
    async fn user(&self, inner: &dyn Store, key: &UserKey) -> Result<User, Error> {
        let user = inner.user(key).await?;
        let whole = |at: Timestamp| Timestamp::from_millis(at.as_millis() / 1000 * 1000);
        Ok(User { revoked_at: user.revoked_at.map(whole), ..user })
    }
}

#[derive(Default)]
struct TrimsLabels;

#[async_trait]
impl Defect for TrimsLabels {
    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        let label = Label::new(new.label.as_str().trim())?;
        inner.add_user(NewUser { label, ..new }).await
    }
}

/// Deleted rooms whose `rekey_due` was set.
#[derive(Default)]
struct DueAgain(Mutex<BTreeSet<RoomId>>);

#[async_trait]
impl Defect for DueAgain {
    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        let due = inner.room(room).await.is_ok_and(|room| room.rekey_due);
        inner.delete_room(room).await?;
        if due {
            locked(&self.0).insert(room.clone());
        }
        Ok(())
    }

    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        let found = inner.room(room).await?;
        Ok(Room { rekey_due: found.rekey_due || locked(&self.0).contains(room), ..found })
    }
}

/// Rooms from which a member was removed.
#[derive(Default)]
struct PlainDue(Mutex<BTreeSet<RoomId>>);

#[async_trait]
impl Defect for PlainDue {
    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        inner.remove_member(room, endpoint).await?;
        locked(&self.0).insert(room.clone());
        Ok(())
    }

    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        let found = inner.room(room).await?;
        let due = !found.encrypted && locked(&self.0).contains(room);
        Ok(Room { rekey_due: found.rekey_due || due, ..found })
    }
}

#[derive(Default)]
struct MakesUpKeys;

#[async_trait]
impl Defect for MakesUpKeys {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        match inner.add_member(room, new.clone()).await {
            Err(Error::Conflict(Conflict::KeyMissing)) => {
                let (epoch, key) = (inner.room(room).await?.epoch, Ciphertext::new("made up")?);
                let new = NewMember::sealed(new.endpoint, new.added_at, epoch, key);
                inner.add_member(room, new).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct OneRoom;

#[async_trait]
impl Defect for OneRoom {
    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        let rooms = inner.rooms_of(&new.owner, Page::first()).await?;
        if rooms.iter().any(|room| room.owner == new.owner) {
            return Err(Error::AlreadyExists(Record::Room(new.id)));
        }
        inner.create_room(new).await
    }
}

#[derive(Default)]
struct JoinsAnew;

#[async_trait]
impl Defect for JoinsAnew {
    async fn member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<Member, Error> {
        let member = inner.member(room, endpoint).await?;
        Ok(Member { joined_epoch: inner.room(room).await?.epoch, ..member })
    }
}

#[derive(Default)]
struct NeedsTwo;

#[async_trait]
impl Defect for NeedsTwo {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        if rekey.keys().len() == 1 {
            return Err(Conflict::OwnerStays.into());
        }
        inner.rekey(room, rekey).await
    }
}

#[derive(Default)]
struct StaleBeforeKind;

#[async_trait]
impl Defect for StaleBeforeKind {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        match inner.rekey(room, rekey).await {
            Err(Error::Conflict(Conflict::RoomUnencrypted)) => {
                Err(Error::StaleEpoch { current: Epoch::ZERO })
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct StrangersFirst;

#[async_trait]
impl Defect for StrangersFirst {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        if inner.room(room).await.is_ok_and(|room| room.encrypted) {
            for endpoint in rekey.remove() {
                inner.member(room, endpoint).await?;
            }
        }
        inner.rekey(room, rekey).await
    }
}

#[derive(Default)]
struct NamesNoEpoch;

#[async_trait]
impl Defect for NamesNoEpoch {
    async fn key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        inner.key(room, endpoint, epoch).await.map_err(|error| match error {
            Error::NotFound(Record::Key { room, endpoint, .. }) => {
                Error::NotFound(Record::Key { room, endpoint, epoch: None })
            }
            other => other,
        })
    }
}

#[derive(Default)]
struct OtherRooms;

#[async_trait]
impl Defect for OtherRooms {
    async fn key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        let found = inner.key(room, endpoint, epoch).await;
        if let Err(Error::NotFound(Record::Key { .. })) = found {
            for other in inner.rooms_of(endpoint, Page::first()).await? {
                if let Ok(key) = inner.key(&other.id, endpoint, epoch).await {
                    return Ok(key);
                }
            }
        }
        found
    }
}

#[derive(Default)]
struct RefusesEqual;

#[async_trait]
impl Defect for RefusesEqual {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let different: BTreeSet<_> = rekey.keys().values().map(Ciphertext::as_bytes).collect();
        if different.len() < rekey.keys().len() {
            return Err(Conflict::KeyMissing.into());
        }
        inner.rekey(room, rekey).await
    }
}

#[derive(Default)]
struct NoRooms;

#[async_trait]
impl Defect for NoRooms {
    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        let (first, rooms) = (page.after().is_none(), inner.rooms_of(endpoint, page).await?);
        if first && rooms.is_empty() {
            let (room, endpoint) = (RoomId::new("any")?, endpoint.clone());
            return Err(Error::NotFound(Record::Member { room, endpoint }));
        }
        Ok(rooms)
    }
}

#[derive(Default)]
struct Backwards;

#[async_trait]
impl Defect for Backwards {
    async fn users(&self, inner: &dyn Store, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        let order = |key: &UserKey| {
            let mut bytes = *key.as_bytes();
            bytes.reverse();
            bytes
        };
        let mut all = BTreeMap::new();
        let mut next = Page::first();
        loop {
            let users = inner.users(next).await?;
            let Some(last) = users.last().map(|user| user.key) else { break };
            all.extend(users.into_iter().map(|user| (order(&user.key), user)));
            next = Page::after_id(last);
        }
        let after = page.after().map(order);
        let rest = all.into_iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
        Ok(rest.map(|(_, user)| user).take(page.limit()).collect())
    }
}

#[derive(Default)]
struct Thousand;

#[async_trait]
impl Defect for Thousand {
    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        let first = inner.rooms_of(endpoint, Page::first()).await?;
        let mut rooms = inner.rooms_of(endpoint, page).await?;
        rooms.retain(|room| first.iter().any(|known| known.id == room.id));
        Ok(rooms)
    }
}

#[derive(Default)]
struct PlainBootstrap;

#[async_trait]
impl Defect for PlainBootstrap {
    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        if new.admin || inner.has_admin().await? {
            inner.bootstrap_admin(new).await
        } else {
            inner.add_user(new).await
        }
    }
}

#[derive(Default)]
struct AnyUser;

#[async_trait]
impl Defect for AnyUser {
    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        if inner.users(Page::first()).await?.is_empty() {
            return inner.bootstrap_admin(new).await;
        }
        Err(Conflict::AdminExists.into())
    }
}

#[derive(Default)]
struct Promotes;

#[async_trait]
impl Defect for Promotes {
    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        match inner.bootstrap_admin(new.clone()).await {
            Err(Error::AlreadyExists(_)) => Ok(NewUser { admin: true, ..new }.user()),
            other => other,
        }
    }
}

#[derive(Default)]
struct AdminsOut;

#[async_trait]
impl Defect for AdminsOut {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        match inner.is_admin(key).await {
            Decision::Allow => Decision::Deny(DenyReason::NotAdmin),
            Decision::Deny(_) => inner.is_authorized(key).await,
        }
    }
}

#[derive(Default)]
struct AlwaysAdmin;

#[async_trait]
impl Defect for AlwaysAdmin {
    async fn has_admin(&self, inner: &dyn Store) -> Result<bool, Error> {
        inner.has_admin().await.map(|_| true)
    }
}

#[derive(Default)]
struct Neighbour;

#[async_trait]
impl Defect for Neighbour {
    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        inner.revoke_user(key, at).await?;
        for user in inner.users(Page::new(Some(*key), 1)?).await? {
            let _ = inner.revoke_user(&user.key, at).await;
        }
        Ok(())
    }
}

#[derive(Default)]
struct NoAdminNoEnd;

#[async_trait]
impl Defect for NoAdminNoEnd {
    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        if inner.user(key).await.is_ok_and(|user| !user.revoked) && !inner.has_admin().await? {
            return Err(Conflict::LastAdmin.into());
        }
        inner.revoke_user(key, at).await
    }
}

#[derive(Default)]
struct MissesOnError;

#[async_trait]
impl Defect for MissesOnError {
    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        match inner.room(room).await {
            Err(Error::Unavailable(_) | Error::Timeout) => {
                Err(Error::NotFound(Record::Room(room.clone())))
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct OneAtATime(tokio::sync::Mutex<()>);

#[async_trait]
impl Defect for OneAtATime {
    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        let _turn = self.0.lock().await;
        tokio::time::sleep(Duration::from_millis(25)).await;
        inner.room(room).await
    }
}

#[derive(Default)]
struct ClosedSlowly;

#[async_trait]
impl Defect for ClosedSlowly {
    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        let found = inner.room(room).await;
        if found == Err(Error::Closed) {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        found
    }
}

#[derive(Default)]
struct ClosesSlowly;

#[async_trait]
impl Defect for ClosesSlowly {
    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        let closed = inner.has_admin().await == Err(Error::Closed);
        if !closed {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        inner.close().await
    }
}
