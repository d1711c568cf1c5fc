//! Closing stores, dropping stores and calls, and writes that share a commit.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::{Decision, DenyReason, Error, Page, SqliteConfig, SqliteStore, Store};
use rusqlite::Connection;

use crate::support::{GRACE, encrypted, key, member, new_path, room, until, user};

/// How many open files of this process are in `dir`.
fn open_files(dir: &Path) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter(|target| target.starts_with(dir))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_waits_for_calls_in_flight_and_releases_everything() {
    let (dir, path) = new_path();
    let store = Arc::new(SqliteStore::open(SqliteConfig::new(&path)).await.unwrap());
    assert_eq!(store.has_admin().await, Ok(false));
    let calls: Vec<_> = (0..64)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.add_user(user(n, false)).await })
        })
        .collect();
    let (first, second) = tokio::join!(store.close(), store.close());
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(open_files(dir.path()), 0);
    assert_eq!(store.close().await, Ok(()));
    assert_eq!(store.user(&key(1)).await, Err(Error::Closed));
    assert_eq!(store.add_user(user(99, false)).await, Err(Error::Closed));
    assert_eq!(
        store.is_authorized(&key(1)).await,
        Decision::Deny(DenyReason::Failed(Error::Closed))
    );

    let mut acknowledged = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => acknowledged += 1,
            Err(error) => assert_eq!(error, Error::Closed),
        }
    }
    let again = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    assert_eq!(again.users(Page::first()).await.unwrap().len(), acknowledged);
    again.close().await.unwrap();
}

#[tokio::test]
async fn close_ends_within_the_deadline_while_another_holds_the_lock() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let (_dir, path) = new_path();
    let config = SqliteConfig { op_timeout: TIMEOUT, ..SqliteConfig::new(&path) };
    let store = SqliteStore::open(config).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let started = Instant::now();
    let (added, closed) = tokio::join!(store.add_user(user(1, false)), store.close());
    assert_eq!((added, closed), (Err(Error::Timeout), Ok(())));
    assert!(started.elapsed() < TIMEOUT + GRACE, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_store_that_is_dropped_leaks_nothing_and_loses_nothing() {
    let (dir, path) = new_path();
    for n in 0..20 {
        let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        store.add_user(user(n, false)).await.unwrap();
        assert_eq!(store.is_authorized(&key(n)).await, Decision::Allow);
        assert!(open_files(dir.path()) > 0);
    }
    until("all files are closed", || open_files(dir.path()) == 0).await;
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    assert_eq!(store.users(Page::first()).await.unwrap().len(), 20);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_opening_that_is_given_up_leaks_nothing() {
    let (dir, path) = new_path();
    for _ in 0..20 {
        // The call is polled once, so that the thread was started, and then dropped.
        let mut opening = Box::pin(SqliteStore::open(SqliteConfig::new(&path)));
        std::future::poll_fn(|context| {
            drop(opening.as_mut().poll(context));
            std::task::Poll::Ready(())
        })
        .await;
    }
    until("all files are closed", || open_files(dir.path()) == 0).await;
    SqliteStore::open(SqliteConfig::new(&path)).await.unwrap().close().await.unwrap();
}

/// Sixty-four writes wait for a lock at once, so they share transactions. A write that fails must
/// not make others fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_fails_alone_in_its_group() {
    let (_dir, path) = new_path();
    let store = Arc::new(SqliteStore::open(SqliteConfig::new(&path)).await.unwrap());
    store.create_room(encrypted("r", "ann")).await.unwrap();
    for n in 0..32 {
        store.add_user(user(n, false)).await.unwrap();
    }
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let calls: Vec<_> = (0..64)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                if n % 16 == 7 {
                    let stale = store.add_member(&room("r"), member(format!("m{n}"), 5)).await;
                    assert!(matches!(stale, Err(Error::StaleEpoch { .. })), "{stale:?}");
                }
                store.add_user(user(n, false)).await.is_ok()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    other.execute_batch("ROLLBACK").unwrap();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), n >= 32, "user {n}");
    }
    assert_eq!(store.users(Page::first()).await.unwrap().len(), 64);
    assert_eq!(store.members(&room("r"), Page::first()).await.unwrap().len(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_is_not_begun() {
    let (_dir, path) = new_path();
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let gone = tokio::time::timeout(Duration::from_millis(30), store.add_user(user(1, false)));
    assert!(gone.await.is_err());
    other.execute_batch("ROLLBACK").unwrap();
    store.add_user(user(2, false)).await.unwrap();
    assert!(store.user(&key(1)).await.is_err());
    store.close().await.unwrap();
}

#[tokio::test]
async fn without_group_commit_every_write_is_stored() {
    let (_dir, path) = new_path();
    let config = SqliteConfig { group_commit: false, ..SqliteConfig::new(&path) };
    let store = SqliteStore::open(config).await.unwrap();
    let store = Arc::new(store);
    let calls: Vec<_> = (0..32)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.add_user(user(n, false)).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(store.users(Page::first()).await.unwrap().len(), 32);
    store.close().await.unwrap();
}
