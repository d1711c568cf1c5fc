//! The file's format: its marks (application and version), and the migrations between versions.
//!
//! `application_id` marks the file as ours, and `user_version` is its version. A new file runs the same migrations as
//! an old one, so that new and migrated files have the same tables.

mod checksums;

use rusqlite::Connection;

use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::place::Names;
use crate::Error;
use crate::trace::event;

/// "MBRS": the `application_id` of our files.
const APPLICATION: i64 = 0x4D42_5253;

/// One migration: its statements, and code for work that statements cannot do.
struct Step {
    sql: &'static str,
    fill: fn(&Connection) -> Result<()>,
}

const LADDER: [Step; 2] = [
    Step { sql: include_str!("schema/0001_rooms_and_users.sql"), fill: |_| Ok(()) },
    Step { sql: include_str!("schema/0002_checksums.sql"), fill: checksums::fill },
];

/// The version that this code reads and writes.
pub(super) const CURRENT: usize = LADDER.len();

/// Returns the version of the file: 0 for an empty file, an error for another application's.
pub(super) fn version(db: &Connection, names: &Names) -> Result<usize> {
    let application: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    owned(names, application, version, || {
        let objects = objects(db)?;
        if objects.is_empty() || objects != reference()? {
            return Ok(!objects.is_empty());
        }
        Err(names.refuse(&format!(
            "has the tables of a store and not its mark: a copy made by .dump or .clone loses it; \
             restore one made by .backup or VACUUM INTO, or, if this copy is whole, set \
             PRAGMA application_id = {APPLICATION} and PRAGMA user_version = {CURRENT} in it"
        )))
    })
}

/// Returns the version of a file with this header: 0 without tables, an error for another application's file.
pub(super) fn owned(
    names: &Names,
    application: i64,
    version: i64,
    has_tables: impl FnOnce() -> Result<bool>,
) -> Result<usize> {
    match (application, usize::try_from(version)) {
        (0, Ok(0)) if !has_tables()? => Ok(0),
        (APPLICATION, Ok(version @ 1..=CURRENT)) => Ok(version),
        (APPLICATION, Ok(version)) if version > CURRENT => {
            if defect::is(SqliteDefect::OpensWhatIsNewer) {
                return Ok(CURRENT);
            }
            Err(names.refuse(&format!(
                "was written by a newer version (schema {version}; this one knows {CURRENT}); \
                 upgrade this program"
            )))
        }
        (APPLICATION, _) => {
            let problem = format!("has the schema version {version}, which there never was");
            Err(Error::corrupt("database", "header", problem).into())
        }
        _ => Err(names.refuse(&format!(
            "is another application's database (application_id {application:#x}); give the path \
             of a file that is ours or new"
        ))),
    }
}

/// Migrates the file to [`CURRENT`] in one transaction (clause DUR-3).
pub(super) fn bring_forward(db: &Connection, names: &Names) -> Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let done = climb(db, names).and_then(|()| Ok(db.execute_batch("COMMIT")?));
    if done.is_err() && !db.is_autocommit() {
        // The caller drops the connection after this error, which ends the transaction.
        let _ = db.execute_batch("ROLLBACK");
    }
    done
}

fn climb(db: &Connection, names: &Names) -> Result<()> {
    // Checked again under the lock: another process may have migrated the file.
    let from = version(db, names)?;
    if from == 0 {
        event!(file: debug, "a new file gets its tables");
    } else {
        event!(file: info, "an older file gets the tables of this version", from, to = CURRENT);
    }
    for step in LADDER.iter().skip(from) {
        db.execute_batch(step.sql)?;
        (step.fill)(db)?;
    }
    db.pragma_update(None, "application_id", APPLICATION)?;
    db.pragma_update(None, "user_version", i64::try_from(CURRENT).unwrap_or(i64::MAX))?;
    verify(db)
}

/// Whether the tables are exactly those of the migrations: a trigger or a changed column could break the store's
/// promises.
pub(super) fn verify(db: &Connection) -> Result<()> {
    let encoding: String = db.pragma_query_value(None, "encoding", |row| row.get(0))?;
    if encoding != "UTF-8" || objects(db)? != reference()? {
        let problem = format!("its tables are not those of schema {CURRENT}");
        return Err(Error::corrupt("database", "schema", problem).into());
    }
    Ok(())
}

/// The tables that the migrations make.
fn reference() -> Result<Vec<[String; 4]>> {
    let reference = Connection::open_in_memory()?;
    for step in &LADDER {
        reference.execute_batch(step.sql)?;
    }
    objects(&reference)
}

fn objects(db: &Connection) -> Result<Vec<[String; 4]>> {
    // SQLite's own tables (statistics) are allowed, and the two tables of Litestream, which replicates
    // the log.
    let sql = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema
               WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
                 AND NOT (type = 'table' AND name IN ('_litestream_seq', '_litestream_lock'))
               ORDER BY name";
    let mut statement = db.prepare(sql)?;
    let rows = statement
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?
        .collect::<Result<_, _>>()?;
    Ok(rows)
}
