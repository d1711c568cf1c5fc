//! Access for the conformance suite, which other callers do not have.

use std::path::Path;

use rusqlite::Connection;

use super::config::SqliteConfig;
use super::defect::SqliteDefect;
use super::layout::{UserRow, epoch_column};
use super::{SqliteStore, driver, keys, members, rooms, users};
use crate::error::{Conflict, Record};
use crate::mutation::Mutation;
use crate::trace::span;
use crate::{EndpointId, Epoch, Error, RoomId, User, UserKey};

impl SqliteStore {
    /// Opens a store with this defect, which the suite must catch.
    #[doc(hidden)]
    pub async fn open_broken(config: SqliteConfig, defect: SqliteDefect) -> Result<Self, Error> {
        Self::start(config, Mutation::of(defect)).await
    }

    /// Puts an encrypted room at `epoch`, as if it had been rekeyed that often with the same keys.
    #[doc(hidden)]
    pub async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), Error> {
        let id = room.clone();
        self.long_write(span!("plant_epoch", room, epoch), move |db| {
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

    /// Puts the row that a revoked user had before the revocation back into the file at `path`, as a page of an old
    /// backup would. Returns whether the user was revoked.
    #[doc(hidden)]
    pub fn unrevoke(path: impl AsRef<Path>, key: &UserKey) -> Result<bool, Error> {
        let change = || -> driver::Result<bool> {
            let db = Connection::open(path)?;
            let user = users::get(&db, key)?;
            if !user.revoked {
                return Ok(false);
            }
            let before = User { revoked: false, revoked_at: None, ..user };
            db.execute(
                "UPDATE users SET revoked = 0, revoked_at = NULL, sum = ?2 WHERE key = ?1",
                (key.as_bytes(), UserRow::of(&before).sum()),
            )?;
            Ok(true)
        };
        Ok(change()?)
    }

    /// Changes one field of a record in the file at `path`, as a person with an SQL shell would. The store may be open,
    /// since the change goes through SQLite.
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
                    "UPDATE users SET admin = 1 - admin WHERE key = ?1",
                    [key.as_bytes()],
                )?,
            })
        };
        if change()? == 0 { Err(Error::NotFound(record.clone())) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ciphertext, NewRoom, Rekey, Store, Timestamp};

    #[tokio::test]
    async fn a_planted_epoch_is_as_if_rekeyed_and_a_spoilt_record_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members.db");
        let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        let (id, ann): (RoomId, EndpointId) = ("r".parse().unwrap(), "ann".parse().unwrap());
        let key = Ciphertext::new([1]).unwrap();
        let now = Timestamp::from_millis(0);
        let new = NewRoom::encrypted(id.clone(), ann.clone(), now, key.clone());
        store.create_room(new).await.unwrap();
        store.plant_epoch(&id, Epoch::MAX).await.unwrap();
        let latest = store.latest_key(&id, &ann).await.unwrap();
        assert_eq!((latest.epoch, &latest.ciphertext), (Epoch::MAX, &key));
        let rekey = Rekey::new(Epoch::MAX, [], [(ann.clone(), key)]).unwrap();
        assert_eq!(store.rekey(&id, rekey).await, Err(Conflict::LastEpoch.into()));

        let (room, endpoint) = (id.clone(), ann.clone());
        SqliteStore::spoil(&path, &Record::Key { room, endpoint, epoch: None }).unwrap();
        assert!(matches!(store.latest_key(&id, &ann).await, Err(Error::Corrupt(_))));
        let (room, endpoint) = (id.clone(), ann.clone());
        SqliteStore::spoil(&path, &Record::Member { room, endpoint }).unwrap();
        assert!(matches!(store.member(&id, &ann).await, Err(Error::Corrupt(_))));
        SqliteStore::spoil(&path, &Record::Room(id.clone())).unwrap();
        assert!(matches!(store.room(&id).await, Err(Error::Corrupt(_))));
        store.close().await.unwrap();
    }
}
