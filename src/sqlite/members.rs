//! Members: added, read, listed, removed.

use rusqlite::{CachedStatement, Connection, Row};

use super::columns::Problem;
use super::defect::{self, SqliteDefect};
use super::driver::{Failure, Result};
use super::layout::{MemberRow, limit_column};
use super::readers::one_state;
use super::{keys, rooms};
use crate::error::{Conflict, Record};
use crate::{EndpointId, Error, Member, NewMember, Page, Role, RoomId};

pub(super) fn add(db: &Connection, id: &RoomId, new: &NewMember) -> Result<Member> {
    let room = rooms::get(db, id)?;
    match (room.encrypted, &new.key) {
        (true, None) => return Err(Conflict::KeyMissing.into()),
        (false, Some(_)) => return Err(Conflict::RoomUnencrypted.into()),
        _ => {}
    }
    if find(db, id, &new.endpoint)?.is_some() {
        return Err(Error::AlreadyExists(record(id, &new.endpoint)).into());
    }
    let member = Member {
        room: id.clone(),
        endpoint: new.endpoint.clone(),
        role: Role::Member,
        joined_epoch: room.epoch,
        added_at: new.added_at,
    };
    if let Some((sealed_for, _)) = &new.key
        && *sealed_for != room.epoch
    {
        return Err(Error::StaleEpoch { current: room.epoch }.into());
    }
    insert(db, &member)?;
    if let Some((epoch, ciphertext)) = &new.key {
        keys::Insert::new(db)?.key(id, *epoch, &new.endpoint, ciphertext)?;
    }
    Ok(member)
}

pub(super) fn get(db: &Connection, id: &RoomId, endpoint: &EndpointId) -> Result<Member> {
    one_state(db, |db| {
        rooms::get(db, id)?;
        existing(db, id, endpoint)
    })
}

pub(super) fn list(db: &Connection, id: &RoomId, page: &Page<EndpointId>) -> Result<Vec<Member>> {
    one_state(db, |db| {
        rooms::get(db, id)?;
        // No id is empty, so the empty text comes before all ids.
        let after = page.after().map_or("", EndpointId::as_str);
        let mut statement = db.prepare_cached(
            "SELECT room, endpoint, owner, joined_epoch, added_at, sum FROM members
             WHERE room = ?1 AND endpoint > ?2 ORDER BY endpoint LIMIT ?3",
        )?;
        let mut rows = statement.query((id.as_str(), after, limit_column(page)))?;
        let mut members = Vec::new();
        while let Some(row) = rows.next()? {
            members.push(decode(id, row)?);
        }
        Ok(members)
    })
}

pub(super) fn remove(db: &Connection, id: &RoomId, endpoint: &EndpointId) -> Result<()> {
    let mut room = rooms::get(db, id)?;
    if *endpoint == room.owner {
        return Err(Conflict::OwnerStays.into());
    }
    existing(db, id, endpoint)?;
    Remove::new(db, id)?.member(endpoint)?;
    if room.encrypted && !room.rekey_due {
        room.rekey_due = true;
        rooms::update(db, &room)?;
    }
    Ok(())
}

/// The rooms an endpoint is in, in byte order.
pub(super) fn rooms_of(
    db: &Connection,
    endpoint: &EndpointId,
    page: &Page<RoomId>,
) -> Result<Vec<RoomId>> {
    let after = page.after().map_or("", RoomId::as_str);
    // The statement goes through the index to the member's own row, because only that row has a
    // checksum.
    let sql = if defect::is(SqliteDefect::ScansAllMembers) {
        "SELECT room, endpoint, owner, joined_epoch, added_at, sum FROM members
         WHERE +endpoint = ?1 AND +room > ?2 ORDER BY room LIMIT ?3"
    } else {
        "SELECT room, endpoint, owner, joined_epoch, added_at, sum
         FROM members INDEXED BY rooms_of
         WHERE endpoint = ?1 AND room > ?2 ORDER BY room LIMIT ?3"
    };
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query((endpoint.as_str(), after, limit_column(page)))?;
    let mut rooms = Vec::new();
    while let Some(row) = rows.next()? {
        let member = MemberRow::read(row).and_then(|row| row.parse());
        let member = member
            .map_err(|problem| Error::corrupt("members", format!("of {endpoint:?}"), problem))?;
        rooms.push(member.room);
    }
    Ok(rooms)
}

