use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use membership::{SqliteConfig, SqliteStore, Store};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::lists;
use crate::measure::{Limit, Row, each};
use crate::world::{
    self, CALLERS, ROOMS, USERS, big_room, by_many, endpoint, fill_rooms, fill_users, sealed, user,
    user_key,
};

const READS: u32 = 20_000;

pub(crate) fn open(runtime: &Runtime, config: SqliteConfig) -> Arc<dyn Store> {
    Arc::new(runtime.block_on(SqliteStore::open(config)).unwrap())
}

/// A folder beside the executable, which is on a disk; the system's folder for temporary files is
/// often in memory.
fn new_folder() -> TempDir {
    let executable = std::env::current_exe().unwrap();
    TempDir::new_in(executable.parent().unwrap()).unwrap()
}

/// A connection to a plain database, with tables for the same records as the store has.
fn plain(folder: &TempDir) -> Connection {
    let connection = Connection::open(folder.path().join("plain.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             CREATE TABLE users (
                 key BLOB PRIMARY KEY, label TEXT, admin INTEGER, revoked INTEGER,
                 added_at INTEGER, revoked_at INTEGER
             ) STRICT, WITHOUT ROWID;
             CREATE TABLE room_keys (
                 room TEXT, endpoint TEXT, epoch INTEGER, ciphertext BLOB,
                 PRIMARY KEY (room, endpoint, epoch)
             ) STRICT, WITHOUT ROWID;",
        )
        .unwrap();
    connection
}

fn fill_plain(connection: &mut Connection) {
    let transaction = connection.transaction().unwrap();
    let mut insert = transaction.prepare("INSERT INTO users VALUES (?, ?, ?, 0, 0, NULL)").unwrap();
    for number in 0..USERS {
        let user = user(number);
        insert.execute((user.key.as_bytes(), user.label.as_str(), user.admin)).unwrap();
    }
    drop(insert);
    transaction.commit().unwrap();
}

/// Reads [`READS`] users with one prepared statement.
fn bare_reads(connection: &Connection) -> Duration {
    let mut select = connection
        .prepare("SELECT label, admin, revoked, added_at, revoked_at FROM users WHERE key = ?")
        .unwrap();
    each(READS, || {
        for number in 0..READS {
            let key = user_key(number * (USERS / READS));
            let revoked: bool = select.query_row([key.as_bytes()], |row| row.get(2)).unwrap();
            assert!(!revoked);
        }
    })
}

fn reads_by_one(runtime: &Runtime, store: &Arc<dyn Store>) -> Duration {
    each(READS, || {
        runtime.block_on(async {
            for number in 0..READS {
                let key = user_key(number * (USERS / READS));
                assert!(store.is_authorized(&key).await.is_allowed());
            }
        });
    })
}

fn reads_by_many(runtime: &Runtime, store: &Arc<dyn Store>) -> Duration {
    each(READS, || {
        let store = Arc::clone(store);
        by_many(runtime, 0..READS, move |number| {
            let store = Arc::clone(&store);
            async move {
                let key = user_key(number * (USERS / READS));
                assert!(store.is_authorized(&key).await.is_allowed());
            }
        });
    })
}

pub(crate) fn rows(runtime: &Runtime) -> Vec<Row> {
    let folder = new_folder();
    let store = open(runtime, SqliteConfig::new(folder.path().join("store.db")));
    runtime.block_on(fill_users(&store, CALLERS, USERS));
    runtime.block_on(fill_rooms(&store, CALLERS, ROOMS));
    let mut connection = plain(&folder);
    fill_plain(&mut connection);

    let mut rows = vec![
        Row::cost(
            "sqlite is_authorized, 1 caller",
            "bare prepared SELECT",
            Limit::AtMost(1.5),
            15,
            || reads_by_one(runtime, &store),
            || bare_reads(&connection),
        ),
        Row::rate(
            "sqlite is_authorized, 64 callers",
            "bare prepared SELECT, one reader",
            Limit::AtLeast(1.5),
            15,
            || reads_by_many(runtime, &store),
            || bare_reads(&connection),
        ),
    ];
    rows.push(beside_a_writer(runtime, &store));
    rows.push(grouped_writes(runtime, &folder));
    rows.push(rekey(runtime, &store, &mut connection));
    runtime.block_on(store.close()).unwrap();
    rows.extend(pages(runtime));
    rows
}

