//! Short constructors of the values that cases use.
//!
//! The arguments are the suite's own, so an invalid one is a mistake in the suite: the constructor
//! panics, and the case fails.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a literal that is illegal is a mistake in the suite"
)]

use membership::{
    Ciphertext, Conflict, EndpointId, Epoch, Error, Label, Member, NewMember, NewRoom, NewUser,
    Page, Record, Rekey, Role, Room, RoomId, SealedKey, Timestamp, User, UserKey,
};

/// A room's id.
#[must_use]
pub fn room(id: &str) -> RoomId {
    id.parse().expect("a legal room id")
}

/// An endpoint's id.
#[must_use]
pub fn endpoint(id: &str) -> EndpointId {
    id.parse().expect("a legal endpoint id")
}

/// A timestamp, in milliseconds since the Unix epoch.
#[must_use]
pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// An epoch.
#[must_use]
pub fn epoch(number: u64) -> Epoch {
    Epoch::new(number).expect("a legal epoch")
}

/// A sealed key with these bytes.
#[must_use]
pub fn sealed(bytes: impl AsRef<[u8]>) -> Ciphertext {
    Ciphertext::new(bytes).expect("a legal ciphertext")
}

/// The sealed key that the cases use for this endpoint and epoch: each pair has its own.
#[must_use]
pub fn key_of(endpoint: &EndpointId, epoch: Epoch) -> Ciphertext {
    let text = endpoint.as_str();
    let end = text.char_indices().nth(24).map_or(text.len(), |(end, _)| end);
    sealed(format!("{}@{epoch}", text.get(..end).unwrap_or(text)))
}

/// A user's key: 32 times this byte.
#[must_use]
pub fn user_key(byte: u8) -> UserKey {
    UserKey::from_bytes([byte; 32])
}

/// A user's key from a number; keys sort as their numbers do.
#[must_use]
pub fn user_number(number: u64) -> UserKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    UserKey::from_bytes(bytes)
}

/// A user that is no admin.
#[must_use]
pub fn user(key: UserKey) -> NewUser {
    NewUser { key, label: label("user"), admin: false, added_at: at(1) }
}

/// An admin.
#[must_use]
pub fn admin(key: UserKey) -> NewUser {
    NewUser { admin: true, label: label("admin"), ..user(key) }
}

/// A user's label.
#[must_use]
pub fn label(text: &str) -> Label {
    Label::new(text).expect("a legal label")
}

/// An unencrypted room.
#[must_use]
pub fn plain(id: &str, owner: &str) -> NewRoom {
    NewRoom::unencrypted(room(id), endpoint(owner), at(1))
}

/// An encrypted room, whose owner has the key that [`key_of`] gives for epoch 1.
#[must_use]
pub fn encrypted(id: &str, owner: &str) -> NewRoom {
    let owner = endpoint(owner);
    let key = key_of(&owner, Epoch::FIRST);
    NewRoom::encrypted(room(id), owner, at(1), key)
}

/// A member for an unencrypted room.
#[must_use]
pub fn joins(id: &str) -> NewMember {
    NewMember::unsealed(endpoint(id), at(2))
}

/// A member for an encrypted room at epoch `number`, with the key that [`key_of`] gives for it.
#[must_use]
pub fn joins_at(id: &str, number: u64) -> NewMember {
    let (endpoint, epoch) = (endpoint(id), epoch(number));
    let key = key_of(&endpoint, epoch);
    NewMember::sealed(endpoint, at(2), epoch, key)
}

/// A rekey from epoch `from` that removes `remove` and gives each of `keys` its key by [`key_of`].
#[must_use]
pub fn rekey<'a>(
    from: u64,
    remove: impl IntoIterator<Item = &'a str>,
    keys: impl IntoIterator<Item = &'a str>,
) -> Rekey {
    let next = epoch(from + 1);
    let keys = keys.into_iter().map(endpoint).map(|e| (e.clone(), key_of(&e, next)));
    Rekey::new(epoch(from), remove.into_iter().map(endpoint), keys).expect("a legal rekey")
}

