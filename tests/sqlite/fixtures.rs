//! Checks that the code here makes the database files under `fixtures/sqlite/`.
//! `WRITE_FIXTURES=1 cargo test --test sqlite fixtures` makes the files anew.

use std::path::Path;

use membership::{SqliteConfig, SqliteStore, Store};
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::support::{NOW, encrypted, endpoint, fixture, key, member, room, user};

pub(crate) const VERSION_1: &str = include_str!("../../src/sqlite/schema/0001_rooms_and_users.sql");

/// A file name, and a function that makes the file at a path.
type Fixture = (&'static str, fn(&Path));

const FIXTURES: [Fixture; 5] = [
    ("v1.db", version_1),
    ("newer.db", newer),
    ("foreign.db", foreign),
    ("truncated.db", truncated),
    ("flipped.db", flipped),
];

#[test]
fn the_files_are_what_the_code_here_makes() {
    for (name, make) in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join(name);
        make(&made);
        if std::env::var_os("WRITE_FIXTURES").is_some() {
            std::fs::copy(&made, fixture(name)).unwrap();
        }
        let kept = dir.path().join(format!("kept {name}"));
        std::fs::copy(fixture(name), &kept).unwrap();
        assert_eq!(dump(&kept), dump(&made), "{name}");
    }
}

/// The contents of a database, as a program can see them.
///
/// If SQLite cannot read the database, the error and the file's length are compared. The bytes of
/// sound databases are not, since they differ between versions of SQLite.
fn dump(path: &Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, Value>(0));
    let tables = db
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .and_then(|mut tables| {
            tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        });
    let tables: Vec<(String, String)> = match tables {
        Ok(tables) => tables,
        Err(error) => return vec![error.to_string(), path.metadata().unwrap().len().to_string()],
    };
    let mut lines = vec![format!("{:?} {:?}", pragma("application_id"), pragma("user_version"))];
    for (table, sql) in tables {
        let mut rows = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = rows.column_count();
        let rows = rows.query_map([], |row| {
            (0..columns).map(|at| row.get::<_, Value>(at)).collect::<Result<Vec<_>, _>>()
        });
        lines.push(sql);
        lines.extend(rows.unwrap().map(|row| format!("{:?}", row.unwrap())));
    }
    lines
}

/// A database of version 1: two rooms, an admin, a user and a revoked user.
fn version_1(path: &Path) {
    let db = Connection::open(path).unwrap();
    let _: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
    db.execute_batch(VERSION_1).unwrap();
    db.execute_batch(
        "PRAGMA application_id = 0x4D425253;
         PRAGMA user_version = 1;
         INSERT INTO rooms VALUES ('ops', 'ann', 1, 2, 1, 1000), ('town square', 'bob', 0, 0, 0, -5);
         INSERT INTO members VALUES
             ('ops', 'ann', 1, 1, 1000), ('ops', 'bob', 0, 2, 2000),
             ('town square', 'bob', 1, 0, -5);
         INSERT INTO room_keys VALUES
             ('ops', 1, 'ann', x'01'), ('ops', 2, 'ann', x'02'), ('ops', 2, 'bob', x'03');",
    )
    .unwrap();
    let mut users = db.prepare("INSERT INTO users VALUES (?1, ?2, ?3, ?4, ?5, ?6)").unwrap();
    users.execute((key(1).as_bytes(), "root", 1, 0, 10, None::<i64>)).unwrap();
    users.execute((key(2).as_bytes(), "", 0, 0, 20, None::<i64>)).unwrap();
    users.execute((key(3).as_bytes(), "gone", 0, 1, 30, Some(31))).unwrap();
}

/// A database of the current version: a room with two members, an admin, a user and a revoked user.
pub(crate) async fn current(path: &Path) {
    let store = SqliteStore::open(SqliteConfig::new(path)).await.unwrap();
    store.create_room(encrypted("ops", "ann")).await.unwrap();
    store.add_member(&room("ops"), member("bob", 1)).await.unwrap();
    store.add_member(&room("ops"), member("eve", 1)).await.unwrap();
    store.remove_member(&room("ops"), &endpoint("eve")).await.unwrap();
    store.bootstrap_admin(user(1, true)).await.unwrap();
    store.add_user(user(2, false)).await.unwrap();
    store.add_user(user(3, false)).await.unwrap();
    store.revoke_user(&key(3), NOW).await.unwrap();
    store.close().await.unwrap();
}

pub(crate) fn blocking<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(future)
}

/// A database of a version that does not exist yet.
fn newer(path: &Path) {
    blocking(current(path));
    Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap();
}

/// A database of another program: its own `application_id`, a table, a row.
fn foreign(path: &Path) {
    Connection::open(path)
        .unwrap()
        .execute_batch(
            "PRAGMA application_id = 0x47504B47;
             CREATE TABLE parcels (id INTEGER PRIMARY KEY, name TEXT);
             INSERT INTO parcels (name) VALUES ('not ours');",
        )
        .unwrap();
}

/// The first half of a store.
fn truncated(path: &Path) {
    blocking(current(path));
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// A store with one bit flipped: the `revoked` of user 3, from 1 to 0.
fn flipped(path: &Path) {
    blocking(current(path));
    let mut bytes = std::fs::read(path).unwrap();
    let at = revoked_flag(&bytes);
    bytes[at] ^= 1;
    std::fs::write(path, &bytes).unwrap();
}

/// The offset of the type of the column `revoked` in user 3's record. SQLite keeps the integers 0
/// and 1 in the record's header alone, as the types 8 and 9.
fn revoked_flag(bytes: &[u8]) -> usize {
    let [key, label] = [key(3).as_bytes().to_vec(), b"user 3".to_vec()];
    let body = bytes.windows(38).position(|w| w == [key.clone(), label.clone()].concat()).unwrap();
    // The header has its own length, and then a type for each of key, label, admin, revoked,
    // added_at, revoked_at and sum. A blob of n bytes has the type 2n + 12, a text 2n + 13.
    let header = [8, 2 * 32 + 12, 2 * 6 + 13, 8, 9];
    let found = bytes[..body].windows(5).rposition(|window| window == header).unwrap();
    assert!(body - found <= 8, "the header is right before the body");
    found + 4
}
