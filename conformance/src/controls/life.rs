//! Stores that close, reopen or fail wrongly.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use membership::{
    Decision, DenyReason, EndpointId, Error, Member, NewMember, NewRoom, Room, RoomId, Store, User,
    UserKey,
};

use super::controls;
use super::defect::Defect;
use super::listings::locked;

controls! {
    second_close_fails: "CLOSE-1", "returns an error from a second close" => ClosesOnce;
    second_close_panics: "CLOSE-1", "panics at a second close" => PanicsTwice;
    closes_every_client: "CLOSE-2", "closes all clients when one is closed" => ClosesAll;
    reads_after_close: "CLOSE-2", "still returns a room after close" => ReadsOn;
    loses_the_last_write unseen: "DUR-1", "undoes the last creation of a room or addition of a member at close" => LosesLast;
    blocks_its_thread unseen: "TIME-1", "blocks the caller's thread, once, for longer than a call may take" => Blocks;
    hangs_on_a_fault unseen: "TIME-1", "never answers is_authorized while a fault lasts" => Hangs;
}

#[derive(Default)]
struct ClosesOnce;

#[async_trait]
impl Defect for ClosesOnce {
    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        match inner.has_admin().await {
            Err(Error::Closed) => Err(Error::Closed),
            _ => inner.close().await,
        }
    }
}

#[derive(Default)]
struct PanicsTwice;

#[async_trait]
impl Defect for PanicsTwice {
    #[expect(clippy::panic, reason = "the defect")]
    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        match inner.has_admin().await {
            Err(Error::Closed) => panic!("closed twice"),
            _ => inner.close().await,
        }
    }
}

#[derive(Default)]
struct ClosesAll(AtomicBool);

#[async_trait]
impl Defect for ClosesAll {
    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        self.0.store(true, Ordering::Relaxed);
        inner.close().await
    }

    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Closed) } else { inner.room(room).await }
    }

    async fn has_admin(&self, inner: &dyn Store) -> Result<bool, Error> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Closed) } else { inner.has_admin().await }
    }
}

#[derive(Default)]
struct ReadsOn(Mutex<Option<Room>>);

#[async_trait]
impl Defect for ReadsOn {
    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        let room = inner.create_room(new).await?;
        *locked(&self.0) = Some(room.clone());
        Ok(room)
    }

    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        match inner.room(room).await {
            Err(Error::Closed) => locked(&self.0).clone().ok_or(Error::Closed),
            other => other,
        }
    }
}

/// How to undo a write.
enum Last {
    Room(RoomId),
    Member(RoomId, EndpointId),
}

#[derive(Default)]
struct LosesLast(Mutex<Option<Last>>);

#[async_trait]
impl Defect for LosesLast {
    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        let room = inner.create_room(new).await?;
        *locked(&self.0) = Some(Last::Room(room.id.clone()));
        Ok(room)
    }

    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        let member = inner.add_member(room, new).await?;
        *locked(&self.0) = Some(Last::Member(room.clone(), member.endpoint.clone()));
        Ok(member)
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        let last = locked(&self.0).take();
        // The room or member may be gone already; then there is nothing to undo.
        let _ = match last {
            Some(Last::Room(room)) => inner.delete_room(&room).await,
            Some(Last::Member(room, endpoint)) => inner.remove_member(&room, &endpoint).await,
            None => Ok(()),
        };
        inner.close().await
    }
}

#[derive(Default)]
struct Hangs;

#[async_trait]
impl Defect for Hangs {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        match inner.is_authorized(key).await {
            Decision::Deny(DenyReason::Failed(Error::Unavailable(_))) => {
                std::future::pending().await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct Blocks(AtomicUsize);

#[async_trait]
impl Defect for Blocks {
    async fn user(&self, inner: &dyn Store, key: &UserKey) -> Result<User, Error> {
        if self.0.fetch_add(1, Ordering::Relaxed) == 20 {
            // Longer than the call's bound of 1,250 ms, and shorter than twice the bound: a check
            // that measured on this very thread how late the machine is would excuse it.
            std::thread::sleep(Duration::from_millis(2200));
        }
        inner.user(key).await
    }
}
