//! The file's format: how it is known to be ours, and the ladder of its versions.
//!
//! `application_id` says that it is ours, `user_version` which step of the ladder it stands on. A
//! new file climbs the same steps as an old one, so there is one way to every version.

mod checksums;

use std::path::Path;

use rusqlite::Connection;

use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::open::refuse;
use crate::Error;

/// "MBRS": what `application_id` is in every file of ours.
const APPLICATION: i64 = 0x4D42_5253;

/// One step of the ladder: statements, and what only code can do.
struct Step {
    sql: &'static str,
    fill: fn(&Connection) -> Result<()>,
}

const LADDER: [Step; 2] = [
    Step { sql: include_str!("schema/0001_rooms_and_users.sql"), fill: |_| Ok(()) },
    Step { sql: include_str!("schema/0002_checksums.sql"), fill: checksums::fill },
];

/// The version this code reads and writes.
pub(super) const CURRENT: usize = LADDER.len();

/// The version of the file, 0 for one that is empty; an error for one that is not ours.
pub(super) fn version(db: &Connection, path: &Path) -> Result<usize> {
    let application: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, usize::try_from(version)) {
        (0, Ok(0)) if objects == 0 => Ok(0),
        (APPLICATION, Ok(version @ 1..=CURRENT)) => Ok(version),
        (APPLICATION, Ok(version)) if version > CURRENT => {
            if defect::is(SqliteDefect::OpensWhatIsNewer) {
                return Ok(CURRENT);
            }
            let problem = format!(
                "was written by a newer version (schema {version}; this one knows {CURRENT}); \
                 upgrade this program"
            );
            Err(refuse(path, &problem))
        }
        (APPLICATION, _) => {
            let problem = format!("has the schema version {version}, which there never was");
            Err(Error::corrupt("database", "header", problem).into())
        }
        _ => Err(refuse(
            path,
            &format!(
                "is another application's database (application_id {application:#x}); give the \
                 path of a file that is ours or new"
            ),
        )),
    }
}

/// Brings the file to [`CURRENT`], in one transaction: all of it or nothing (clause DUR-3).
pub(super) fn bring_forward(db: &Connection, path: &Path) -> Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let done = climb(db, path).and_then(|()| Ok(db.execute_batch("COMMIT")?));
    if done.is_err() && !db.is_autocommit() {
        // The connection is dropped after this error, which ends the transaction as well.
        let _ = db.execute_batch("ROLLBACK");
    }
    done
}

fn climb(db: &Connection, path: &Path) -> Result<()> {
    // Under the lock: somebody else may have been faster.
    let from = version(db, path)?;
    for step in LADDER.iter().skip(from) {
        db.execute_batch(step.sql)?;
        (step.fill)(db)?;
    }
    db.pragma_update(None, "application_id", APPLICATION)?;
    db.pragma_update(None, "user_version", i64::try_from(CURRENT).unwrap_or(i64::MAX))?;
    verify(db)
}

/// Whether the tables are what the ladder makes, nothing less and nothing more: a trigger or a
/// changed column could undo what the store promises.
pub(super) fn verify(db: &Connection) -> Result<()> {
    let encoding: String = db.pragma_query_value(None, "encoding", |row| row.get(0))?;
    let reference = Connection::open_in_memory()?;
    for step in &LADDER {
        reference.execute_batch(step.sql)?;
    }
    if encoding != "UTF-8" || objects(db)? != objects(&reference)? {
        let problem = format!("its tables are not those of schema {CURRENT}");
        return Err(Error::corrupt("database", "schema", problem).into());
    }
    Ok(())
}

fn objects(db: &Connection) -> Result<Vec<[String; 4]>> {
    // What SQLite keeps for itself (statistics) is its own business.
    let sql = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema
               WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = db.prepare(sql)?;
    let rows = statement
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?
        .collect::<Result<_, _>>()?;
    Ok(rows)
}