fn pages(runtime: &Runtime) -> Vec<Row> {
    let folder = new_folder();
    let store = |name: &str, rooms: u32| {
        let store = open(runtime, SqliteConfig::new(folder.path().join(name)));
        runtime.block_on(fill_rooms(&store, CALLERS, rooms));
        // Both stores have one room of 1,000 members.
        runtime.block_on(big_room(&store, CALLERS, "big", 1_000));
        store
    };
    let (small, large) = (store("small.db", ROOMS / 10), store("large.db", ROOMS));
    let rows = lists::rows(runtime, "sqlite", 50, &small, &large);
    runtime.block_on(async {
        small.close().await.unwrap();
        large.close().await.unwrap();
    });
    rows
}

fn beside_a_writer(runtime: &Runtime, store: &Arc<dyn Store>) -> Row {
    let next = Arc::new(AtomicU32::new(USERS * 10));
    let busy = || {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (store, stop, next) = (Arc::clone(store), Arc::clone(&stop), Arc::clone(&next));
            runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    store.add_user(user(number)).await.unwrap();
                }
            })
        };
        let took = reads_by_many(runtime, store);
        stop.store(true, Ordering::Relaxed);
        runtime.block_on(writer).unwrap();
        took
    };
    Row::cost(
        "sqlite is_authorized, 64 callers beside a busy writer",
        "the same without the writer",
        Limit::AtMost(2.0),
        // More rounds, since readers and writer share the cores differently in each.
        41,
        busy,
        || reads_by_many(runtime, store),
    )
}

fn grouped_writes(runtime: &Runtime, folder: &TempDir) -> Row {
    let config = |name: &str| SqliteConfig::new(folder.path().join(name));
    let grouped = open(runtime, config("grouped.db"));
    let single = open(runtime, SqliteConfig { group_commit: false, ..config("single.db") });
    let next = AtomicU32::new(0);
    let writes = |store: &Arc<dyn Store>| {
        let count = CALLERS * 16;
        let first = next.fetch_add(count, Ordering::Relaxed);
        let store = Arc::clone(store);
        each(count, || {
            by_many(runtime, first..first + count, move |number| {
                let store = Arc::clone(&store);
                async move { drop(store.add_user(user(number)).await.unwrap()) }
            });
        })
    };
    let row = Row::rate(
        "sqlite add_user, 64 callers",
        "the same without grouping",
        Limit::AtLeast(2.5),
        11,
        || writes(&grouped),
        || writes(&single),
    );
    runtime.block_on(async {
        grouped.close().await.unwrap();
        single.close().await.unwrap();
    });
    row
}

fn rekey(runtime: &Runtime, store: &Arc<dyn Store>, connection: &mut Connection) -> Row {
    const MEMBERS: u32 = 10_000;
    let room = runtime.block_on(big_room(store, CALLERS, "rekeyed", MEMBERS));
    let mut epoch = 1;
    let ours = || {
        let rekey = world::rekey(epoch, MEMBERS);
        epoch += 1;
        let began = Instant::now();
        runtime.block_on(store.rekey(&room, rekey)).unwrap();
        began.elapsed()
    };
    let mut plain_epoch = 1;
    let bare = || {
        plain_epoch += 1;
        let rows: Vec<_> = (0..MEMBERS).map(|number| (endpoint(number), sealed(number))).collect();
        let began = Instant::now();
        let transaction = connection.transaction().unwrap();
        let mut insert = transaction.prepare("INSERT INTO room_keys VALUES (?, ?, ?, ?)").unwrap();
        for (endpoint, key) in &rows {
            insert.execute(("rekeyed", endpoint.as_str(), plain_epoch, key.as_bytes())).unwrap();
        }
        drop(insert);
        transaction.commit().unwrap();
        began.elapsed()
    };
    Row::cost(
        "sqlite rekey of 10,000 members",
        "the bare INSERTs in one transaction",
        Limit::AtMost(2.0),
        11,
        ours,
        bare,
    )
}
