//! A past state of the file, written over the open one or put beside the log of a later one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use membership::{Decision, Error, Page, SqliteOptions, SqliteStore, Store};
use rstest::rstest;
use rusqlite::Connection;

use crate::place::{backup, store, with};
use crate::support::{NOW, fixture, key, new_path, user};

/// Writes over a file as an operator does, in another process: to close the file in this one would
/// drop the locks of the store.
fn write_over(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

fn checkpoint(path: &Path, how: &str) {
    let db = Connection::open(path).unwrap();
    db.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(())).unwrap();
}

/// What somebody writes over the file of an open store.
#[derive(Clone, Copy, Debug)]
enum Over {
    /// A copy made by VACUUM INTO before the revocation.
    Vacuumed,
    /// The file as it was before the revocation, with all that was in the log then.
    Copied,
    AnotherStore,
    AnotherApplication,
    Nothing,
    Garbage,
}

#[rstest]
#[tokio::test]
async fn a_file_that_was_written_over_while_it_is_open_lets_no_revoked_user_in(
    #[values(
        Over::Vacuumed,
        Over::Copied,
        Over::AnotherStore,
        Over::AnotherApplication,
        Over::Nothing,
        Over::Garbage
    )]
    over: Over,
    #[values(false, true)] checkpointed: bool,
) {
    let (dir, path) = new_path();
    store(&path).await.close().await.unwrap();
    let past = dir.path().join("past.db");
    match over {
        Over::Vacuumed => backup(&path, &past),
        Over::Copied => drop(fs::copy(&path, &past).unwrap()),
        Over::AnotherStore => {
            let other = store(&past).await;
            other.add_user(user(7, false)).await.unwrap();
            other.close().await.unwrap();
        }
        Over::AnotherApplication => drop(fs::copy(fixture("foreign.db"), &past).unwrap()),
        Over::Nothing => fs::write(&past, "").unwrap(),
        Over::Garbage => fs::write(&past, "garbage ".repeat(5000)).unwrap(),
    }
    let options = SqliteOptions::new().op_timeout(Duration::from_secs(1));
    let open = options.open(&path).await.unwrap();
    // Another client, whose connections have nothing in their caches.
    let idle = SqliteOptions::new().op_timeout(Duration::from_secs(1)).open(&path).await.unwrap();
    open.revoke_user(&key(2), NOW).await.unwrap();
    open.add_user(user(3, false)).await.unwrap();
    if checkpointed {
        checkpoint(&path, "PASSIVE");
        assert_eq!(open.is_authorized(&key(3)).await, Decision::Allow);
        assert_eq!(idle.is_authorized(&key(3)).await, Decision::Allow);
    }
    write_over(&past, &path);
    for client in [&open, &idle] {
        for _ in 0..2 {
            let decision = client.is_authorized(&key(2)).await;
            assert!(!decision.is_allowed(), "{decision:?}");
        }
    }
    // As the file was at the last checkpoint, the log has all that came since: nothing was lost.
    if matches!(over, Over::Copied) && !checkpointed {
        assert_eq!(open.is_authorized(&key(3)).await, Decision::Allow);
        assert_eq!(open.users(Page::first()).await.unwrap().len(), 3);
        return;
    }
    let error = open.add_user(user(4, false)).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error:?}");
    if matches!(over, Over::Vacuumed | Over::Copied | Over::AnotherStore) {
        assert!(error.to_string().contains("was overwritten with a"), "{error}");
    }
    open.user(&key(1)).await.unwrap_err();
    // What is there is what was put there: nothing of the old log gets into it.
    open.close().await.unwrap();
    idle.close().await.unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&past).unwrap(), "{over:?}");
}

/// SQLite brings the log into the file now and then, for whatever client or program.
#[rstest]
#[case("PASSIVE")]
#[case("FULL")]
#[case("RESTART")]
#[case("TRUNCATE")]
#[tokio::test]
async fn a_checkpoint_by_anybody_is_no_harm(#[case] how: &str) {
    let (_dir, path) = new_path();
    let open = store(&path).await;
    let other = SqliteStore::open(&path).await.unwrap();
    for round in 0..20 {
        let (one, two) = if round % 2 == 0 { (&open, &other) } else { (&other, &open) };
        one.add_user(user(100 + round, false)).await.unwrap();
        checkpoint(&path, how);
        assert_eq!(two.is_authorized(&key(100 + round)).await, Decision::Allow);
        two.revoke_user(&key(100 + round), NOW).await.unwrap();
        assert!(!one.is_authorized(&key(100 + round)).await.is_allowed());
    }
    open.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test]
