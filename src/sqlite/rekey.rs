//! The move of a room to its next epoch.

use std::cmp::Ordering;
use std::iter::Peekable;

use rusqlite::Connection;

use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::{keys, members, rooms};
use crate::error::{Conflict, Record};
use crate::{EndpointId, Error, Rekey, Room, RoomId};

pub(super) fn rekey(db: &Connection, id: &RoomId, rekey: &Rekey) -> Result<Room> {
    let mut room = rooms::get(db, id)?;
    if !room.encrypted {
        return Err(Conflict::RoomUnencrypted.into());
    }
    if rekey.from() != room.epoch {
        return Err(Error::StaleEpoch { current: room.epoch }.into());
    }
    let differences = Differences::find(db, id, rekey)?;
    if let Some(stranger) = differences.strangers.first() {
        let (room, endpoint) = (id.clone(), (*stranger).clone());
        return Err(Error::NotFound(Record::Member { room, endpoint }).into());
    }
    if rekey.remove().contains(&room.owner) {
        return Err(Conflict::OwnerStays.into());
    }
    let next = room.epoch.next().ok_or(Conflict::LastEpoch)?;
    let missing = differences.missing.iter();
    let extra = differences.extra.iter().copied();
    if let Some(mismatch) = Conflict::keys_mismatch(missing, extra) {
        return Err(mismatch.into());
    }

    if !rekey.remove().is_empty() {
        let mut remove = members::Remove::new(db, id)?;
        for endpoint in rekey.remove() {
            remove.member(endpoint)?;
        }
    }
    let mut insert = keys::Insert::new(db)?;
    for (number, (endpoint, ciphertext)) in rekey.keys().iter().enumerate() {
        if number == rekey.keys().len() / 2 && defect::is(SqliteDefect::CommitsHalfARekey) {
            db.execute_batch("COMMIT; BEGIN IMMEDIATE; SAVEPOINT job")?;
        }
        insert.key(id, next, endpoint, ciphertext)?;
    }
    room.epoch = next;
    room.rekey_due = false;
    rooms::update(db, &room)?;
    Ok(room)
}

/// The differences between a rekey's endpoints and the room's members.
#[derive(Default)]
struct Differences<'a> {
    /// Endpoints to remove that are no members.
    strangers: Vec<&'a EndpointId>,
    /// Remaining members without a key.
    missing: Vec<EndpointId>,
    /// Endpoints that have a key and are no remaining members.
    extra: Vec<&'a EndpointId>,
}

impl<'a> Differences<'a> {
    /// Walks the members once. The members and both sets of the rekey are in byte order.
    fn find(db: &Connection, id: &RoomId, rekey: &'a Rekey) -> Result<Self> {
        let mut found = Self::default();
        let mut remove = rekey.remove().iter().peekable();
        let mut keys = rekey.keys().keys().peekable();
        members::walk(db, id, |member| {
            let removed = met(&mut remove, member.endpoint, &mut found.strangers);
            let sealed = met(&mut keys, member.endpoint, &mut found.extra);
            if removed || sealed {
                return Ok(());
            }
            found.missing.push(EndpointId::new(member.endpoint)?);
            Ok(())
        })?;
        found.strangers.extend(remove);
        found.extra.extend(keys);
        Ok(found)
    }
}

/// Advances `side` up to `member`, and returns whether `side` has `member`. The endpoints that `side` passes are no
/// members, and are added to `passed`.
fn met<'a>(
    side: &mut Peekable<impl Iterator<Item = &'a EndpointId>>,
    member: &str,
    passed: &mut Vec<&'a EndpointId>,
) -> bool {
    while let Some(endpoint) = side.next_if(|endpoint| endpoint.as_str() <= member) {
        if endpoint.as_str().cmp(member) == Ordering::Equal {
            return true;
        }
        passed.push(endpoint);
    }
    false
}
