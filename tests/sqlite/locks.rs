//! Other processes that use the same file, and may hold its locks (clauses TIME-1, LIN-1).

use std::time::{Duration, Instant};

use membership::{Decision, Epoch, Error, Page, SqliteConfig, SqliteStore, Store};
use rusqlite::Connection;

use crate::fixtures::blocking;
use crate::support::{
    GRACE, child, child_command, encrypted, endpoint, key, member, new_path, room, succeeded, user,
};

const TIMEOUT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn while_another_holds_the_write_lock_reads_go_on_and_writes_time_out() {
    let (_dir, path) = new_path();
    let config = SqliteConfig { op_timeout: TIMEOUT, ..SqliteConfig::new(&path) };
    let store = SqliteStore::open(config.clone()).await.unwrap();
    store.add_user(user(1, false)).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let started = Instant::now();
    let (one, two) =
        tokio::join!(store.add_user(user(2, false)), store.create_room(encrypted("r", "ann")));
    let took = started.elapsed();
    assert_eq!((one, two), (Err(Error::Timeout), Err(Error::Timeout)));
    assert!(took >= TIMEOUT && took < TIMEOUT + GRACE, "{took:?}");

    assert_eq!(store.is_authorized(&key(1)).await, Decision::Allow);
    assert_eq!(store.users(Page::first()).await.unwrap().len(), 1);
    // A second client can be opened meanwhile.
    let second = SqliteStore::open(config).await.unwrap();
    assert_eq!(second.is_authorized(&key(1)).await, Decision::Allow);
    second.close().await.unwrap();

    other.execute_batch("ROLLBACK").unwrap();
    store.add_user(user(3, false)).await.unwrap();
    // The writes that timed out were never begun.
    assert_eq!(store.users(Page::first()).await.unwrap().len(), 2);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_write_waits_for_a_lock_that_is_given_back_in_time() {
    let (_dir, path) = new_path();
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let release = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        other.execute_batch("ROLLBACK").unwrap();
    };
    let (added, ()) = tokio::join!(store.add_user(user(1, false)), release);
    added.unwrap();
    store.close().await.unwrap();
}

/// An exclusive lock keeps readers out, too. Readers wait outside SQLite, until their deadline.
#[tokio::test]
async fn while_another_holds_the_file_exclusively_opening_times_out() {
    let (_dir, path) = new_path();
    let config = SqliteConfig { op_timeout: TIMEOUT, ..SqliteConfig::new(&path) };
    let store = SqliteStore::open(config.clone()).await.unwrap();
    store.add_user(user(1, false)).await.unwrap();
    store.close().await.unwrap();

    let other = Connection::open(&path).unwrap();
    other
        .execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; DELETE FROM rooms; COMMIT",
        )
        .unwrap();
    let started = Instant::now();
    let config = SqliteConfig { op_timeout: Duration::from_millis(30), ..config };
    assert_eq!(SqliteStore::open(config).await.unwrap_err(), Error::Timeout);
    assert!(started.elapsed() < Duration::from_millis(300) + GRACE);
    drop(other);
    SqliteStore::open(SqliteConfig::new(&path)).await.unwrap().close().await.unwrap();
}

/// Two processes add members to one room, and rekey it. All writes of both must be there
/// afterwards.
#[test]
fn two_processes_write_one_file() {
    const EACH: usize = 60;
    let name = "locks::two_processes_write_one_file";
    let work = |path: std::path::PathBuf, who: &'static str| async move {
        let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        for n in 0..EACH {
            // The other process may rekey the room in between.
            loop {
                let epoch = store.room(&room("ops")).await.unwrap().epoch;
                match store
                    .add_member(&room("ops"), member(format!("{who} {n}"), epoch.get()))
                    .await
                {
                    Err(Error::StaleEpoch { current }) => assert!(current > epoch),
                    added => break drop(added.unwrap()),
                }
            }
            if n % 20 == 10 {
                let members = store.members(&room("ops"), Page::first()).await.unwrap();
                let keys = members.into_iter().map(|m| (m.endpoint, crate::support::sealed(who)));
                let from = store.room(&room("ops")).await.unwrap().epoch;
                let rekey = membership::Rekey::new(from, [], keys).unwrap();
                match store.rekey(&room("ops"), rekey).await {
                    Ok(_) | Err(Error::StaleEpoch { .. } | Error::Conflict(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        store.close().await.unwrap();
    };
    if let Some(path) = child() {
        return blocking(work(path, "child"));
    }
    let (_dir, path) = new_path();
    blocking(async {
        let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        store.create_room(encrypted("ops", "ann")).await.unwrap();
        store.close().await.unwrap();
    });
    let program = std::env::current_exe().unwrap();
    let process = child_command(&program, name, "", &path)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    blocking(work(path.clone(), "parent"));
    succeeded(&process.wait_with_output().unwrap());
    blocking(async {
        let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        let members = store.members(&room("ops"), Page::first()).await.unwrap();
        assert_eq!(members.len(), 2 * EACH + 1);
        for member in members {
            store.latest_key(&room("ops"), &member.endpoint).await.unwrap();
        }
        let first = store.key(&room("ops"), &endpoint("ann"), Epoch::FIRST).await.unwrap();
        assert_eq!(first.ciphertext, crate::support::sealed("ann 1"));
        store.close().await.unwrap();
    });
}
