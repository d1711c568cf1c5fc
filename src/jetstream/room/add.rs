//! Additions: those that wait for the same room are made by one change.
//!
//! Only one of several changes that are planned on one head is made. So concurrent additions would each plan, write and
//! lose again and again. Instead one task for each room takes all waiting additions, makes them in one commit, and
//! answers each caller after the commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::{Conflict, Record};
use crate::jetstream::defect::{self, JetStreamDefect};
use crate::jetstream::gateway::exchange::Put;
use crate::jetstream::room::addition_queue::Addition;
use crate::jetstream::room::commit::PlannedChange;
use crate::jetstream::room::index_entry::publish_index;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::sweep;
use crate::jetstream::room::view::View;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::Incarnation;
use crate::jetstream::stored::room_records::{Fence, IndexRecord, MemberRecord};
use crate::jetstream::stored::{bucket_key, codec, random_id};
use crate::trace::{event, span};
use crate::{EndpointId, Epoch, Error, Member, NewMember, Role, RoomId};

/// An addition that a view allows.
struct Planned {
    addition: Addition,
    member: Member,
    /// The membership's id.
    id: String,
}

/// Fails the waiting additions when the room's task ends, also by a panic.
struct AtWork {
    rooms: Arc<RoomClient>,
    room: RoomId,
    /// The task ended because no addition was waiting. A later addition starts another task.
    done: bool,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if !self.done {
            self.rooms.waiting.forget(&self.room);
        }
    }
}

impl RoomClient {
    pub(in crate::jetstream) async fn add_member(
        self: &Arc<Self>,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        let (answer, answered) = oneshot::channel();
        let addition = Addition { new, answer };
        if self.waiting.push(room, addition) {
            let at_work = AtWork { rooms: Arc::clone(self), room: room.clone(), done: false };
            self.background.spawn_surely(span!("additions", room).inside(at_work.run()));
        }
        answered.await.unwrap_or(Err(Error::Timeout))
    }

