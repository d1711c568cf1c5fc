//! The stored records. Ids are stored as plain text. Numbers are checked when a record is read, so a wrong one is
//! [`Error::Corrupt`].

use serde::{Deserialize, Serialize};

use crate::jetstream::bucket::Bucket;
use crate::jetstream::codec::FORMAT_VERSION;
use crate::{
    EndpointId, Epoch, Error, Label, Member, NewRoom, NewUser, Role, Room, RoomId, Timestamp, User,
    UserKey,
};

/// How many of its latest changes a record keeps. A writer that got no answer looks for its change among them.
const REMEMBERED: usize = 32;

/// The latest changes of a record. A writer that got no answer looks for its change here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changes {
    /// The number of changes so far.
    version: u64,
    /// The ids of the latest changes, the newest last.
    recent: Vec<String>,
}

/// The outcome of a change that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The change was made.
    Done,
    /// The change was not made and never will be.
    Lost,
    /// The change was not made, and may still be.
    Open,
    /// Too many changes followed to tell.
    Unknown,
}

impl Changes {
    /// These changes and then the change `write`.
    pub(super) fn next(&self, write: &str) -> Self {
        let forgotten = (self.recent.len() + 1).saturating_sub(REMEMBERED);
        let mut recent = self.recent.get(forgotten..).unwrap_or_default().to_vec();
        recent.push(write.to_owned());
        Self { version: self.version + 1, recent }
    }

    /// Whether the record has not changed since it was made.
    pub(super) fn is_first(&self) -> bool {
        self.version == 1
    }

    /// The newest change.
    pub(super) fn last(&self) -> &str {
        self.recent.last().map_or("", String::as_str)
    }

    /// The outcome of the newest change of `planned`, by the record that is there now.
    pub(super) fn fate_of(&self, planned: &Self) -> Fate {
        let Some(back) = self.version.checked_sub(planned.version) else { return Fate::Open };
        let made_by =
            usize::try_from(back).ok().and_then(|back| self.recent.iter().rev().nth(back));
        match made_by {
            Some(write) if write == planned.last() => Fate::Done,
            Some(_) => Fate::Lost,
            None => Fate::Unknown,
        }
    }
}

/// `rooms`: a room's incarnation, and what never changes of the room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomRecord {
    pub(super) incarnation: String,
    /// The revision of the incarnation's first head.
    born: u64,
    /// Creations, each by its incarnation, and deletions.
    pub(super) changes: Changes,
    owner: String,
    encrypted: bool,
    created_at: i64,
}

impl RoomRecord {
    pub(super) fn new(new: &NewRoom, incarnation: String, born: u64, before: &Changes) -> Self {
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
    pub(super) fn room(&self, id: &RoomId, head: &Head) -> Result<Room, Error> {
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

    pub(super) fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether a head at this revision is a late copy of the room's first head, stored after everything was collected. Then
    /// the room is deleted.
    pub(super) fn is_late_copy(&self, head: &Head, revision: u64) -> bool {
        head.changes.is_first() && revision != self.born
    }
}

/// `rooms`: the tombstone of a deleted room. It stays for good: otherwise a late creation that saw the id unused before
/// the room was made would succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomGone {
    pub(super) incarnation: String,
    /// The changes of the room's record, and then the deletion.
    pub(super) changes: Changes,
}

/// `members`: the head of an incarnation. Every change of the incarnation replaces it, by compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) changes: Changes,
    /// The revision of the room's key at the creation. Once that key has a newer revision and does not name this
    /// incarnation, it never will.
    pub(super) planned: u64,
    /// The generation of the roster.
    pub(super) generation: String,
    /// The number of members. A roster of another size is `Corrupt`.
    pub(super) count: u64,
    /// The number of tombstones in the generation.
    pub(super) ended: u64,
    epoch: u64,
    /// The attempt that made the current epoch; empty for the first epoch.
    pub(super) attempt: String,
    /// The number of memberships that ended since the epoch began. If there is one, a rekey is due.
    pub(super) ended_since: u64,
}

impl Head {
    pub(super) fn first(room: &Room, planned: u64, generation: String, write: &str) -> Self {
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

    pub(super) fn epoch(&self, room: &RoomId) -> Result<Epoch, Error> {
        Epoch::new(self.epoch).map_err(|error| {
            Error::corrupt(Bucket::Members.name(), room.as_str(), error.to_string())
        })
    }

    pub(super) fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch.get();
    }

    /// The head after the change `write`, before the change's own fields are set.
    pub(super) fn next(&self, write: &str) -> Self {
        Self { changes: self.changes.next(write), ..self.clone() }
    }
}

/// `members`: the tombstone over a deleted room's head. The room is deleted from this message on.
///
/// The tombstone stays, because a server that is killed soon after a purge can start with an earlier head (nats-server
/// 2.15.1). A client would read that head, and changes that were planned on it would be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadGone {
    /// The head's changes, and then the deletion.
    pub(super) changes: Changes,
    /// Whether everything else of the incarnation was collected.
    pub(super) collected: bool,
}

/// `members`: a membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberRecord {
    /// The membership's id; an endpoint that comes back gets another. The key that came with the addition has this id in
    /// its name.
    pub(super) id: String,
    owner: bool,
    joined_epoch: u64,
    added_at: i64,
}

