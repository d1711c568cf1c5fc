//! Stores that are right for one caller, and wrong for concurrent ones.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use membership::{
    EndpointId, Error, Member, NewMember, NewRoom, NewUser, Page, Rekey, Room, RoomId, Store, User,
};

use super::controls;
use super::defect::Defect;
use super::listings::locked;

controls! {
    lets_two_rekeys_win unseen: "KEY-7", "retries the loser of two concurrent rekeys from the winner's epoch" => TwoWin;
    adds_with_the_old_key unseen: "KEY-8", "adds a member during a rekey with a key of the former epoch" => AddsLate;
    deletes_in_steps unseen: "ROOM-4", "removes a deleted room's members one by one, and then the room" => DeletesInSteps;
    rekeys_in_steps unseen: "KEY-5", "removes the members of a rekey first, and moves the epoch afterwards" => RekeysInSteps;
    bootstraps_in_steps unseen: "USER-1", "checks whether there is an admin first, and makes one afterwards" => BootstrapsInSteps;
    remembers_rooms: "LIN-1", "answers room from a client's cache that only the client's own writes clear" => Remembers;
}

/// Waits as long as a disk would, so that other callers can make what was read before stale.
///
/// Sleeping yields the thread; otherwise on a busy machine no other caller would run meanwhile.
pub(super) async fn pause() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[derive(Default)]
struct TwoWin;

#[async_trait]
impl Defect for TwoWin {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let before = inner.room(room).await?.epoch;
        pause().await;
        match inner.rekey(room, rekey.clone()).await {
            Err(Error::StaleEpoch { current }) if before == rekey.from() => {
                let again = Rekey::new(current, rekey.remove().clone(), rekey.keys().clone())?;
                inner.rekey(room, again).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct AddsLate;

#[async_trait]
impl Defect for AddsLate {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        let before = inner.room(room).await?.epoch;
        pause().await;
        match (inner.add_member(room, new.clone()).await, new.key) {
            (Err(Error::StaleEpoch { current }), Some((epoch, key))) if epoch == before => {
                let late = NewMember::sealed(new.endpoint, new.added_at, current, key);
                inner.add_member(room, late).await
            }
            (other, _) => other,
        }
    }
}

#[derive(Default)]
struct DeletesInSteps;

#[async_trait]
impl Defect for DeletesInSteps {
    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        for member in inner.members(room, Page::first()).await? {
            // The owner cannot be removed, and another caller may have removed the member already.
            let _ = inner.remove_member(room, &member.endpoint).await;
            pause().await;
        }
        inner.delete_room(room).await
    }
}

#[derive(Default)]
pub(super) struct RekeysInSteps;

#[async_trait]
impl Defect for RekeysInSteps {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let found = inner.room(room).await?;
        if !found.encrypted || found.epoch != rekey.from() || rekey.remove().is_empty() {
            return inner.rekey(room, rekey).await;
        }
        let all = crate::observe::members(inner, room).await?;
        let here = |endpoint: &EndpointId| all.iter().any(|member| member.endpoint == *endpoint);
        let stays = |member: &&Member| !rekey.remove().contains(&member.endpoint);
        let whole = rekey.remove().iter().all(here)
            && !rekey.remove().contains(&found.owner)
            && all.iter().filter(stays).map(|member| &member.endpoint).eq(rekey.keys().keys());
        if !whole {
            return inner.rekey(room, rekey).await;
        }
        for endpoint in rekey.remove() {
            inner.remove_member(room, endpoint).await?;
            pause().await;
        }
        inner.rekey(room, Rekey::new(rekey.from(), [], rekey.keys().clone())?).await
    }
}

#[derive(Default)]
struct BootstrapsInSteps;

#[async_trait]
impl Defect for BootstrapsInSteps {
    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        if inner.has_admin().await? {
            return inner.bootstrap_admin(new).await;
        }
        pause().await;
        inner.add_user(NewUser { admin: true, ..new }).await
    }
}

#[derive(Default)]
struct Remembers(Mutex<BTreeMap<RoomId, Room>>);

#[async_trait]
impl Defect for Remembers {
    const PER_CLIENT: bool = true;

    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        let found = inner.room(room).await?;
        Ok(locked(&self.0).entry(room.clone()).or_insert(found).clone())
    }

    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        locked(&self.0).remove(&new.id);
        inner.create_room(new).await
    }

    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        locked(&self.0).remove(room);
        inner.delete_room(room).await
    }

    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        locked(&self.0).remove(room);
        inner.remove_member(room, endpoint).await
    }

    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        locked(&self.0).remove(room);
        inner.rekey(room, rekey).await
    }
}
