//! The records a store keeps, and the requests that make them.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Invalid};
use crate::{Ciphertext, EndpointId, Epoch, Label, RoomId, Timestamp, UserKey};

/// A channel on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct Room {
    /// Its name.
    pub id: RoomId,
    /// Its one owner, who is a member with [`Role::Owner`] (clause MEM-4).
    pub owner: EndpointId,
    /// Whether it has keys and epochs.
    pub encrypted: bool,
    /// Its current epoch: 0 when unencrypted, from 1 when encrypted.
    pub epoch: Epoch,
    /// Whether a member was removed since the last rekey (clause MEM-3).
    pub rekey_due: bool,
    /// When it was created, as the caller gave it.
    pub created_at: Timestamp,
}

/// What a member is in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub enum Role {
    /// The one who created the room and cannot be removed.
    Owner,
    /// Everybody else.
    Member,
}

/// The membership of an endpoint in a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct Member {
    /// The room.
    pub room: RoomId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What it is there.
    pub role: Role,
    /// The room's epoch when it came: 0 in an unencrypted room (clause MEM-1).
    pub joined_epoch: Epoch,
    /// When it was added, as the caller gave it.
    pub added_at: Timestamp,
}

/// The secret key of a room for one epoch, sealed to one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct SealedKey {
    /// The room.
    pub room: RoomId,
    /// The epoch the key is for.
    pub epoch: Epoch,
    /// The member it is sealed to.
    pub endpoint: EndpointId,
    /// The sealed bytes.
    pub ciphertext: Ciphertext,
}

/// A person or service allowed on the bus, or formerly so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct User {
    /// The Ed25519 public key it is known by.
    pub key: UserKey,
    /// What people call it.
    pub label: Label,
    /// Whether it is, or was, an admin.
    pub admin: bool,
    /// Whether it was revoked, which is for ever (clause USER-3).
    pub revoked: bool,
    /// When it was added, as the caller gave it.
    pub added_at: Timestamp,
    /// When it was revoked, as the caller gave it.
    pub revoked_at: Option<Timestamp>,
}

/// A room to be made (clause ROOM-1).
///
/// It is encrypted exactly when it has its owner's sealed key for epoch 1; there is no way to
/// build one that is not so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct NewRoom {
    /// Its name.
    pub id: RoomId,
    /// The endpoint that will own it.
    pub owner: EndpointId,
    /// When it is created.
    pub created_at: Timestamp,
    /// The owner's sealed key for epoch 1, exactly when the room is to be encrypted.
    pub owner_key: Option<Ciphertext>,
}

impl NewRoom {
    /// A room without keys and epochs.
    #[must_use]
    pub fn unencrypted(id: RoomId, owner: EndpointId, created_at: Timestamp) -> Self {
        Self { id, owner, created_at, owner_key: None }
    }

    /// A room that begins at epoch 1, with `owner_key` sealed for that epoch to its owner.
    #[must_use]
    pub fn encrypted(
        id: RoomId,
        owner: EndpointId,
        created_at: Timestamp,
        owner_key: Ciphertext,
    ) -> Self {
        Self { id, owner, created_at, owner_key: Some(owner_key) }
    }

    /// The room this makes.
    #[must_use]
    pub fn room(&self) -> Room {
        let encrypted = self.owner_key.is_some();
        Room {
            id: self.id.clone(),
            owner: self.owner.clone(),
            encrypted,
            epoch: if encrypted { Epoch::FIRST } else { Epoch::ZERO },
            rekey_due: false,
            created_at: self.created_at,
        }
    }

    /// The owner's membership in it.
    #[must_use]
    pub fn owner_member(&self) -> Member {
        Member {
            room: self.id.clone(),
            endpoint: self.owner.clone(),
            role: Role::Owner,
            joined_epoch: self.room().epoch,
            added_at: self.created_at,
        }
    }
}

/// An endpoint to be added to a room (clause MEM-1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct NewMember {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// When it is added.
    pub added_at: Timestamp,
    /// The room key sealed to it and the epoch that key is for, in an encrypted room.
    pub key: Option<(Epoch, Ciphertext)>,
}

