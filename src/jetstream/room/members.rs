//! Adds, removes and lists members. Every change is one atomic batch of the membership and the head.

use std::ops::Bound;
use std::sync::Arc;

use futures_util::future;
use tokio::time::Instant;

use crate::error::Conflict;
use crate::jetstream::gateway::exchange::Put;
use crate::jetstream::room::commit::PlannedChange;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::view::{View, no_member};
use crate::jetstream::room::{generation, roster, sweep};
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::Incarnation;
use crate::jetstream::stored::random_id;
use crate::jetstream::stored::room_records::{GoneMember, MemberGone, Ticket};
use crate::{EndpointId, Error, Member, Page, Room, RoomId};

impl RoomClient {
    pub(in crate::jetstream) async fn room(
        &self,
        room: &RoomId,
        deadline: Instant,
    ) -> Result<Room, Error> {
        let view = View::read(&self.buckets, room, |_| Vec::new(), deadline).await?;
        view.record.room(room, &view.head)
    }

    pub(in crate::jetstream) async fn member(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        deadline: Instant,
    ) -> Result<Member, Error> {
        let view = View::read(&self.buckets, room, |any| vec![any.member("*", endpoint)], deadline)
            .await?;
        view.member_or_none(endpoint)?.ok_or_else(|| no_member(room, endpoint))
    }

    pub(in crate::jetstream) async fn members(
        &self,
        room: &RoomId,
        page: &Page<EndpointId>,
        deadline: Instant,
    ) -> Result<Vec<Member>, Error> {
        loop {
            let view = View::read(&self.buckets, room, |_| Vec::new(), deadline).await?;
            // The cache is not used here, since it would hide a record that was damaged after it was cached.
            let Some(roster) = roster::read(&self.buckets, &view, deadline).await? else {
                continue;
            };
            let start = page.after().map_or(Bound::Unbounded, Bound::Excluded);
            let members = roster.range((start, Bound::Unbounded)).take(page.limit());
            return members
                .map(|(endpoint, record)| record.clone()?.member(room, endpoint))
                .collect();
        }
    }

    pub(in crate::jetstream) async fn remove_member(
        self: &Arc<Self>,
        room: &RoomId,
        endpoint: &EndpointId,
        deadline: Instant,
    ) -> Result<(), Error> {
        let _turn = self.turns.wait(room).await;
        loop {
            let wanted = |any: &Incarnation| vec![any.member("*", endpoint), any.ticket("*")];
            // All keys of the membership are at or below this sequence, and all keys of a later membership are above
            // it.
            let (view, keys_up_to) = future::try_join(
                View::read(&self.buckets, room, wanted, deadline),
                self.buckets.barrier(Bucket::RoomKeys),
            )
            .await?;
            let record = view.member(endpoint)?.ok_or_else(|| no_member(room, endpoint))?;
            if record.owner() {
                return Err(Conflict::OwnerStays.into());
            }
            let (write, incarnation) = (random_id::fresh()?, &view.incarnation);
            let mut head = view.head.next(&write);
            head.count = head.count.saturating_sub(1);
            head.ended += 1;
            head.ended_since += 1;
            let generation = head.generation.clone();
            let gone = GoneMember { endpoint: endpoint.as_str().to_owned(), id: record.id.clone() };
            let keys_up_to = keys_up_to.sequence;
            let ticket = Ticket { keys_up_to, generation, gone: vec![gone] };
            let key = incarnation.member(&head.generation, endpoint);
            let ticket_key = incarnation.ticket(&write);
            let puts = vec![
                Put::tombstone(Bucket::Members, key, &MemberGone { id: record.id })?,
                Put::record(Bucket::Members, ticket_key.clone(), &ticket)?,
            ];
            let change = PlannedChange { view: &view, head, puts };
            if change.commit(&self.buckets, deadline).await? {
                self.rosters.change(&view, &write, |roster| drop(roster.remove(endpoint)));
                sweep::ticket(self, incarnation, ticket_key, ticket);
                sweep::tickets_of(self, &view);
                generation::renew_if_due(self, &view);
                return Ok(());
            }
        }
    }
}
