//! The records that a store keeps, and the requests that create them.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Invalid};
use crate::{Ciphertext, EndpointId, Epoch, Label, RoomId, Timestamp, UserKey};

/// A channel on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct Room {
    /// The room's id.
    pub id: RoomId,
    /// The room's one owner, a member with [`Role::Owner`] (clause MEM-4).
    pub owner: EndpointId,
    /// Whether the room has keys and epochs.
    pub encrypted: bool,
    /// The current epoch: 0 in an unencrypted room, 1 or more in an encrypted one.
    pub epoch: Epoch,
    /// Whether a member was removed since the last rekey of an encrypted room (clause MEM-3).
    pub rekey_due: bool,
    /// When the room was created, as the caller gave it.
    pub created_at: Timestamp,
}

/// The role of a member in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub enum Role {
    /// The endpoint that owns the room; it cannot be removed.
    Owner,
    /// Any other member.
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
    /// The endpoint's role in the room.
    pub role: Role,
    /// The room's epoch when the endpoint was added; 0 in an unencrypted room (clause MEM-1).
    pub joined_epoch: Epoch,
    /// When the endpoint was added, as the caller gave it.
    pub added_at: Timestamp,
}

/// The secret key of a room for one epoch, sealed to one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct SealedKey {
    /// The room.
    pub room: RoomId,
    /// The epoch of the key.
    pub epoch: Epoch,
    /// The member to which the key is sealed.
    pub endpoint: EndpointId,
    /// The sealed bytes.
    pub ciphertext: Ciphertext,
}

/// A person or service that is allowed on the bus, or was before it was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct User {
    /// The user's Ed25519 public key.
    pub key: UserKey,
    /// The user's name for people to read.
    pub label: Label,
    /// Whether the user is an admin, or was one before it was revoked.
    pub admin: bool,
    /// Whether the user was revoked; a revocation is for ever (clause USER-3).
    pub revoked: bool,
    /// When the user was added, as the caller gave it.
    pub added_at: Timestamp,
    /// When the user was revoked, as the caller gave it; `None` while it is not revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A room to be created (clause ROOM-1).
///
/// The room is encrypted if and only if it has its owner's sealed key for epoch 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct NewRoom {
    /// The room's id.
    pub id: RoomId,
    /// The endpoint that will own the room.
    pub owner: EndpointId,
    /// When the room is created.
    pub created_at: Timestamp,
    /// The owner's sealed key for epoch 1; `Some` if and only if the room is encrypted.
    pub owner_key: Option<Ciphertext>,
}

impl NewRoom {
    /// Makes a request for an unencrypted room, which has no sealed keys and stays at epoch 0.
    #[must_use]
    pub fn unencrypted(id: RoomId, owner: EndpointId, created_at: Timestamp) -> Self {
        Self { id, owner, created_at, owner_key: None }
    }

    /// A request for a room that begins at epoch 1, with the owner's sealed key for that epoch.
    #[must_use]
    pub fn encrypted(
        id: RoomId,
        owner: EndpointId,
        created_at: Timestamp,
        owner_key: Ciphertext,
    ) -> Self {
        Self { id, owner, created_at, owner_key: Some(owner_key) }
    }

    /// The room that this request creates.
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

    /// The owner's membership in the room that this request creates.
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
    /// When the endpoint is added.
    pub added_at: Timestamp,
    /// The room's key sealed to the endpoint, and the key's epoch; `None` for an unencrypted room.
    pub key: Option<(Epoch, Ciphertext)>,
}

impl NewMember {
    /// A request to add a member to an unencrypted room.
    #[must_use]
    pub fn unsealed(endpoint: EndpointId, added_at: Timestamp) -> Self {
        Self { endpoint, added_at, key: None }
    }

    /// A request to add a member to an encrypted room, with the room's key for `epoch`.
    ///
    /// The key, `ciphertext`, must be sealed to the endpoint.
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

/// A request to move a room from one epoch to the next (clauses KEY-5, KEY-6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekey {
    from: Epoch,
    remove: BTreeSet<EndpointId>,
    keys: BTreeMap<EndpointId, Ciphertext>,
}

impl Rekey {
    /// A rekey from the epoch `from` to the next one.
    ///
    /// The rekey removes the members in `remove`, and stores `keys`, which must be for exactly the
    /// remaining members.
    ///
    /// Errors: [`Error::Invalid`] for an endpoint that is twice in `keys`, or in both `remove` and
    /// `keys`.
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

    /// The epoch at which the room must be.
    #[must_use]
    pub fn from(&self) -> Epoch {
        self.from
    }

    /// The members to remove.
    #[must_use]
    pub fn remove(&self) -> &BTreeSet<EndpointId> {
        &self.remove
    }

    /// The sealed key of each remaining member.
    #[must_use]
    pub fn keys(&self) -> &BTreeMap<EndpointId, Ciphertext> {
        &self.keys
    }
}

/// A user to be added (clause USER-2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct NewUser {
    /// The user's Ed25519 public key.
    pub key: UserKey,
    /// The user's name for people to read.
    pub label: Label,
    /// Whether the user is an admin. [`Store::bootstrap_admin`](crate::Store::bootstrap_admin)
    /// makes an admin whatever this says.
    pub admin: bool,
    /// When the user is added.
    pub added_at: Timestamp,
}

impl NewUser {
    /// The user that this request creates.
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
