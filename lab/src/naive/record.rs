use membership::{
    EndpointId, Epoch, Error, Label, Member, NewUser, Role, Room, RoomId, Timestamp, User, UserKey,
};
use serde::{Deserialize, Serialize};

/// An id in hex, as a part of a bucket's key.
pub(super) fn hex(id: &str) -> String {
    id.bytes().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The id in the last part of a key.
pub(super) fn last_id(key: &str) -> Result<String, Error> {
    let hex = key.rsplit('.').next().unwrap_or(key).as_bytes();
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = hex.chunks(2).map(digits).collect();
    let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    id.ok_or_else(|| Error::corrupt("bucket", key, "is no key of ours"))
}

#[derive(Serialize, Deserialize)]
pub(super) struct RoomRecord {
    pub(super) owner: String,
    pub(super) encrypted: bool,
    pub(super) epoch: u64,
    pub(super) rekey_due: bool,
    pub(super) created_at: i64,
}

impl RoomRecord {
    pub(super) fn new(room: &Room) -> Self {
        Self {
            owner: room.owner.as_str().to_owned(),
            encrypted: room.encrypted,
            epoch: room.epoch.get(),
            rekey_due: room.rekey_due,
            created_at: room.created_at.as_millis(),
        }
    }

    pub(super) fn room(&self, id: &RoomId) -> Result<Room, Error> {
        Ok(Room {
            id: id.clone(),
            owner: self.owner.parse()?,
            encrypted: self.encrypted,
            epoch: Epoch::new(self.epoch)?,
            rekey_due: self.rekey_due,
            created_at: Timestamp::from_millis(self.created_at),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct MemberRecord {
    pub(super) owner: bool,
    joined_epoch: u64,
    pub(super) added_at: i64,
}

impl MemberRecord {
    pub(super) fn new(member: &Member) -> Self {
        Self {
            owner: member.role == Role::Owner,
            joined_epoch: member.joined_epoch.get(),
            added_at: member.added_at.as_millis(),
        }
    }

    pub(super) fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        Ok(Member {
            room: room.clone(),
            endpoint: endpoint.clone(),
            role: if self.owner { Role::Owner } else { Role::Member },
            joined_epoch: Epoch::new(self.joined_epoch)?,
            added_at: Timestamp::from_millis(self.added_at),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct UserRecord {
    pub(super) label: String,
    pub(super) admin: bool,
    pub(super) added_at: i64,
    pub(super) revoked_at: Option<i64>,
}

impl UserRecord {
    pub(super) fn new(new: &NewUser) -> Self {
        Self {
            label: new.label.as_str().to_owned(),
            admin: new.admin,
            added_at: new.added_at.as_millis(),
            revoked_at: None,
        }
    }

    pub(super) fn user(&self, key: UserKey) -> Result<User, Error> {
        Ok(User {
            key,
            label: Label::new(&self.label)?,
            admin: self.admin,
            revoked: self.revoked_at.is_some(),
            added_at: Timestamp::from_millis(self.added_at),
            revoked_at: self.revoked_at.map(Timestamp::from_millis),
        })
    }
}
