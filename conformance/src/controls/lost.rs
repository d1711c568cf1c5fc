//! A store that loses an acknowledged write.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use membership::{Error, Member, NewMember, Role, RoomId, Store};

use super::controls;
use super::defect::Defect;
use super::races::pause;

controls! {
    loses_one_of_two unseen: "LIN-1", "acknowledges two members added at the same time, and keeps one" => LosesUpdate;
}

#[derive(Default)]
struct LosesUpdate(AtomicUsize);

#[async_trait]
impl Defect for LosesUpdate {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        let others = self.0.fetch_add(1, Ordering::SeqCst);
        pause().await;
        let found = inner.room(room).await;
        let there = inner.member(room, &new.endpoint).await;
        let answer = match (found, there) {
            // Another addition is in flight. That addition writes back the members that it read
            // before, without this one.
            (Ok(found), Err(Error::NotFound(_)))
                if others > 0
                    && new.key.as_ref().is_some_and(|(epoch, _)| *epoch == found.epoch) =>
            {
                Ok(Member {
                    room: room.clone(),
                    endpoint: new.endpoint,
                    role: Role::Member,
                    joined_epoch: found.epoch,
                    added_at: new.added_at,
                })
            }
            _ => inner.add_member(room, new).await,
        };
        self.0.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}
