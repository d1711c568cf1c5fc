//! Full stores: by the store's own limit, and by the system's (clauses ERR-2, TIME-1, AUTH-2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::{Ciphertext, Decision, Error, NewRoom, Page, SqliteConfig, SqliteStore, Store};

use crate::fixtures::blocking;
use crate::support::{
    GRACE, NOW, child, child_command, endpoint, key, new_path, room, succeeded, user,
};

fn large(n: usize) -> NewRoom {
    let sealed = Ciphertext::new(vec![7; 4096]).unwrap();
    NewRoom::encrypted(room(format!("r{n:04}")), endpoint("ann"), NOW, sealed)
}

/// Fills a store until it reports that it is full. Returns how many rooms it took.
async fn fill(store: &SqliteStore) -> usize {
    for n in 0..2000 {
        let started = Instant::now();
        match store.create_room(large(n)).await {
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
                assert!(started.elapsed() < Duration::from_secs(5) + GRACE);
                return n;
            }
        }
    }
    panic!("never full");
}

#[tokio::test]
async fn a_full_store_refuses_writes_reads_on_and_recovers() {
    let (_dir, path) = new_path();
    let config = SqliteConfig { max_bytes: Some(400 * 1024), ..SqliteConfig::new(&path) };
    let store = SqliteStore::open(config).await.unwrap();
    store.add_user(user(1, false)).await.unwrap();
    let rooms = fill(&store).await;
    assert!(rooms > 10, "{rooms}");
    assert!(std::fs::metadata(&path).unwrap().len() <= 400 * 1024);
    // A write is made as a whole or not at all: the refused room has left no member and no key.
    assert!(matches!(store.room(&room(format!("r{rooms:04}"))).await, Err(Error::NotFound(_))));
    assert_eq!(store.rooms_of(&endpoint("ann"), Page::first()).await.unwrap().len(), rooms);
    assert_eq!(store.is_authorized(&key(1)).await, Decision::Allow);
    // Deleting a room makes room for another.
    store.delete_room(&room("r0000")).await.unwrap();
    store.create_room(large(rooms)).await.unwrap();
    store.close().await.unwrap();
    // Each client has a limit of its own.
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    store.create_room(large(9999)).await.unwrap();
    store.close().await.unwrap();
}

/// If writes share a transaction, only those that do not fit may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_does_not_fit_fails_alone() {
    let (_dir, path) = new_path();
    let config = SqliteConfig { max_bytes: Some(400 * 1024), ..SqliteConfig::new(&path) };
    let store = SqliteStore::open(config).await.unwrap();
    fill(&store).await;
    store.delete_room(&room("r0000")).await.unwrap();
    let store = Arc::new(store);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let calls: Vec<_> = (0..24)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                if n % 2 == 0 {
                    store.add_user(user(n, false)).await.is_ok()
                } else {
                    store.create_room(large(3000 + usize::try_from(n).unwrap())).await.is_ok()
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    other.execute_batch("ROLLBACK").unwrap();
    let mut rooms = 0;
    for (n, call) in calls.into_iter().enumerate() {
        let fitted = call.await.unwrap();
        if n % 2 == 0 {
            assert!(fitted, "user {n}");
        } else {
            rooms += usize::from(fitted);
        }
    }
    assert!(rooms < 12, "all rooms fitted");
    assert_eq!(store.users(Page::first()).await.unwrap().len(), 12);
    store.close().await.unwrap();
}

/// The operating system refuses to let a file grow, as it does on a full disk.
#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    if let Some(path) = child() {
        return blocking(async {
            let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
            store.add_user(user(1, false)).await.unwrap();
            let rooms = fill(&store).await;
            println!("took {rooms} rooms");
            assert!(rooms > 10, "{rooms}");
            assert_eq!(store.is_authorized(&key(1)).await, Decision::Allow);
            assert_eq!(store.rooms_of(&endpoint("ann"), Page::first()).await.unwrap().len(), rooms);
            store.close().await.unwrap();
        });
    }
    let (_dir, path) = new_path();
    // The limit is in units of 512 bytes. A write beyond the limit fails instead of killing the
    // process.
    let limit = "trap '' XFSZ; ulimit -f 1200;";
    let name = "space::a_full_disk_refuses_writes_and_loses_nothing";
    let program = std::env::current_exe().unwrap();
    let output = child_command(&program, name, limit, &path).output().unwrap();
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout);
    let rooms = said.split("took ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    blocking(async {
        let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        let there = store.rooms_of(&endpoint("ann"), Page::first()).await.unwrap();
        assert_eq!(there.len().to_string(), rooms);
        store.create_room(large(there.len())).await.unwrap();
        store.close().await.unwrap();
    });
}
