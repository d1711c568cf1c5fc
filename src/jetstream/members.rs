//! Members: every change is one atomic batch of the member's record and the incarnation's head.

use std::ops::Bound;
use std::sync::Arc;

use futures_util::future;
use tokio::time::Instant;

use crate::error::{Conflict, Record};
use crate::jetstream::bucket::Bucket;
use crate::jetstream::core::{Change, Core, View, no_member, put, removal};
use crate::jetstream::gateway::Put;
use crate::jetstream::key;
use crate::jetstream::record::{Fence, GoneMember, IndexRecord, MemberGone, MemberRecord, Ticket};
use crate::jetstream::{codec, sweep};
use crate::{EndpointId, Error, Member, NewMember, Page, Role, Room, RoomId};

impl Core {
    pub(super) async fn room(&self, room: &RoomId, by: Instant) -> Result<Room, Error> {
        let view = self.view(room, |_| Vec::new(), by).await?;
        view.record.room(room, &view.head)
    }

    pub(super) async fn member(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        by: Instant,
    ) -> Result<Member, Error> {
        let view = self.view(room, |any| vec![any.member("*", endpoint)], by).await?;
        view.member_or_none(endpoint)?.ok_or_else(|| no_member(room, endpoint))
    }

    pub(super) async fn members(
        &self,
        room: &RoomId,
        page: &Page<EndpointId>,
        by: Instant,
    ) -> Result<Vec<Member>, Error> {
        loop {
            let view = self.view(room, |_| Vec::new(), by).await?;
            let Some(roster) = self.roster(&view, by).await? else { continue };
            let start = page.after().map_or(Bound::Unbounded, Bound::Excluded);
            let members = roster.range((start, Bound::Unbounded)).take(page.limit());
            return members.map(|(endpoint, record)| record.member(room, endpoint)).collect();
        }
    }

    pub(super) async fn add_member(
        self: &Arc<Self>,
        room: &RoomId,
        new: NewMember,
        by: Instant,
    ) -> Result<Member, Error> {
        loop {
            let wanted =
                |any: &key::Incarnation| vec![any.member("*", &new.endpoint), any.ticket("*")];
            let view = self.view(room, wanted, by).await?;
            let epoch = view.head.epoch(room)?;
            match (view.record.encrypted(), &new.key) {
                (true, None) => return Err(Conflict::KeyMissing.into()),
                (false, Some(_)) => return Err(Conflict::RoomUnencrypted.into()),
                _ => {}
            }
            if view.member(&new.endpoint)?.is_some() {
                let (room, endpoint) = (room.clone(), new.endpoint.clone());
                return Err(Error::AlreadyExists(Record::Member { room, endpoint }));
            }
            if new.key.as_ref().is_some_and(|(sealed_for, _)| *sealed_for != epoch) {
                return Err(Error::StaleEpoch { current: epoch });
            }
            let member = Member {
                room: room.clone(),
                endpoint: new.endpoint.clone(),
                role: Role::Member,
                joined_epoch: epoch,
                added_at: new.added_at,
            };
            if self.try_add(&view, &new, &member, by).await? {
                sweep::tickets_of(self, &view);
                return Ok(member);
            }
        }
    }

    /// Adds the member, if nothing happened to the incarnation since the view.
    async fn try_add(
        self: &Arc<Self>,
        view: &View,
        new: &NewMember,
        member: &Member,
        by: Instant,
    ) -> Result<bool, Error> {
        let (id, incarnation) = (key::fresh()?, &view.incarnation);
        let fence =
            IndexRecord { fence: Fence::Head(view.revision), epoch: member.joined_epoch.get() };
        let index = vec![
            put(Bucket::RoomsByMember, incarnation.index(&new.endpoint, &id), &fence)?,
            put(Bucket::RoomsByMember, key::index_count(&new.endpoint), &id)?,
        ];
        let keys = new.key.iter().map(|(epoch, ciphertext)| {
            let key = incarnation.sealed(&new.endpoint, *epoch, &id);
            let value = codec::seal(Bucket::RoomKeys, &key, ciphertext.as_bytes());
            Put::new(key, value)
        });
        future::try_join(
            self.gateway.publish_all(Bucket::RoomsByMember, index, by),
            self.gateway.publish_all(Bucket::RoomKeys, keys.collect(), by),
        )
        .await?;
        let mut head = view.head.next(&id);
        head.count += 1;
        let record = MemberRecord::new(id.clone(), member);
        let key = incarnation.member(&head.generation, &new.endpoint);
        if view.entry(&key).is_some() {
            // The marker of a former membership, which this replaces.
            head.ended = head.ended.saturating_sub(1);
        }
        let puts = vec![put(Bucket::Members, key, &record)?];
        let done = self.commit(Change { view, write: &id, head, puts }, by).await?;
        if !done {
            let (incarnation, endpoint) = (incarnation.clone(), new.endpoint.clone());
            let epoch = member.joined_epoch;
            self.chore(|core, by| async move {
                sweep::unmade_member(&core, &incarnation, &endpoint, &id, epoch, by).await
            });
        }
        Ok(done)
    }

    pub(super) async fn remove_member(
        self: &Arc<Self>,
        room: &RoomId,
        endpoint: &EndpointId,
        by: Instant,
    ) -> Result<(), Error> {
        loop {
            let wanted = |any: &key::Incarnation| vec![any.member("*", endpoint), any.ticket("*")];
            // All keys the endpoint has are below this; those of a later membership are above.
            let (view, keys_up_to) =
                future::try_join(self.view(room, wanted, by), self.barrier(Bucket::RoomKeys))
                    .await?;
            let record = view.member(endpoint)?.ok_or_else(|| no_member(room, endpoint))?;
            if record.owner() {
                return Err(Conflict::OwnerStays.into());
            }
            let (write, incarnation) = (key::fresh()?, &view.incarnation);
            let mut head = view.head.next(&write);
            head.count = head.count.saturating_sub(1);
            head.ended += 1;
            head.rekey_due = view.record.encrypted();
            let generation = head.generation.clone();
            let gone = GoneMember { endpoint: endpoint.as_str().to_owned(), id: record.id.clone() };
            let ticket = Ticket { keys_up_to, generation, gone: vec![gone] };
            let key = incarnation.member(&head.generation, endpoint);
            let ticket_key = incarnation.ticket(&write);
            let puts = vec![
                removal(Bucket::Members, key, &MemberGone { id: record.id })?,
                put(Bucket::Members, ticket_key.clone(), &ticket)?,
            ];
            if self.commit(Change { view: &view, write: &write, head, puts }, by).await? {
                sweep::ticket(self, incarnation, ticket_key, ticket);
                sweep::tickets_of(self, &view);
                sweep::generation(self, &view);
                return Ok(());
            }
        }
    }
}
