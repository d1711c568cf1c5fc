//! Closing, reopening and failing in the wrong way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use membership::{
    Decision, DenyReason, EndpointId, Error, Member, NewMember, NewRoom, Room, RoomId, Store, User,
    UserKey,
};

use super::defect::Defect;
use super::listings::locked;
use super::mutants;

mutants! {
    second_close_fails: "CLOSE-1", "closing a closed store is an error" => ClosesOnce;
    second_close_panics: "CLOSE-1", "closing a closed store panics" => PanicsTwice;
    closes_every_client: "CLOSE-2", "closing one client closes the others" => ClosesAll;
    reads_after_close: "CLOSE-2", "answers rooms after close as it did before" => ReadsOn;
    loses_the_last_write unseen: "DUR-1", "the last room or member made before close is gone afterwards" => LosesLast;
    blocks_its_thread unseen: "TIME-1", "a call blocks the thread it is made on, once, for longer than it may take" => Blocks;
    hangs_on_a_fault unseen: "TIME-1", "is_authorized never returns while the store fails" => Hangs;
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
        // What was removed since needs no undoing.
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
            // Its bound is 1,250 ms. Whoever measured the machine on this thread would excuse twice that.
            std::thread::sleep(Duration::from_millis(2200));
        }
        inner.user(key).await
    }
}
