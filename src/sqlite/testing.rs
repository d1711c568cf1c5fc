//! Ways into the store that no caller has, for the conformance suite.

use std::path::Path;

use rusqlite::Connection;

use super::layout::epoch_column;
use super::{SqliteStore, driver, keys, members, rooms};
use crate::error::{Conflict, Record};
use crate::{EndpointId, Epoch, Error, RoomId};

impl SqliteStore {
    /// Puts an encrypted room at `epoch`, as that many rekeys with the same keys would have.
    #[doc(hidden)]
    pub async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), Error> {
        let id = room.clone();
        self.long_write(move |db| {
            let mut room = rooms::get(db, &id)?;
            if !room.encrypted {
                return Err(Conflict::RoomUnencrypted.into());
            }
            let mut endpoints = Vec::new();
            members::walk(db, &id, |member| {
                endpoints.push(EndpointId::new(member.endpoint)?);
                Ok(())
            })?;
            for endpoint in &endpoints {
                let key = keys::at(db, &id, endpoint, room.epoch)?;
                if let Some(key) = key {
                    keys::Insert::new(db)?.key(&id, epoch, endpoint, &key.ciphertext)?;
                }
            }
            room.epoch = epoch;
            rooms::update(db, &room)
        })
        .await
    }

    /// Changes one field of a record in the file at `path`, as somebody with an SQL shell would.
    /// The store may be open: this goes through SQLite.
    #[doc(hidden)]
    pub fn spoil(path: impl AsRef<Path>, record: &Record) -> Result<(), Error> {
        let change = || -> driver::Result<usize> {
            let db = Connection::open(path)?;
            Ok(match record {
                Record::Room(room) => db.execute(
                    "UPDATE rooms SET rekey_due = 1 - rekey_due WHERE id = ?1",
                    [room.as_str()],
                )?,
                Record::Member { room, endpoint } => db.execute(
                    "UPDATE members SET owner = 1 - owner WHERE room = ?1 AND endpoint = ?2",
                    (room.as_str(), endpoint.as_str()),
                )?,
                Record::Key { room, endpoint, epoch } => db.execute(
                    "UPDATE room_keys SET ciphertext = CAST(ciphertext || x'00' AS BLOB)
                     WHERE room = ?1 AND endpoint = ?2 AND (?3 IS NULL OR epoch = ?3)",
                    (room.as_str(), endpoint.as_str(), epoch.map(epoch_column)),
                )?,
                Record::User(key) => db.execute(
                    "UPDATE users SET revoked = 1 - revoked WHERE key = ?1",
                    [key.as_bytes()],
                )?,
            })
        };
        if change()? == 0 { Err(Error::NotFound(record.clone())) } else { Ok(()) }
    }
}
