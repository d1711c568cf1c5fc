//! Stores, reads and removes sealed keys.

use rusqlite::{CachedStatement, Connection};

use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::layout::{KeyRow, epoch_column};
use crate::{Ciphertext, EndpointId, Epoch, Error, RoomId, SealedKey};

/// The endpoint's key for the epoch, if there is one.
pub(super) fn at(
    db: &Connection,
    id: &RoomId,
    endpoint: &EndpointId,
    epoch: Epoch,
) -> Result<Option<SealedKey>> {
    let mut statement = db.prepare_cached(
        "SELECT room, epoch, endpoint, ciphertext, sum FROM room_keys
         WHERE room = ?1 AND epoch = ?2 AND endpoint = ?3",
    )?;
    let mut rows = statement.query((id.as_str(), epoch_column(epoch), endpoint.as_str()))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let key = KeyRow::decode(row).map_err(|problem| {
        Error::corrupt("room_keys", format!("{id:?} {epoch} {endpoint:?}"), problem)
    })?;
    Ok(Some(key))
}

/// Stores sealed keys. The statement is prepared once for all of them.
pub(super) struct Insert<'db>(CachedStatement<'db>);

impl<'db> Insert<'db> {
    pub(super) fn new(db: &'db Connection) -> Result<Self> {
        Ok(Self(db.prepare_cached(
            "INSERT INTO room_keys (room, epoch, endpoint, ciphertext, sum)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?))
    }

    pub(super) fn key(
        &mut self,
        room: &RoomId,
        epoch: Epoch,
        endpoint: &EndpointId,
        ciphertext: &Ciphertext,
    ) -> Result<()> {
        let row = KeyRow::new(room, epoch, endpoint, ciphertext);
        self.0.execute((row.room, row.epoch, row.endpoint, row.ciphertext, row.sum()))?;
        Ok(())
    }
}

/// Removes all keys of an endpoint in one room. Keys are ordered by room, epoch and endpoint, so
/// this takes one look-up for each epoch that has keys.
pub(super) struct Remove<'db> {
    room: &'db RoomId,
    epochs: Vec<i64>,
    statement: CachedStatement<'db>,
}

impl<'db> Remove<'db> {
    pub(super) fn new(db: &'db Connection, room: &'db RoomId) -> Result<Self> {
        let mut next =
            db.prepare_cached("SELECT min(epoch) FROM room_keys WHERE room = ?1 AND epoch > ?2")?;
        let mut epochs = Vec::new();
        let mut last = i64::MIN;
        // Each query skips all keys of the epoch before.
        while let Some(epoch) =
            next.query_row((room.as_str(), last), |row| row.get::<_, Option<i64>>(0))?
        {
            epochs.push(epoch);
            last = epoch;
        }
        if defect::is(SqliteDefect::RemovesOneKey) {
            epochs = epochs.pop().into_iter().collect();
        }
        let statement = db.prepare_cached(
            "DELETE FROM room_keys WHERE room = ?1 AND epoch = ?2 AND endpoint = ?3",
        )?;
        Ok(Self { room, epochs, statement })
    }

    pub(super) fn all_of(&mut self, endpoint: &EndpointId) -> Result<()> {
        for epoch in &self.epochs {
            self.statement.execute((self.room.as_str(), epoch, endpoint.as_str()))?;
        }
        Ok(())
    }
}