impl MemberRecord {
    pub(super) fn new(id: String, member: &Member) -> Self {
        Self {
            id,
            owner: member.role == Role::Owner,
            joined_epoch: member.joined_epoch.get(),
            added_at: member.added_at.as_millis(),
        }
    }

    pub(super) fn owner(&self) -> bool {
        self.owner
    }

    pub(super) fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
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

/// `members`: the tombstone of an ended membership. It stays as long as its generation: a server that is killed soon
/// after a purge of the tombstone starts with the membership again (nats-server 2.15.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberGone {
    pub(super) id: String,
}

/// `members`: the attempt that made an earlier epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EpochRecord {
    pub(super) attempt: String,
}

/// `members`: a ticket, stored with the change that ended memberships. It names what they left in the other buckets. The
/// room's next change collects that, and removes the ticket last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ticket {
    /// The ended memberships' keys stand at or below this sequence of `room_keys`. Keys above it belong to later
    /// memberships.
    pub(super) keys_up_to: u64,
    /// The memberships' generation. If the head has another one, this generation is purged whole.
    pub(super) generation: String,
    pub(super) gone: Vec<GoneMember>,
}

/// An ended membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GoneMember {
    pub(super) endpoint: String,
    pub(super) id: String,
}

/// `rooms_by_member`: a membership that is planned, there, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexRecord {
    pub(super) fence: Fence,
    /// The epoch of the key that came with the addition.
    pub(super) epoch: u64,
}

/// The revision that the write behind an index entry expects. Once there is a newer one, a membership that is not there
/// never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fence {
    /// The revision of the room's key, for a creation.
    Room(u64),
    /// The revision of the head, for an addition.
    Head(u64),
}

/// `room_keys`: stored before an attempt's keys, so that the keys of an attempt that lost or crashed are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttemptRecord {
    pub(super) epoch: u64,
}

/// `users`: a user. The record is stored at the addition and again at the revocation, and keeps the ids of both writes. A
/// writer that got no answer looks for its write here. Users are never deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserRecord {
    label: String,
    pub(super) admin: bool,
    added_at: i64,
    /// The id of the addition.
    write: String,
    pub(super) revoked: Option<Revocation>,
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    at: i64,
    /// The id of the revocation.
    write: String,
}

impl UserRecord {
    pub(super) fn new(new: &NewUser, write: &str) -> Self {
        Self {
            label: new.label.as_str().to_owned(),
            admin: new.admin,
            added_at: new.added_at.as_millis(),
            write: write.to_owned(),
            revoked: None,
        }
    }

    /// This user, revoked.
    pub(super) fn revoke(&self, at: Timestamp, write: &str) -> Self {
        let revocation = Revocation { at: at.as_millis(), write: write.to_owned() };
        Self { revoked: Some(revocation), ..self.clone() }
    }

    /// Whether this write added the user, or revoked it.
    pub(super) fn is_by(&self, write: &str) -> bool {
        self.write == write || self.revoked.as_ref().is_some_and(|end| end.write == write)
    }

    pub(super) fn user(&self, key: &UserKey) -> Result<User, Error> {
        let label = Label::new(&self.label).map_err(|error| {
            Error::corrupt(Bucket::Users.name(), key.to_string(), error.to_string())
        })?;
        Ok(User {
            key: *key,
            label,
            admin: self.admin,
            revoked: self.revoked.is_some(),
            added_at: Timestamp::from_millis(self.added_at),
            revoked_at: self.revoked.as_ref().map(|end| Timestamp::from_millis(end.at)),
        })
    }
}

/// `users`: the number of active admins, on which bootstrap and the last admin's revocation are decided (clauses USER-1,
/// USER-4). It exists exactly if an admin was ever made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admins {
    pub(super) active: u64,
}

/// Every bucket: which store it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FormatRecord {
    /// [`FORMAT_VERSION`].
    pub(super) membership_format: u32,
    /// The store's id, which its five buckets share.
    #[serde(default)]
    pub(super) store: String,
    /// Whether an admin was ever made; only in `users`. The first admin's batch sets it, so it proves that
    /// `=admins` was there (clause PAST-3).
    #[serde(default)]
    pub(super) admin_made: bool,
}

impl FormatRecord {
    /// The record for a bucket of this store, with the current version.
    pub(super) fn new(store: String) -> Self {
        Self { membership_format: FORMAT_VERSION, store, admin_made: false }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::not_yet(3, "w3", Fate::Open)]
    #[case::newest(2, "w2", Fate::Done)]
    #[case::older(1, "w1", Fate::Done)]
    #[case::overtaken(2, "other", Fate::Lost)]
    #[case::overtaken_long_ago(1, "other", Fate::Lost)]
    fn the_fate_of_a_write(#[case] version: u64, #[case] write: &str, #[case] fate: Fate) {
        let now = Changes::default().next("w1").next("w2");
        let planned = Changes { version, recent: vec![write.to_owned()] };
        assert_eq!(now.fate_of(&planned), fate);
    }

    #[test]
    fn what_is_forgotten_is_unknown() {
        let first = Changes::default().next("w0");
        let second = first.next("w1");
        let now = (2..=REMEMBERED).fold(second.clone(), |now, n| now.next(&format!("w{n}")));
        assert_eq!(now.fate_of(&first), Fate::Unknown);
        assert_eq!(now.fate_of(&second), Fate::Done);
        assert_eq!(now.recent.len(), REMEMBERED);
    }
}
