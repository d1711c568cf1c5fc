//! The creation of a room, with its owner.

use rusqlite::Connection;

use super::driver::Result;
use super::{keys, members, rooms};
use crate::error::Record;
use crate::{Error, NewRoom, Room};

pub(super) fn create_room(db: &Connection, new: &NewRoom) -> Result<Room> {
    if rooms::find(db, &new.id)?.is_some() {
        return Err(Error::AlreadyExists(Record::Room(new.id.clone())).into());
    }
    let room = new.room();
    rooms::insert(db, &room)?;
    members::insert(db, &new.owner_member())?;
    if let Some(ciphertext) = &new.owner_key {
        keys::Insert::new(db)?.key(&room.id, room.epoch, &room.owner, ciphertext)?;
    }
    Ok(room)
}
