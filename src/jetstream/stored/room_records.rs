//! The stored records of rooms. Ids are stored as plain text. Numbers are checked when a record is read, so a wrong one
//! is [`Error::Corrupt`].

use serde::{Deserialize, Serialize};

use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::changes::Changes;
use crate::{EndpointId, Epoch, Error, Member, NewRoom, Role, Room, RoomId, Timestamp};

/// `rooms`: a room's incarnation, and the fields of the room that never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct RoomRecord {
    pub(in crate::jetstream) incarnation: String,
    /// The revision of the incarnation's first head.
    born: u64,
    /// Creations, each by its incarnation, and deletions.
    pub(in crate::jetstream) changes: Changes,
    owner: String,
    encrypted: bool,
    created_at: i64,
}

impl RoomRecord {
    pub(in crate::jetstream) fn new(
        new: &NewRoom,
        incarnation: String,
        born: u64,
        before: &Changes,
    ) -> Self {
        Self {
            changes: before.next(&incarnation),
            incarnation,
            born,
            owner: new.owner.as_str().to_owned(),
            encrypted: new.owner_key.is_some(),
            created_at: new.created_at.as_millis(),
        }
    }

    /// The room, from this record and the head.
    pub(in crate::jetstream) fn room(&self, id: &RoomId, head: &Head) -> Result<Room, Error> {
        let corrupt = |problem: String| Error::corrupt(Bucket::Rooms.name(), id.as_str(), problem);
        Ok(Room {
            id: id.clone(),
            owner: EndpointId::new(&self.owner).map_err(|error| corrupt(error.to_string()))?,
            encrypted: self.encrypted,
            epoch: head.epoch(id)?,
            rekey_due: self.encrypted && head.ended_since > 0,
            created_at: Timestamp::from_millis(self.created_at),
        })
    }

    pub(in crate::jetstream) fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether a head at this revision is a late copy of the room's first head, stored after all records of the room
    /// were collected. If so, the room is deleted.
    pub(in crate::jetstream) fn is_late_copy(&self, head: &Head, revision: u64) -> bool {
        head.changes.is_first() && revision != self.born
    }
}

/// `rooms`: the tombstone of a deleted room. The tombstone stays for good. Otherwise a late creation that was planned
/// before the room was made, when the id was unused, would succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct RoomGone {
    pub(in crate::jetstream) incarnation: String,
    /// The changes of the room's record, and then the deletion.
    pub(in crate::jetstream) changes: Changes,
}

/// `members`: the head of an incarnation. Every change of the incarnation replaces it, by compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct Head {
    pub(in crate::jetstream) changes: Changes,
    /// The revision of the room's record in `rooms` that the creation replaces. Once the record has a newer revision
    /// and does not name this incarnation, no record ever will.
    pub(in crate::jetstream) planned: u64,
    /// The generation of the roster.
    pub(in crate::jetstream) generation: String,
    /// The number of members. A roster of another size is `Corrupt`.
    pub(in crate::jetstream) count: u64,
    /// The number of tombstones in the generation.
    pub(in crate::jetstream) ended: u64,
    epoch: u64,
    /// The attempt that made the current epoch; empty for the first epoch.
    pub(in crate::jetstream) attempt: String,
    /// How many memberships ended since the epoch began. If any did, a rekey is due.
    pub(in crate::jetstream) ended_since: u64,
}

impl Head {
    pub(in crate::jetstream) fn first(
        room: &Room,
        planned: u64,
        generation: String,
        write: &str,
    ) -> Self {
        Self {
            changes: Changes::default().next(write),
            planned,
            generation,
            count: 1,
            ended: 0,
            epoch: room.epoch.get(),
            attempt: String::new(),
            ended_since: 0,
        }
    }

    pub(in crate::jetstream) fn epoch(&self, room: &RoomId) -> Result<Epoch, Error> {
        Epoch::new(self.epoch).map_err(|error| {
            Error::corrupt(Bucket::Members.name(), room.as_str(), error.to_string())
        })
    }