async fn tables_that_others_add_while_it_is_open_are_no_harm() {
    let (_dir, path) = new_path();
    let open = store(&path).await;
    let tables = "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
                  CREATE TABLE _litestream_lock (id INTEGER);";
    Connection::open(&path).unwrap().execute_batch(tables).unwrap();
    checkpoint(&path, "PASSIVE");
    open.add_user(user(3, false)).await.unwrap();
    assert_eq!(open.is_authorized(&key(3)).await, Decision::Allow);
    open.close().await.unwrap();
}

/// A state that goes back by way of SQLite, as `.restore` has it: seen at the next write.
#[tokio::test]
async fn a_write_to_an_earlier_state_is_not_acknowledged() {
    let (_dir, path) = new_path();
    let open = store(&path).await;
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TEMP TABLE before AS SELECT * FROM lineage").unwrap();
    open.add_user(user(3, false)).await.unwrap();
    open.add_user(user(4, false)).await.unwrap();
    db.execute_batch(
        "UPDATE lineage SET (mark, sum) = (SELECT mark, sum FROM before);
         DELETE FROM users WHERE label = 'user 4';",
    )
    .unwrap();
    let error = open.add_user(user(5, false)).await.unwrap_err();
    assert!(error.to_string().contains("went back to an earlier state"), "{error}");
    assert!(!open.is_authorized(&key(1)).await.is_allowed());
    open.close().await.unwrap();
}

/// The files as a crash leaves them, under another name.
fn crash(path: &Path, to: &Path) -> PathBuf {
    for suffix in ["", "-wal"] {
        fs::copy(with(path, suffix), with(to, suffix)).unwrap();
    }
    to.to_owned()
}

/// A crash, then a backup put in the place of the file, and the log left there.
#[rstest]
#[case::an_earlier_state(true)]
#[case::a_later_state(false)]
#[tokio::test]
async fn a_log_of_another_time_is_refused_and_untouched(#[case] earlier: bool) {
    let (dir, path) = new_path();
    store(&path).await.close().await.unwrap();
    let past = dir.path().join("past.db");
    fs::copy(&path, &past).unwrap();
    let open = SqliteStore::open(&path).await.unwrap();
    open.add_user(user(3, false)).await.unwrap();
    let first = crash(&path, &dir.path().join("first.db"));
    // The next write begins the log anew.
    checkpoint(&path, "RESTART");
    open.revoke_user(&key(2), NOW).await.unwrap();
    let later = crash(&path, &dir.path().join("later.db"));
    open.close().await.unwrap();

    let file = if earlier {
        fs::copy(&past, &later).unwrap();
        later
    } else {
        fs::copy(&path, &first).unwrap();
        first
    };
    let files = || [fs::read(&file).unwrap(), fs::read(with(&file, "-wal")).unwrap()];
    let before = files();
    let error = SqliteStore::open(&file).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
    assert!(error.to_string().contains("does not go together with the log"), "{error}");
    assert!(files() == before);
}

#[rstest]
#[case("PASSIVE")]
#[case("RESTART")]
#[tokio::test]
async fn a_crash_before_and_after_a_checkpoint_leaves_a_log_that_belongs(#[case] how: &str) {
    let (dir, path) = new_path();
    let open = store(&path).await;
    for (round, at) in (10..).zip(["new", "checkpointed", "again"]) {
        open.add_user(user(round, false)).await.unwrap();
        let crashed = crash(&path, &dir.path().join(format!("{at}.db")));
        let found = SqliteStore::open(&crashed).await.unwrap();
        assert_eq!(found.is_authorized(&key(round)).await, Decision::Allow, "{at}");
        found.close().await.unwrap();
        checkpoint(&path, how);
        let crashed = crash(&path, &dir.path().join(format!("{at} 2.db")));
        let found = SqliteStore::open(&crashed).await.unwrap();
        assert_eq!(found.is_authorized(&key(round)).await, Decision::Allow, "{at}");
        found.close().await.unwrap();
    }
    open.close().await.unwrap();
}
