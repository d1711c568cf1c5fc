//! A room at one moment, by a proved read of its head.

use futures_util::future;
use tokio::time::Instant;

use crate::error::Record;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::{Entry, ReadError, Snapshot};
use crate::jetstream::room::decode::{head_record, member_record};
use crate::jetstream::room::end_head::end_room;
use crate::jetstream::room::occupant::Occupant;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::{self, Incarnation};
use crate::jetstream::stored::room_records::{Head, MemberRecord, RoomGone, RoomRecord};
use crate::trace::event;
use crate::{EndpointId, Error, Member, RoomId};

/// A room and parts of its incarnation, all of one moment.
pub(in crate::jetstream) struct View {
    pub(in crate::jetstream) id: RoomId,
    pub(in crate::jetstream) record: RoomRecord,
    pub(in crate::jetstream) incarnation: Incarnation,
    pub(in crate::jetstream) head: Head,
    /// The revision of the head. A change that is planned on this view is refused once the head has another.
    pub(in crate::jetstream) revision: u64,
    /// The other records that the caller asked for.
    entries: Vec<Entry>,
}

impl View {
    /// Reads a room, and the records of its incarnation that `wanted` names. `NotFound` if there is no room.
    ///
    /// The head decides, by a proved read: an incarnation that a room record ever named is a room while its head has no
    /// tombstone. So any replica may say which incarnation the record names; only the answer that there is no room
    /// needs a proved read of the record. `PROTOCOL.md` has the argument.
    pub(in crate::jetstream) async fn read(
        buckets: &BucketClient,
        room: &RoomId,
        wanted: impl Fn(&Incarnation) -> Vec<String>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let any = Incarnation::any(room);
        let mut filters = wanted(&any);
        filters.push(any.head());
        let mut believes = true;
        let mut missed: Vec<u64> = Vec::new();
        loop {
            let (occupant, members) = future::try_join(
                Occupant::read_probable(buckets, room, std::mem::take(&mut believes), deadline),
                read_members(buckets, &mut filters, &any, deadline),
            )
            .await?;
            let (record, room_revision) = match occupant {
                Occupant::Nobody(_, gone) => {
                    let lives = |gone: &&RoomGone| {
                        let head = Incarnation::new(room, &gone.incarnation).head();
                        members.find(&head).is_none_or(|head| !head.removal)
                    };
                    end_room(buckets, room, gone.as_ref().filter(lives), deadline).await?;
                    return Err(no_room(room));
                }
                Occupant::Room(record, revision) => (record, revision),
            };
            let incarnation = Incarnation::new(room, &record.incarnation);
            let entry = members.find(&incarnation.head());
            let revision = entry.map_or(0, |entry| entry.sequence);
            let head = entry.map_or(Ok(None), head_record)?;
            if let Some(head) = head.filter(|head| !record.is_late_copy(head, revision)) {
                let ours = |entry: &Entry| {
                    bucket_key::incarnation_of(&entry.key) == Some(record.incarnation.as_str())
                };
                let entries = members.entries.into_iter().filter(ours).collect();
                let id = room.clone();
                return Ok(Self { id, record, incarnation, head, revision, entries });
            }
            // The room's record was stale, or the room was created or deleted between the two reads. Only if three
            // rounds agree, neither is the case: the second round's members were read after the first round's record
            // and before the third's.
            missed.push(room_revision);
            if missed.iter().filter(|revision| **revision == room_revision).count() == 3 {
                let problem = "missing, though the room is there";
                return Err(Error::corrupt(Bucket::Members.name(), incarnation.head(), problem));
            }
        }
    }

    pub(in crate::jetstream) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Returns the records whose keys begin with this prefix.
    pub(in crate::jetstream) fn entries_below<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.key.starts_with(prefix))
    }

    /// The membership of an endpoint, if the caller asked for it.
    pub(in crate::jetstream) fn member(
        &self,
        endpoint: &EndpointId,
    ) -> Result<Option<MemberRecord>, Error> {
        let key = self.incarnation.member(&self.head.generation, endpoint);
        self.entry(&key).map_or(Ok(None), member_record)
    }

    /// Converts this membership to the contract's record.
    pub(in crate::jetstream) fn member_or_none(
        &self,
        endpoint: &EndpointId,
    ) -> Result<Option<Member>, Error> {
        self.member(endpoint)?.map(|record| record.member(&self.id, endpoint)).transpose()
    }
}

/// Reads these records of a room, by a proved read. Leaves the tickets out if there are more of them than one answer may
/// hold: they only name garbage, and must not stop the room's changes.
async fn read_members(
    buckets: &BucketClient,
    filters: &mut Vec<String>,
    any: &Incarnation,
    deadline: Instant,
) -> Result<Snapshot, Error> {
    match buckets.read(Bucket::Members, filters, deadline).await {
        Err(ReadError::TooMany) => {
            let tickets = any.ticket("*");
            event!(garbage: warn, "too many tickets to collect", tickets);
            filters.retain(|filter| *filter != tickets);
            buckets.read_few(Bucket::Members, filters, deadline).await
        }
        read => read.map_err(|error| error.for_few_keys(Bucket::Members)),
    }
}

pub(super) fn no_room(room: &RoomId) -> Error {
    Error::NotFound(Record::Room(room.clone()))
}

pub(super) fn no_member(room: &RoomId, endpoint: &EndpointId) -> Error {
    Error::NotFound(Record::Member { room: room.clone(), endpoint: endpoint.clone() })
}