impl NewMember {
    /// A member of an unencrypted room.
    #[must_use]
    pub fn unsealed(endpoint: EndpointId, added_at: Timestamp) -> Self {
        Self { endpoint, added_at, key: None }
    }

    /// A member of an encrypted room, with the room's key for `epoch` sealed to it.
    #[must_use]
    pub fn sealed(
        endpoint: EndpointId,
        added_at: Timestamp,
        epoch: Epoch,
        ciphertext: Ciphertext,
    ) -> Self {
        Self { endpoint, added_at, key: Some((epoch, ciphertext)) }
    }
}

/// A move of a room from one epoch to the next (clauses KEY-5, KEY-6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekey {
    from: Epoch,
    remove: BTreeSet<EndpointId>,
    keys: BTreeMap<EndpointId, Ciphertext>,
}

impl Rekey {
    /// A rekey from the epoch `from` to the next one, that removes the members in `remove` and
    /// stores `keys`, which must be for exactly those that remain.
    ///
    /// An endpoint that stands twice in `keys`, or both in `remove` and in `keys`, is
    /// [`Error::Invalid`].
    pub fn new(
        from: Epoch,
        remove: impl IntoIterator<Item = EndpointId>,
        keys: impl IntoIterator<Item = (EndpointId, Ciphertext)>,
    ) -> Result<Self, Error> {
        let remove: BTreeSet<_> = remove.into_iter().collect();
        let mut by_endpoint = BTreeMap::new();
        for (endpoint, ciphertext) in keys {
            if remove.contains(&endpoint) {
                let problem = format!("has both a key for {endpoint:?} and its removal");
                return Err(Invalid::new("rekey", problem).into());
            }
            if by_endpoint.contains_key(&endpoint) {
                let problem = format!("has two keys for {endpoint:?}");
                return Err(Invalid::new("rekey", problem).into());
            }
            by_endpoint.insert(endpoint, ciphertext);
        }
        Ok(Self { from, remove, keys: by_endpoint })
    }

    /// The epoch the room must be at.
    #[must_use]
    pub fn from(&self) -> Epoch {
        self.from
    }

    /// The members to remove.
    #[must_use]
    pub fn remove(&self) -> &BTreeSet<EndpointId> {
        &self.remove
    }

    /// The sealed key of each member that remains.
    #[must_use]
    pub fn keys(&self) -> &BTreeMap<EndpointId, Ciphertext> {
        &self.keys
    }
}

/// A user to be added (clause USER-2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct NewUser {
    /// The Ed25519 public key it is known by.
    pub key: UserKey,
    /// What people call it.
    pub label: Label,
    /// Whether it is an admin. [`Store::bootstrap_admin`](crate::Store::bootstrap_admin) makes an
    /// admin whatever this says.
    pub admin: bool,
    /// When it is added.
    pub added_at: Timestamp,
}

impl NewUser {
    /// The user this makes.
    #[must_use]
    pub fn user(&self) -> User {
        User {
            key: self.key,
            label: self.label.clone(),
            admin: self.admin,
            revoked: false,
            added_at: self.added_at,
            revoked_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: &str) -> EndpointId {
        id.parse().unwrap()
    }

    fn key() -> Ciphertext {
        Ciphertext::new([1]).unwrap()
    }

    #[test]
    fn a_rekey_cannot_give_a_key_to_whom_it_removes() {
        let error = Rekey::new(Epoch::FIRST, [endpoint("a")], [(endpoint("a"), key())]);
        let message = "invalid rekey: has both a key for \"a\" and its removal";
        assert_eq!(error.unwrap_err().to_string(), message);
    }

    #[test]
    fn a_rekey_cannot_give_two_keys_to_one() {
        let error = Rekey::new(Epoch::FIRST, [], [(endpoint("a"), key()), (endpoint("a"), key())]);
        assert_eq!(error.unwrap_err().to_string(), "invalid rekey: has two keys for \"a\"");
    }
}