pub(super) fn insert(db: &Connection, member: &Member) -> Result<()> {
    let row = MemberRow::of(member);
    db.prepare_cached(
        "INSERT INTO members (room, endpoint, owner, joined_epoch, added_at, sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((
        row.room,
        row.endpoint,
        row.owner,
        row.joined_epoch,
        row.added_at,
        row.sum(),
    ))?;
    Ok(())
}

/// Removes a membership, together with the endpoint's keys in the room.
pub(super) struct Remove<'db> {
    keys: keys::Remove<'db>,
    statement: CachedStatement<'db>,
    room: &'db RoomId,
}

impl<'db> Remove<'db> {
    pub(super) fn new(db: &'db Connection, room: &'db RoomId) -> Result<Self> {
        let sql = "DELETE FROM members WHERE room = ?1 AND endpoint = ?2";
        let statement = db.prepare_cached(sql)?;
        Ok(Self { keys: keys::Remove::new(db, room)?, statement, room })
    }

    pub(super) fn member(&mut self, endpoint: &EndpointId) -> Result<()> {
        self.keys.all_of(endpoint)?;
        self.statement.execute((self.room.as_str(), endpoint.as_str()))?;
        Ok(())
    }
}

/// Calls `visit` with every member of a room, in byte order of the endpoints.
pub(super) fn walk(
    db: &Connection,
    id: &RoomId,
    mut visit: impl FnMut(&MemberRow<'_>) -> Result<()>,
) -> Result<()> {
    let mut statement = db.prepare_cached(
        "SELECT room, endpoint, owner, joined_epoch, added_at, sum FROM members
         WHERE room = ?1 ORDER BY endpoint",
    )?;
    let mut rows = statement.query([id.as_str()])?;
    while let Some(row) = rows.next()? {
        visit(&MemberRow::read(row).map_err(|problem| broken(id, row, problem))?)?;
    }
    Ok(())
}

/// The membership, or `NotFound`, in an existing room.
fn existing(db: &Connection, id: &RoomId, endpoint: &EndpointId) -> Result<Member> {
    find(db, id, endpoint)?.ok_or_else(|| Error::NotFound(record(id, endpoint)).into())
}

pub(super) fn find(db: &Connection, id: &RoomId, endpoint: &EndpointId) -> Result<Option<Member>> {
    let mut statement = db.prepare_cached(
        "SELECT room, endpoint, owner, joined_epoch, added_at, sum FROM members
         WHERE room = ?1 AND endpoint = ?2",
    )?;
    let mut rows = statement.query((id.as_str(), endpoint.as_str()))?;
    rows.next()?.map(|row| decode(id, row)).transpose()
}

fn decode(id: &RoomId, row: &Row<'_>) -> Result<Member> {
    let member = MemberRow::read(row).and_then(|row| row.parse());
    member.map_err(|problem| broken(id, row, problem))
}

fn broken(id: &RoomId, row: &Row<'_>, problem: Problem) -> Failure {
    // The error names the endpoint as it is stored, because the endpoint may be the corrupt part of
    // the record.
    let endpoint = row.get_ref("endpoint").and_then(|value| Ok(value.as_str()?.to_owned()));
    let endpoint = endpoint.unwrap_or_default();
    Error::corrupt("members", format!("{id:?} {endpoint:?}"), problem).into()
}

fn record(room: &RoomId, endpoint: &EndpointId) -> Record {
    Record::Member { room: room.clone(), endpoint: endpoint.clone() }
}
