//! A member's sealed key, or why there is none.

use rusqlite::Connection;

use super::driver::Result;
use super::readers::one_state;
use super::{keys, members, rooms};
use crate::error::Record;
use crate::{EndpointId, Epoch, Error, RoomId, SealedKey};

/// The key for `epoch`, or for the room's current one.
pub(super) fn read_key(
    db: &Connection,
    id: &RoomId,
    endpoint: &EndpointId,
    epoch: Option<Epoch>,
) -> Result<SealedKey> {
    one_state(db, |db| {
        let room = rooms::get(db, id)?;
        let at = epoch.unwrap_or(room.epoch);
        if let Some(key) = keys::at(db, id, endpoint, at)? {
            return Ok(key);
        }
        // Every member has a key at the room's epoch (clause KEY-1), so a member without one has
        // lost it.
        if room.encrypted && at == room.epoch && members::find(db, id, endpoint)?.is_some() {
            let problem = "missing, and its endpoint is a member";
            let key = format!("{id:?} {at} {endpoint:?}");
            return Err(Error::corrupt("room_keys", key, problem).into());
        }
        let (room, endpoint) = (id.clone(), endpoint.clone());
        Err(Error::NotFound(Record::Key { room, endpoint, epoch }).into())
    })
}