    pub(in crate::jetstream) fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch.get();
    }

    /// The head after the change `write`, before the change's own fields are set.
    pub(in crate::jetstream) fn next(&self, write: &str) -> Self {
        Self { changes: self.changes.next(write), ..self.clone() }
    }
}

/// `members`: the tombstone over a deleted room's head. The room is deleted from this message on.
///
/// The tombstone stays, because a server that is killed soon after a purge can start with an earlier head (nats-server
/// 2.15.1). Otherwise a client would read that earlier head, and changes planned on it would be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct HeadGone {
    /// The head's changes, and then the deletion.
    pub(in crate::jetstream) changes: Changes,
    /// Whether everything else of the incarnation was collected.
    pub(in crate::jetstream) collected: bool,
}

/// `members`: a membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct MemberRecord {
    /// The id of the membership; an endpoint that comes back gets another id. The key that came with the addition has
    /// this id in its name.
    pub(in crate::jetstream) id: String,
    owner: bool,
    joined_epoch: u64,
    added_at: i64,
}

impl MemberRecord {
    pub(in crate::jetstream) fn new(id: String, member: &Member) -> Self {
        Self {
            id,
            owner: member.role == Role::Owner,
            joined_epoch: member.joined_epoch.get(),
            added_at: member.added_at.as_millis(),
        }
    }

    pub(in crate::jetstream) fn owner(&self) -> bool {
        self.owner
    }

    pub(in crate::jetstream) fn member(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<Member, Error> {
        let joined_epoch = Epoch::new(self.joined_epoch).map_err(|error| {
            Error::corrupt(Bucket::Members.name(), endpoint.as_str(), error.to_string())
        })?;
        Ok(Member {
            room: room.clone(),
            endpoint: endpoint.clone(),
            role: if self.owner { Role::Owner } else { Role::Member },
            joined_epoch,
            added_at: Timestamp::from_millis(self.added_at),
        })
    }
}

/// `members`: the tombstone of an ended membership. The tombstone stays as long as its generation: if it is purged and
/// the server is killed soon afterwards, the server starts with the membership again (nats-server 2.15.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct MemberGone {
    pub(in crate::jetstream) id: String,
}

/// `members`: the attempt that made an earlier epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct EpochRecord {
    pub(in crate::jetstream) attempt: String,
}

/// `members`: a ticket, stored with the change that ended memberships. The ticket names the garbage of these
/// memberships in the other buckets. The room's next change collects that garbage, and removes the ticket last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct Ticket {
    /// All keys of the ended memberships are at or below this sequence of `room_keys`. Keys above it belong to later
    /// memberships.
    pub(in crate::jetstream) keys_up_to: u64,
    /// The memberships' generation. If the head has another one, this generation is purged whole.
    pub(in crate::jetstream) generation: String,
    pub(in crate::jetstream) gone: Vec<GoneMember>,
}

/// An ended membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct GoneMember {
    pub(in crate::jetstream) endpoint: String,
    pub(in crate::jetstream) id: String,
}

/// `rooms_by_member`: a membership that is planned, existing or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct IndexRecord {
    pub(in crate::jetstream) fence: Fence,
    /// The epoch of the key that came with the addition.
    pub(in crate::jetstream) epoch: u64,
    /// The generation in which the membership's record is to be stored; empty in older entries.
    #[serde(default)]
    pub(in crate::jetstream) generation: String,
}

/// The revision that the write behind an index entry expects. Once a newer revision exists, that write is refused. So
/// if the membership does not exist by then, it never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::jetstream) enum Fence {
    /// The revision of the room's record in `rooms`, for a creation.
    Room(u64),
    /// The revision of the head, for an addition.
    Head(u64),
}

/// `room_keys`: an attempt, stored before its keys, so that the keys of an attempt that lost or crashed are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct AttemptRecord {
    pub(in crate::jetstream) epoch: u64,
}