    async fn add_all(&self, room: &RoomId, mut group: Vec<Addition>) {
        let deadline = Instant::now() + self.op_timeout;
        while !group.is_empty() {
            match self.add_some(room, &mut group, deadline).await {
                Ok(()) => {}
                Err(error) => {
                    for addition in group.drain(..) {
                        let _ = addition.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Answers some additions of a group. The others are tried again, or fail with the error.
    async fn add_some(
        &self,
        room: &RoomId,
        group: &mut Vec<Addition>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let wanted = |any: &Incarnation| {
            let members = group.iter().map(|addition| any.member("*", &addition.new.endpoint));
            members.chain([any.ticket("*")]).collect()
        };
        let view = View::read(&self.buckets, room, wanted, deadline).await?;
        let epoch = view.head.epoch(room)?;
        let mut planned: Vec<Planned> = Vec::new();
        let mut later = Vec::new();
        let mut taken = BTreeSet::new();
        for addition in group.drain(..) {
            let allowed = check(&view, &addition.new, epoch)
                .and_then(|member| has_place(&view, planned.len()).map(|()| member));
            match allowed {
                Err(error) => {
                    let _ = addition.answer.send(Err(error));
                }
                // Two additions have the same endpoint: the second one waits for the first one's outcome.
                Ok(_) if taken.contains(&addition.new.endpoint) => later.push(addition),
                Ok(member) => {
                    taken.insert(addition.new.endpoint.clone());
                    let id = self.fresh_unless(JetStreamDefect::ReusesMemberships)?;
                    planned.push(Planned { addition, member, id });
                }
            }
        }
        if planned.is_empty() {
            return Ok(());
        }
        if planned.len() > 1 {
            event!(call: debug, "one commit for several additions", additions = planned.len());
        }
        let outcome = self.commit_additions(&view, &planned, deadline).await;
        match outcome {
            Ok(true) => {
                for Planned { addition, member, .. } in planned {
                    let _ = addition.answer.send(Ok(member));
                }
                sweep::tickets_of(self, &view);
            }
            Ok(false) => {
                let unmade: Vec<_> =
                    planned.iter().map(|p| (p.member.endpoint.clone(), p.id.clone())).collect();
                let incarnation = view.incarnation.clone();
                self.in_background(|buckets, deadline| async move {
                    for (endpoint, id) in unmade {
                        sweep::unmade_member(
                            &buckets,
                            &incarnation,
                            &endpoint,
                            &id,
                            epoch,
                            deadline,
                        )
                        .await?;
                    }
                    Ok(())
                });
                group.extend(planned.into_iter().map(|planned| planned.addition));
            }
            Err(error) => {
                for Planned { addition, .. } in planned {
                    let _ = addition.answer.send(Err(error.clone()));
                }
            }
        }
        group.extend(later);
        Ok(())
    }

    /// Commits the planned additions if the incarnation has not changed since the view.
    async fn commit_additions(
        &self,
        view: &View,
        planned: &[Planned],
        deadline: Instant,
    ) -> Result<bool, Error> {
        let incarnation = &view.incarnation;
        let write = random_id::fresh()?;
        let mut head = view.head.next(&write);
        let (mut index, mut counters) = (Vec::new(), Vec::new());
        let (mut keys, mut members) = (Vec::new(), Vec::new());
        for Planned { addition, member, id } in planned {
            let endpoint = &member.endpoint;
            let epoch = member.joined_epoch.get();
            let generation = head.generation.clone();
            let fence = IndexRecord { fence: Fence::Head(view.revision), epoch, generation };
            index.push(Put::record(
                Bucket::RoomsByMember,
                incarnation.index(endpoint, id),
                &fence,
            )?);
            counters.push(Put::record(
                Bucket::RoomsByMember,
                bucket_key::index_count(endpoint),
                id,
            )?);
            if let Some((epoch, ciphertext)) = &addition.new.key {
                let key = incarnation.sealed(endpoint, *epoch, id);
                let value = codec::seal(Bucket::RoomKeys, &key, ciphertext.as_bytes());
                keys.push(Put::new(key, value));
            }
            let key = incarnation.member(&head.generation, endpoint);
            head.count += 1;
            if view.entry(&key).is_some() {
                // The tombstone of the endpoint's former membership, which the addition replaces.
                head.ended = head.ended.saturating_sub(1);
            }
            members.push(Put::record(
                Bucket::Members,
                key,
                &MemberRecord::new(id.clone(), member),
            )?);
        }
        let change = PlannedChange { view, head, puts: members };
        if self.buckets.is(JetStreamDefect::IndexesAfterTheCommit) {
            self.buckets.gateway.publish_all(Bucket::RoomKeys, keys, deadline).await?;
            let made = change.commit(&self.buckets, deadline).await?;
            defect::half_done().await;
            publish_index(&self.buckets, index, counters, deadline).await?;
            return Ok(made);
        }
        future::try_join(
            publish_index(&self.buckets, index, counters, deadline),
            self.buckets.gateway.publish_all(Bucket::RoomKeys, keys, deadline),
        )
        .await?;
        let made = change.commit(&self.buckets, deadline).await?;
        if made {
            self.rosters.change(view, &write, |roster| {
                roster.extend(planned.iter().map(|Planned { member, id, .. }| {
                    (member.endpoint.clone(), Ok(MemberRecord::new(id.clone(), member)))
                }));
            });
        }
        Ok(made)
    }
}

impl AtWork {
    async fn run(mut self) {
        loop {
            let group = self.rooms.waiting.take(&self.room);
            if group.is_empty() {
                self.done = true;
                return;
            }
            self.rooms.add_all(&self.room, group).await;
        }
    }
}

/// The most members of a room.
///
/// A roster is read in 256 parts, each in one answer of up to 1,024 records. The parts differ in size, and before a
/// roster is renewed, it may have as many tombstones of ended memberships as members.
pub(in crate::jetstream) const MOST_MEMBERS: u64 = 100_000;

/// Whether the view's room has a place for one more member after `planned` others.
fn has_place(view: &View, planned: usize) -> Result<(), Error> {
    let members = view.head.count.saturating_add(u64::try_from(planned).unwrap_or(u64::MAX));
    if members < MOST_MEMBERS {
        return Ok(());
    }
    Err(Conflict::RoomFull { most: MOST_MEMBERS }.into())
}

/// Plans the membership of an addition, if the view allows the addition.
fn check(view: &View, new: &NewMember, epoch: Epoch) -> Result<Member, Error> {
    match (view.record.encrypted(), &new.key) {
        (true, None) => return Err(Conflict::KeyMissing.into()),
        (false, Some(_)) => return Err(Conflict::RoomUnencrypted.into()),
        _ => {}
    }
    let (room, endpoint): (RoomId, EndpointId) = (view.id.clone(), new.endpoint.clone());
    if view.member(&endpoint)?.is_some() {
        return Err(Error::AlreadyExists(Record::Member { room, endpoint }));
    }
    if new.key.as_ref().is_some_and(|(sealed_for, _)| *sealed_for != epoch) {
        return Err(Error::StaleEpoch { current: epoch });
    }
    let (role, added_at) = (Role::Member, new.added_at);
    Ok(Member { room, endpoint, role, joined_epoch: epoch, added_at })
}
