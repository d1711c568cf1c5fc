//! Rooms: created, read, listed by member, deleted.

use rusqlite::Connection;

use super::driver::{Failure, Result};
use super::layout::RoomRow;
use super::readers::one_state;
use super::{keys, members};
use crate::error::Record;
use crate::{EndpointId, Error, NewRoom, Page, Room, RoomId};

pub(super) fn create(db: &Connection, new: &NewRoom) -> Result<Room> {
    if find(db, &new.id)?.is_some() {
        return Err(Error::AlreadyExists(Record::Room(new.id.clone())).into());
    }
    let room = new.room();
    let row = RoomRow::of(&room);
    db.prepare_cached(
        "INSERT INTO rooms (id, owner, encrypted, epoch, rekey_due, created_at, sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        row.id,
        row.owner,
        row.encrypted,
        row.epoch,
        row.rekey_due,
        row.created_at,
        row.sum(),
    ))?;
    members::insert(db, &new.owner_member())?;
    if let Some(ciphertext) = &new.owner_key {
        keys::Insert::new(db)?.key(&room.id, room.epoch, &room.owner, ciphertext)?;
    }
    Ok(room)
}

/// The room, or `NotFound`.
pub(super) fn get(db: &Connection, id: &RoomId) -> Result<Room> {
    find(db, id)?.ok_or_else(|| Error::NotFound(Record::Room(id.clone())).into())
}

pub(super) fn rooms_of(
    db: &Connection,
    endpoint: &EndpointId,
    page: &Page<RoomId>,
) -> Result<Vec<Room>> {
    one_state(db, |db| {
        let ids = members::rooms_of(db, endpoint, page)?;
        ids.iter().map(|id| find(db, id)?.ok_or_else(|| orphan(id, endpoint))).collect()
    })
}

pub(super) fn delete(db: &Connection, id: &RoomId) -> Result<()> {
    get(db, id)?;
    // Its members and keys are deleted, too: they refer to it (`ON DELETE CASCADE`).
    db.prepare_cached("DELETE FROM rooms WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// Writes the parts of a room that may change: its epoch and whether a rekey is due.
pub(super) fn update(db: &Connection, room: &Room) -> Result<()> {
    let row = RoomRow::of(room);
    db.prepare_cached("UPDATE rooms SET epoch = ?2, rekey_due = ?3, sum = ?4 WHERE id = ?1")?
        .execute((row.id, row.epoch, row.rekey_due, row.sum()))?;
    Ok(())
}

fn find(db: &Connection, id: &RoomId) -> Result<Option<Room>> {
    let mut statement = db.prepare_cached(
        "SELECT id, owner, encrypted, epoch, rekey_due, created_at, sum FROM rooms WHERE id = ?1",
    )?;
    let mut rows = statement.query([id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let room = RoomRow::decode(row)
        .map_err(|problem| Error::corrupt("rooms", format!("{id:?}"), problem))?;
    Ok(Some(room))
}

fn orphan(room: &RoomId, endpoint: &EndpointId) -> Failure {
    let key = format!("{room:?} {endpoint:?}");
    Error::corrupt("members", key, "is in a room that is not there").into()
}
