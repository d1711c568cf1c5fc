//! Stores that are wrong only when a call is dropped, or a client is dropped or closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use membership::{
    Error, Member, MemoryStore, NewMember, NewUser, Rekey, Room, RoomId, Store, User,
};

use super::controls;
use super::defect::Defect;
use super::races::{RekeysInSteps, pause};

controls! {
    leaks_its_lock_when_dropped unseen: "TIME-2", "keeps the lock of a call that is dropped" => LeaksItsLock;
    stays_half_done_when_dropped unseen: "TIME-2", "removes members without moving the epoch when a rekey is dropped" => RekeysInSteps;
    does_it_later_as_well unseen: "ERR-2", "repeats a finished removal later when its call is dropped" => DoesItTwice;
    leaks_a_task_when_dropped unseen: "TIME-2", "never ends the background task of a rekey that is dropped" => LeaksATask;
    close_leaves_a_task unseen: "CLOSE-1", "leaves a client's task running after close" => Lingers<true>;
    drop_leaves_a_task unseen: "CLOSE-3", "leaves a client's task running after the client is dropped" => Lingers<false>;
    drop_loses_a_write unseen: "CLOSE-3", "loses the last user that a client added before it was dropped" => Buffers;
}

#[derive(Default)]
struct LeaksItsLock(AtomicBool);

#[async_trait]
impl Defect for LeaksItsLock {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        while self.0.swap(true, Ordering::AcqRel) {
            tokio::task::yield_now().await;
        }
        pause().await;
        let added = inner.add_member(room, new).await;
        self.0.store(false, Ordering::Release);
        added
    }
}

/// A write that starts in a task of its own when this value is dropped.
struct Again<F: Future<Output = ()> + Send + 'static>(Option<F>);

impl<F: Future<Output = ()> + Send + 'static> Drop for Again<F> {
    fn drop(&mut self) {
        if let Some(write) = self.0.take() {
            tokio::spawn(write);
        }
    }
}

/// A client for the removal that is repeated after its caller has gone.
#[derive(Default)]
struct DoesItTwice(std::sync::OnceLock<MemoryStore>);

#[async_trait]
impl Defect for DoesItTwice {
    fn open(&self, data: &MemoryStore) -> MemoryStore {
        self.0.get_or_init(|| data.client());
        data.client()
    }

    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &membership::EndpointId,
    ) -> Result<(), Error> {
        inner.remove_member(room, endpoint).await?;
        let later = self.0.get().map(|data| {
            let (data, room, endpoint) = (data.client(), room.clone(), endpoint.clone());
            async move {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                let _ = data.remove_member(&room, &endpoint).await;
            }
        });
        let mut again = Again(later);
        pause().await;
        again.0 = None;
        Ok(())
    }
}

#[derive(Default)]
struct LeaksATask;

#[async_trait]
impl Defect for LeaksATask {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let background = tokio::spawn(std::future::pending::<()>());
        pause().await;
        let done = inner.rekey(room, rekey).await;
        background.abort();
        done
    }
}

/// A client's task, which goes on when the client is dropped; with `CLOSED`, also after `close`.
#[derive(Default)]
struct Lingers<const CLOSED: bool>(std::sync::Mutex<Option<tokio::task::AbortHandle>>);

#[async_trait]
impl<const CLOSED: bool> Defect for Lingers<CLOSED> {
    const PER_CLIENT: bool = true;

    fn open(&self, data: &MemoryStore) -> MemoryStore {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        *super::listings::locked(&self.0) = Some(task);
        data.client()
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        if let Some(task) = super::listings::locked(&self.0).take()
            && !CLOSED
        {
            task.abort();
        }
        inner.close().await
    }
}

/// A user who is acknowledged, but stored only at the next `add_user`, `user` or `close`.
#[derive(Default)]
struct Buffers(Arc<tokio::sync::Mutex<Option<NewUser>>>);

impl Buffers {
    async fn flush(&self, inner: &dyn Store) {
        if let Some(new) = self.0.lock().await.take() {
            let _ = inner.add_user(new).await;
        }
    }
}

#[async_trait]
impl Defect for Buffers {
    const PER_CLIENT: bool = true;

    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        self.flush(inner).await;
        if new.admin || inner.user(&new.key).await.is_ok() {
            return inner.add_user(new).await;
        }
        let user = new.user();
        *self.0.lock().await = Some(new);
        Ok(user)
    }

    async fn user(&self, inner: &dyn Store, key: &membership::UserKey) -> Result<User, Error> {
        self.flush(inner).await;
        inner.user(key).await
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        self.flush(inner).await;
        inner.close().await
    }
}