/// A rekey from epoch `from` that gives each of these members its key by [`key_of`].
#[must_use]
pub fn rekey_all(from: u64, members: &[EndpointId]) -> Rekey {
    rekey(from, [], members.iter().map(EndpointId::as_str))
}

/// The record of a member that [`joins`] or [`joins_at`] made.
#[must_use]
pub fn member_of(id: &str, who: &str, joined_epoch: u64) -> Member {
    Member {
        room: room(id),
        endpoint: endpoint(who),
        role: Role::Member,
        joined_epoch: epoch(joined_epoch),
        added_at: at(2),
    }
}

/// The sealed key that [`key_of`] gave `who` for epoch `number` of room `id`.
#[must_use]
pub fn sealed_key(id: &str, who: &str, number: u64) -> SealedKey {
    let (endpoint, epoch) = (endpoint(who), epoch(number));
    let ciphertext = key_of(&endpoint, epoch);
    SealedKey { room: room(id), epoch, endpoint, ciphertext }
}

/// The room `before`, at epoch `number` with no rekey due.
#[must_use]
pub fn at_epoch(before: &Room, number: u64) -> Room {
    Room { epoch: epoch(number), rekey_due: false, ..before.clone() }
}

/// The user `before`, revoked at this moment.
#[must_use]
pub fn revoked(before: &User, when: Timestamp) -> User {
    User { revoked: true, revoked_at: Some(when), ..before.clone() }
}

/// A page of at most `limit` records after `after`.
#[must_use]
pub fn page<Id>(after: Option<Id>, limit: usize) -> Page<Id> {
    Page::new(after, limit).expect("a legal page")
}

/// `NotFound` of a room.
#[must_use]
pub fn no_room(id: &str) -> Error {
    Error::NotFound(Record::Room(room(id)))
}

/// `NotFound` of a member.
#[must_use]
pub fn no_member(id: &str, who: &str) -> Error {
    Error::NotFound(Record::Member { room: room(id), endpoint: endpoint(who) })
}

/// `NotFound` of the key for epoch `number`, or for the current one.
#[must_use]
pub fn no_key(id: &str, who: &str, number: impl Into<Option<u64>>) -> Error {
    let epoch = number.into().map(epoch);
    Error::NotFound(Record::Key { room: room(id), endpoint: endpoint(who), epoch })
}

/// `NotFound` of a user.
#[must_use]
pub fn no_user(key: UserKey) -> Error {
    Error::NotFound(Record::User(key))
}

/// `AlreadyExists` of a room.
#[must_use]
pub fn room_exists(id: &str) -> Error {
    Error::AlreadyExists(Record::Room(room(id)))
}

/// `AlreadyExists` of a member.
#[must_use]
pub fn member_exists(id: &str, who: &str) -> Error {
    Error::AlreadyExists(Record::Member { room: room(id), endpoint: endpoint(who) })
}

/// `AlreadyExists` of a user.
#[must_use]
pub fn user_exists(key: UserKey) -> Error {
    Error::AlreadyExists(Record::User(key))
}

/// `StaleEpoch` with the room's current epoch.
#[must_use]
pub fn stale(current: u64) -> Error {
    Error::StaleEpoch { current: epoch(current) }
}

/// The `Conflict` of a rekey whose keys leave out `missing` and have `extra`, both in byte order.
#[must_use]
pub fn mismatch<'a>(
    missing: impl IntoIterator<Item = &'a str>,
    extra: impl IntoIterator<Item = &'a str>,
) -> Error {
    let missing: Vec<_> = missing.into_iter().map(endpoint).collect();
    let extra: Vec<_> = extra.into_iter().map(endpoint).collect();
    let mismatch = Conflict::keys_mismatch(missing.iter(), extra.iter());
    Error::Conflict(mismatch.expect("an endpoint that is missing or extra"))
}
