//! Adds, reads, lists and revokes users and admins, and reads what decisions need.

use data_encoding::HEXLOWER;
use rusqlite::{Connection, Row};

use super::columns::{Columns, Problem};
use super::driver::{Failure, Result};
use super::layout::{UserRow, bootstrap_sum, check, limit_column};
use super::readers::one_state;
use crate::decision::Standing;
use crate::error::{Conflict, Record};
use crate::{Error, NewUser, Page, Timestamp, User, UserKey};

pub(super) fn bootstrap_admin(db: &Connection, new: &NewUser) -> Result<User> {
    if active_admin(db)?.is_some() {
        return Err(Conflict::AdminExists.into());
    }
    add(db, &NewUser { admin: true, ..new.clone() })
}

pub(super) fn add(db: &Connection, new: &NewUser) -> Result<User> {
    if find(db, &new.key)?.is_some() {
        return Err(Error::AlreadyExists(Record::User(new.key)).into());
    }
    let user = new.user();
    let row = UserRow::of(&user);
    db.prepare_cached(
        "INSERT INTO users (key, label, admin, revoked, added_at, revoked_at, sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        row.key,
        row.label,
        row.admin,
        row.revoked,
        row.added_at,
        row.revoked_at,
        row.sum(),
    ))?;
    if user.admin {
        db.prepare_cached("UPDATE bootstrap SET admin_made = TRUE, sum = ?1")?
            .execute([bootstrap_sum(true)])?;
    }
    Ok(user)
}

/// The user, or `NotFound`.
pub(super) fn get(db: &Connection, key: &UserKey) -> Result<User> {
    find(db, key)?.ok_or_else(|| Error::NotFound(Record::User(*key)).into())
}

pub(super) fn list(db: &Connection, page: &Page<UserKey>) -> Result<Vec<User>> {
    // No key is empty, so the empty key comes before all keys.
    let after = page.after().map_or(&[][..], |key| key.as_bytes());
    let mut statement = db.prepare_cached(
        "SELECT key, label, admin, revoked, added_at, revoked_at, sum,
                EXISTS (SELECT 1 FROM revocations WHERE revocations.key = users.key)
         FROM users WHERE key > ?1 ORDER BY key LIMIT ?2",
    )?;
    let mut rows = statement.query((after, limit_column(page)))?;
    let mut users = Vec::new();
    while let Some(row) = rows.next()? {
        users.push(decode(row)?);
    }
    Ok(users)
}

pub(super) fn revoke(db: &Connection, key: &UserKey, at: Timestamp) -> Result<()> {
    let mut user = get(db, key)?;
    if user.revoked {
        return Ok(());
    }
    if user.admin && active_admin_but(db, key.as_bytes())?.is_none() {
        return Err(Conflict::LastAdmin.into());
    }
    user.revoked = true;
    user.revoked_at = Some(at);
    let row = UserRow::of(&user);
    db.prepare_cached("UPDATE users SET revoked = ?2, revoked_at = ?3, sum = ?4 WHERE key = ?1")?
        .execute((row.key, row.revoked, row.revoked_at, row.sum()))?;
    db.prepare_cached("INSERT INTO revocations (key) VALUES (?1)")?.execute([row.key])?;
    Ok(())
}

/// Reads the part of a user that decisions need. Allocates nothing.
pub(super) fn standing(db: &Connection, key: &UserKey) -> Result<Option<Standing>> {
    one(db, key, |row| {
        let found = UserRow::read(row)?;
        if found.key == key.as_bytes() {
            found.standing()
        } else {
            Err("was found under another key".to_owned())
        }
    })
}

/// Whether an active admin exists. Once an admin was made, there always is an active one (USER-4).
/// So the users and the record of the bootstrap must agree; if they do not, the error is `Corrupt`
/// (AUTH-5).
pub(super) fn has_admin(db: &Connection) -> Result<bool> {
    one_state(db, |db| Ok(active_admin(db)?.is_some()))
}

fn active_admin(db: &Connection) -> Result<Option<UserKey>> {
    let found = active_admin_but(db, &[])?;
    if found.is_some() == admin_made(db)? {
        return Ok(found);
    }
    let problem = "contradicts the users on whether an admin was ever made";
    Err(Error::corrupt("bootstrap", "1", problem).into())
}

/// The first active admin whose key is not `except`.
fn active_admin_but(db: &Connection, except: &[u8]) -> Result<Option<UserKey>> {
    let mut statement = db.prepare_cached(
        "SELECT key, label, admin, revoked, added_at, revoked_at, sum,
                EXISTS (SELECT 1 FROM revocations WHERE revocations.key = users.key)
         FROM users INDEXED BY active_admins
         WHERE admin = 1 AND revoked = 0 AND key <> ?1 ORDER BY key LIMIT 1",
    )?;
    let mut rows = statement.query([except])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let user = decode(row)?;
    if user.admin && !user.revoked {
        return Ok(Some(user.key));
    }
    let problem = "is no active admin, though the index has it as one";
    Err(Error::corrupt("users", user.key.to_string(), problem).into())
}

fn admin_made(db: &Connection) -> Result<bool> {
    let mut statement = db.prepare_cached("SELECT admin_made, sum FROM bootstrap WHERE one = 1")?;
    let mut rows = statement.query([])?;
    let broken = |problem| Failure::from(Error::corrupt("bootstrap", "1", problem));
    let row = rows.next()?.ok_or_else(|| broken("is missing".to_owned()))?;
    let mut columns = Columns::of(row);
    let made = columns.flag().map_err(broken)?;
    check(bootstrap_sum(made), &mut columns).map_err(broken)?;
    Ok(made)
}

fn find(db: &Connection, key: &UserKey) -> Result<Option<User>> {
    one(db, key, |row| UserRow::read(row)?.parse())
}

fn one<T>(
    db: &Connection,
    key: &UserKey,
    read: impl FnOnce(&Row<'_>) -> Result<T, Problem>,
) -> Result<Option<T>> {
    let mut statement = db.prepare_cached(
        "SELECT key, label, admin, revoked, added_at, revoked_at, sum,
                EXISTS (SELECT 1 FROM revocations WHERE key = ?1)
         FROM users WHERE key = ?1",
    )?;
    let mut rows = statement.query([key.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let found = read(row).map_err(|problem| Error::corrupt("users", key.to_string(), problem))?;
    Ok(Some(found))
}

fn decode(row: &Row<'_>) -> Result<User> {
    let user = UserRow::read(row).and_then(|row| row.parse());
    user.map_err(|problem| {
        // The error names the key as it is stored, because the key may be the corrupt part of the
        // record.
        let key = row.get_ref(0).and_then(|value| Ok(HEXLOWER.encode(value.as_blob()?)));
        Error::corrupt("users", key.unwrap_or_default(), problem).into()
    })
}
