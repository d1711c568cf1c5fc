//! What is stored, as it is stored. Ids stand in it as plain text; numbers are checked on the way
//! back into our types, so that a wrong one is [`Error::Corrupt`].

use serde::{Deserialize, Serialize};

use crate::jetstream::bucket::Bucket;
use crate::jetstream::codec::FORMAT_VERSION;
use crate::{
    EndpointId, Epoch, Error, Label, Member, NewRoom, NewUser, Role, Room, RoomId, Timestamp, User,
    UserKey,
};

/// How many of the latest writes a record remembers, so that a writer that lost its answer can
/// tell whether its write was one of them.
const REMEMBERED: usize = 32;

/// The latest changes of a record, so that whoever lost the answer to one can tell what became of
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changes {
    /// Grows by one with every change.
    version: u64,
    /// The ids of the latest, the newest last: `recent.last()` made `version`.
    recent: Vec<String>,
}

/// What became of a change whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there.
    Done,
    /// It is not there and can never be.
    Lost,
    /// It is not there, but nothing keeps it from arriving still.
    Open,
    /// Too much happened since to tell.
    Unknown,
}

impl Changes {
    /// With the change `write`.
    pub(super) fn next(&self, write: &str) -> Self {
        let forgotten = (self.recent.len() + 1).saturating_sub(REMEMBERED);
        let mut recent = self.recent.get(forgotten..).unwrap_or_default().to_vec();
        recent.push(write.to_owned());
        Self { version: self.version + 1, recent }
    }

    /// Whether nothing was changed since the record was made.
    pub(super) fn is_first(&self) -> bool {
        self.version == 1
    }

    /// The newest.
    pub(super) fn last(&self) -> &str {
        self.recent.last().map_or("", String::as_str)
    }

    /// What became of the newest of `planned`, by the record that is there now.
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

/// `rooms`: the incarnation that a room id stands for, and what of it never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomRecord {
    pub(super) incarnation: String,
    /// The revision of the incarnation's first head.
    born: u64,
    /// Creations, by their incarnations, and deletions.
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

    /// The room, with what its head says of it.
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

    /// Whether a head at this revision is none of the room's, but a copy of its first that came when
    /// everything had been collected: the room is deleted, and the copy knows nothing of its changes.
    pub(super) fn is_late_copy(&self, head: &Head, revision: u64) -> bool {
        head.changes.is_first() && revision != self.born
    }
}

/// `rooms`: what a deletion leaves, for good: it makes sure that no late writer, who saw the id
/// unused before the former room was made, can succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomGone {
    pub(super) incarnation: String,
    /// As of the room's record, and the deletion.
    pub(super) changes: Changes,
}

/// `members`: the state of one incarnation. Every change to the incarnation is one atomic batch
/// that replaces this, and is refused when somebody else was faster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) changes: Changes,
    /// The revision of the room's key that its creator saw: unless that is still the newest, an
    /// incarnation that the room's record does not name will never be named.
    pub(super) planned: u64,
    /// Under which generation the members stand.
    pub(super) generation: String,
    /// How many members there are: a roster of another size is corrupt.
    pub(super) count: u64,
    /// How many markers of ended memberships the generation holds.
    pub(super) ended: u64,
    epoch: u64,
    /// The rekey that made the current epoch; empty at the first.
    pub(super) attempt: String,
    /// How many memberships ended since the epoch began: from the first on, a rekey is due.
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

    /// The head that the change `write` makes of this one, before its own fields are set.
    pub(super) fn next(&self, write: &str) -> Self {
        Self { changes: self.changes.next(write), ..self.clone() }
    }
}

/// `members`: over the head of a deleted room: from then on it is deleted, and no earlier head comes back.
/// A head is written many times; a server that is killed soon after the last was purged may start with one
/// of whose replacement it had written nothing down (nats-server 2.15.1), and that would be read, and
/// changes that were planned on it would be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadGone {
    /// The head's, and this.
    pub(super) changes: Changes,
    /// Whether all else of the incarnation is gone.
    pub(super) collected: bool,
}

/// `members`: one membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberRecord {
    /// The membership's own id: an endpoint that comes back gets another. It is also the attempt
    /// under which the key it came with stands.
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

/// `members`: what the end of a membership leaves, as long as its generation counts. It is never
/// removed by itself: a server that is killed soon after forgets that the marker had replaced the
/// membership, and the membership would be there again (nats-server 2.15.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberGone {
    pub(super) id: String,
}

/// `members`: which rekey made an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EpochRecord {
    pub(super) attempt: String,
}

/// `members`: written with the change that ended memberships, gone when what they left in the
/// other buckets is: whoever changes the room next collects it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ticket {
    /// Their keys stand at or below this sequence of `room_keys`; what stands above it is of a
    /// later membership.
    pub(super) keys_up_to: u64,
    /// The generation the memberships stood in; one that is not the head's any more goes as a
    /// whole.
    pub(super) generation: String,
    pub(super) gone: Vec<GoneMember>,
}

/// A membership that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GoneMember {
    pub(super) endpoint: String,
    pub(super) id: String,
}

/// `rooms_by_member`: one membership, possible, actual or former.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexRecord {
    pub(super) fence: Fence,
    /// The epoch of the key that was written with it.
    pub(super) epoch: u64,
}

/// The revision that the write behind an index entry was planned against: once that is not the
/// newest any more, a membership that is not there will never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fence {
    /// Of the room's key, for its creation.
    Room(u64),
    /// Of the incarnation's head, for a new member.
    Head(u64),
}

/// `room_keys`: written before the keys of a rekey, so that those of one that lost or crashed are
/// found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttemptRecord {
    pub(super) epoch: u64,
}

/// `users`: a user. There is no deletion: this is written when the user is made and when it is
/// revoked, and knows both writes, so that whoever lost the answer to one can tell what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserRecord {
    label: String,
    pub(super) admin: bool,
    added_at: i64,
    /// The write that made the user.
    write: String,
    pub(super) revoked: Option<Revocation>,
}

/// The end of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    at: i64,
    /// The write that revoked the user.
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

    /// The same user, revoked.
    pub(super) fn revoke(&self, at: Timestamp, write: &str) -> Self {
        let revocation = Revocation { at: at.as_millis(), write: write.to_owned() };
        Self { revoked: Some(revocation), ..self.clone() }
    }

    /// Whether the write made the user, or revoked it.
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

/// `users`: the record on which bootstrap and the last admin are decided (clauses USER-1,
/// USER-4). It exists exactly when an admin was ever made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admins {
    pub(super) active: u64,
}

/// Every bucket: whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FormatRecord {
    /// [`FORMAT_VERSION`].
    pub(super) membership_format: u32,
    /// The id that all buckets of a store share, and no other store's has.
    #[serde(default)]
    pub(super) store: String,
}

impl FormatRecord {
    /// That of a bucket of this store, in the layout of today.
    pub(super) fn new(store: String) -> Self {
        Self { membership_format: FORMAT_VERSION, store }
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
