//! Members: every change is one atomic batch of the membership and the head.

use std::ops::Bound;
use std::sync::Arc;

use futures_util::future;
use tokio::time::Instant;

use crate::error::Conflict;
use crate::jetstream::core::{Change, Core, no_member, put, removal};
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::room_records::{GoneMember, MemberGone, Ticket};
use crate::jetstream::stored::{bucket_key, random_id};
use crate::jetstream::sweep;
use crate::{EndpointId, Error, Member, Page, Room, RoomId};

impl Core {
    pub(super) async fn room(&self, room: &RoomId, deadline: Instant) -> Result<Room, Error> {
        let view = self.view(room, |_| Vec::new(), deadline).await?;
        view.record.room(room, &view.head)
    }

    pub(super) async fn member(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        deadline: Instant,
    ) -> Result<Member, Error> {
        let view = self.view(room, |any| vec![any.member("*", endpoint)], deadline).await?;
        view.member_or_none(endpoint)?.ok_or_else(|| no_member(room, endpoint))
    }

    pub(super) async fn members(
        &self,
        room: &RoomId,
        page: &Page<EndpointId>,
        deadline: Instant,
    ) -> Result<Vec<Member>, Error> {
        loop {
            let view = self.view(room, |_| Vec::new(), deadline).await?;
            let Some(roster) = self.roster(&view, deadline).await? else { continue };
            let start = page.after().map_or(Bound::Unbounded, Bound::Excluded);
            let members = roster.range((start, Bound::Unbounded)).take(page.limit());
            return members
                .map(|(endpoint, record)| record.clone()?.member(room, endpoint))
                .collect();
        }
    }

    pub(super) async fn remove_member(
        self: &Arc<Self>,
        room: &RoomId,
        endpoint: &EndpointId,
        deadline: Instant,
    ) -> Result<(), Error> {
        let _turn = self.turns.wait(room).await;
        loop {
            let wanted =
                |any: &bucket_key::Incarnation| vec![any.member("*", endpoint), any.ticket("*")];
            // The membership's keys are at or below this sequence; keys of a later membership are above.
            let (view, keys_up_to) =
                future::try_join(self.view(room, wanted, deadline), self.barrier(Bucket::RoomKeys))
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
                removal(Bucket::Members, key, &MemberGone { id: record.id })?,
                put(Bucket::Members, ticket_key.clone(), &ticket)?,
            ];
            if self.commit(Change { view: &view, head, puts }, deadline).await? {
                if let Some(mut roster) = self.rosters.of(&view) {
                    Arc::make_mut(&mut roster).remove(endpoint);
                    self.rosters.keep(incarnation, &write, roster);
                }
                sweep::ticket(self, incarnation, ticket_key, ticket);
                sweep::tickets_of(self, &view);
                sweep::generation(self, &view);
                return Ok(());
            }
        }
    }
}
