//! Rooms: stored, read, deleted.

use rusqlite::Connection;

use super::driver::Result;
use super::layout::RoomRow;
use crate::error::Record;
use crate::{Error, Room, RoomId};

pub(super) fn insert(db: &Connection, room: &Room) -> Result<()> {
    let row = RoomRow::of(room);
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
    Ok(())
}

/// The room, or `NotFound`.
pub(super) fn get(db: &Connection, id: &RoomId) -> Result<Room> {
    find(db, id)?.ok_or_else(|| Error::NotFound(Record::Room(id.clone())).into())
}

pub(super) fn delete(db: &Connection, id: &RoomId) -> Result<()> {
    get(db, id)?;
    // Its members and keys are deleted, too: they refer to it (`ON DELETE CASCADE`).
    db.prepare_cached("DELETE FROM rooms WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// Writes the fields of a room that may change: its epoch, and whether a rekey is due.
pub(super) fn update(db: &Connection, room: &Room) -> Result<()> {
    let row = RoomRow::of(room);
    db.prepare_cached("UPDATE rooms SET epoch = ?2, rekey_due = ?3, sum = ?4 WHERE id = ?1")?
        .execute((row.id, row.epoch, row.rekey_due, row.sum()))?;
    Ok(())
}

pub(super) fn find(db: &Connection, id: &RoomId) -> Result<Option<Room>> {
    let mut statement = db.prepare_cached(
        "SELECT id, owner, encrypted, epoch, rekey_due, created_at, sum FROM rooms WHERE id = ?1",
    )?;
    let mut rows = statement.query([id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let room = RoomRow::decode(row)
        .map_err(|problem| Error::corrupt("rooms", format!("{id:?}"), problem))?;
    Ok(Some(room))
}
