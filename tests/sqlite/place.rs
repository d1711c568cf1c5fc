//! The database file, its names, its log and its shared memory belong together. A file is refused
//! if its log could not be found by each of its names. Files that are replaced, moved or removed
//! while they are open are noticed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use membership::{Decision, Error, Page, SqliteConfig, SqliteStore, Store};
use rstest::rstest;
use rusqlite::Connection;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::fixtures::current;
use crate::support::{NOW, encrypted, endpoint, key, new_path, room, user};

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A store with an admin, and a second user whose revocation must not be forgotten.
async fn store(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(SqliteConfig::new(path)).await.unwrap();
    store.bootstrap_admin(user(1, true)).await.unwrap();
    store.add_user(user(2, false)).await.unwrap();
    store.create_room(encrypted("ops", "ann")).await.unwrap();
    store
}

fn backup(path: &Path, to: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}

/// A bind mount, which is undone when this value is dropped.
struct Bound(PathBuf);

impl Bound {
    /// This test needs root, as in CI. Without root it fails rather than pass untested.
    fn new(from: &Path, to: &Path) -> Self {
        mount_bind(from, to).unwrap_or_else(|error| panic!("a bind mount, as root: {error}"));
        Self(to.to_owned())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

async fn refused(path: &Path) -> String {
    let error = SqliteStore::open(SqliteConfig::new(path)).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(
        error.to_string().starts_with(&format!("invalid path: {} ", path.display())),
        "{error}"
    );
    error.to_string()
}

#[tokio::test]
async fn a_file_that_is_a_mount_of_its_own_is_refused() {
    let (_dir, path) = new_path();
    store(&path).await.close().await.unwrap();
    let container = tempfile::tempdir().unwrap();
    let inside = container.path().join("members.db");
    fs::write(&inside, "").unwrap();
    {
        let _bound = Bound::new(&path, &inside);
        let said = refused(&inside).await;
        assert!(said.contains("mount the directory, not the file"), "{said}");
        assert!(!with(&inside, "-wal").exists());
    }
    // Mounting the directory is the right way, and must work.
    let _bound = Bound::new(path.parent().unwrap(), container.path());
    let one = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    let two = SqliteStore::open(SqliteConfig::new(&inside)).await.unwrap();
    one.revoke_user(&key(2), NOW).await.unwrap();
    assert_eq!(two.is_authorized(&key(2)).await, Decision::Deny(membership::DenyReason::Revoked));
    two.add_user(user(3, false)).await.unwrap();
    assert_eq!(one.is_authorized(&key(3)).await, Decision::Allow);
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test]
async fn a_file_with_a_second_name_is_refused() {
    let (_dir, path) = new_path();
    store(&path).await.close().await.unwrap();
    let other = path.with_file_name("other.db");
    fs::hard_link(&path, &other).unwrap();
    for name in [&path, &other] {
        assert!(refused(name).await.contains("has 2 names (hard links)"));
    }
    fs::remove_file(&other).unwrap();
    SqliteStore::open(SqliteConfig::new(&path)).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_symbolic_link_and_its_file_are_one_store() {
    let (dir, path) = new_path();
    let open = store(&path).await;
    let link = dir.path().join("link.db");
    symlink(&path, &link).unwrap();
    let linked = SqliteStore::open(SqliteConfig::new(&link)).await.unwrap();
    assert!(!with(&link, "-wal").exists());
    linked.revoke_user(&key(2), NOW).await.unwrap();
    assert!(!open.is_authorized(&key(2)).await.is_allowed());

    // From now on the link leads to another store.
    let other = dir.path().join("another.db");
    store(&other).await.close().await.unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&other, &link).unwrap();
    let error = linked.user(&key(1)).await.unwrap_err();
    assert!(error.to_string().contains("was replaced while"), "{error}");
    assert_eq!(open.is_authorized(&key(1)).await, Decision::Allow);

    fs::remove_file(&link).unwrap();
    symlink(dir.path().join("nothing"), &link).unwrap();
    assert!(refused(&link).await.contains("is a symbolic link to nothing"));
    linked.close().await.unwrap();
    open.close().await.unwrap();
}

/// What can happen to the files of an open store.
#[derive(Clone, Copy, Debug)]
enum Harm {
    BackupMovedOver,
    CopyMovedOver,
    Removed,
    MovedAway,
    Without(&'static str),
    Other(&'static str),
    DirectoryMovedAway,
    DirectoryReplaced,
    ParentMovedAway,
    FileMountedOver,
    DirectoryMountedOver,
}

/// Does the harm. Returns a mount that must live as long as the harm lasts.
fn harm(how: Harm, path: &Path, past: &Path) -> Option<Bound> {
    let directory = path.parent().unwrap();
    let away = past.with_file_name("away");
    match how {
        Harm::BackupMovedOver => fs::rename(past, path).unwrap(),
        Harm::CopyMovedOver => {
            let copy = with(path, "-copy");
            fs::copy(path, &copy).unwrap();
            fs::rename(&copy, path).unwrap();
        }
        Harm::Removed => fs::remove_file(path).unwrap(),
        Harm::MovedAway => fs::rename(path, away).unwrap(),
        Harm::Without(suffix) => fs::remove_file(with(path, suffix)).unwrap(),
        Harm::Other(suffix) => {
            let copy = with(path, "-copy");
            fs::copy(with(path, suffix), &copy).unwrap();
            fs::rename(&copy, with(path, suffix)).unwrap();
        }
        Harm::DirectoryMovedAway => fs::rename(directory, away).unwrap(),
        Harm::DirectoryReplaced => {
            fs::rename(directory, away).unwrap();
            fs::create_dir(directory).unwrap();
            fs::rename(past, path).unwrap();
        }
        Harm::ParentMovedAway => fs::rename(directory.parent().unwrap(), away).unwrap(),
        Harm::FileMountedOver => return Some(Bound::new(past, path)),
        Harm::DirectoryMountedOver => {
            let other = past.with_file_name("other");
            fs::create_dir(&other).unwrap();
            fs::rename(past, other.join("members.db")).unwrap();
            return Some(Bound::new(&other, directory));
        }
    }
    None
}

#[rstest]
#[case(Harm::BackupMovedOver)]
#[case(Harm::CopyMovedOver)]
#[case(Harm::Removed)]
#[case(Harm::MovedAway)]
#[case(Harm::Without("-wal"))]
#[case(Harm::Without("-shm"))]
#[case(Harm::Other("-wal"))]
#[case(Harm::Other("-shm"))]
#[case(Harm::DirectoryMovedAway)]
#[case(Harm::DirectoryReplaced)]
#[case(Harm::ParentMovedAway)]
#[case(Harm::FileMountedOver)]
#[case(Harm::DirectoryMountedOver)]
#[tokio::test]
async fn files_replaced_while_open_are_noticed_before_any_answer(
    #[case] how: Harm,
    #[values(false, true)] by_a_link: bool,
) {
    let dir = tempfile::tempdir().unwrap();
    let past = dir.path().join("past.db");
    let directory = dir.path().join("a/b");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("members.db");
    let given = if by_a_link { dir.path().join("link/b/members.db") } else { path.clone() };
    symlink(dir.path().join("a"), dir.path().join("link")).unwrap();

    let open = store(&given).await;
    backup(&path, &past);
    open.revoke_user(&key(2), NOW).await.unwrap();
    assert_eq!(open.is_authorized(&key(1)).await, Decision::Allow);

    let lasting = harm(how, &path, &past);
    for user in [1, 2] {
        let decision = open.is_authorized(&key(user)).await;
        let Decision::Deny(membership::DenyReason::Failed(error)) = &decision else {
            panic!("{decision:?}")
        };
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("and open it again"), "{error}");
    }
    assert!(!open.is_admin(&key(1)).await.is_allowed());
    open.has_admin().await.unwrap_err();
    open.room(&room("ops")).await.unwrap_err();
    open.latest_key(&room("ops"), &endpoint("ann")).await.unwrap_err();
    open.users(Page::first()).await.unwrap_err();
    let error = open.add_user(user(3, false)).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    open.bootstrap_admin(user(4, true)).await.unwrap_err();

    // The client stays unusable, whatever is at the path later, and leaves those files alone.
    drop(lasting);
    if !directory.exists() {
        fs::create_dir_all(&directory).unwrap();
    }
    fs::remove_file(&path).ok();
    fs::remove_file(with(&path, "-wal")).ok();
    fs::remove_file(with(&path, "-shm")).ok();
    let again = store(&path).await;
    open.user(&key(1)).await.unwrap_err();
    open.close().await.unwrap();
    again.add_user(user(5, false)).await.unwrap();
    assert_eq!(again.users(Page::first()).await.unwrap().len(), 3);
    again.close().await.unwrap();
    let again = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    assert_eq!(again.is_authorized(&key(5)).await, Decision::Allow);
    again.close().await.unwrap();
}

/// Writes race with the files being moved away. Each write must be in the moved files, or not be
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_are_in_the_files_that_were_moved_away() {
    for _ in 0..10 {
        let (dir, path) = new_path();
        let open = std::sync::Arc::new(store(&path).await);
        let past = dir.path().join("past.db");
        backup(&path, &past);
        let writer = tokio::spawn({
            let open = std::sync::Arc::clone(&open);
            async move {
                let mut number = 10;
                while open.add_user(user(number, false)).await.is_ok() {
                    number += 1;
                }
                number
            }
        });
        crate::support::until("some writes", || {
            fs::metadata(with(&path, "-wal")).unwrap().len() > 100_000
        })
        .await;
        // The files are moved to where the store is opened afterwards.
        let away = tempfile::tempdir_in(dir.path()).unwrap();
        for suffix in ["", "-wal", "-shm"] {
            fs::rename(with(&path, suffix), with(&away.path().join("members.db"), suffix)).unwrap();
        }
        let refused = writer.await.unwrap();
        open.close().await.unwrap();
        let moved =
            SqliteStore::open(SqliteConfig::new(away.path().join("members.db"))).await.unwrap();
        for number in 10..refused {
            assert_eq!(moved.is_authorized(&key(number)).await, Decision::Allow, "{number}");
        }
        moved.close().await.unwrap();
    }
}

#[tokio::test]
async fn other_files_in_the_directory_do_not_matter() {
    let (dir, path) = new_path();
    let open = store(&path).await;
    for round in 0..100 {
        let other = dir.path().join(format!("other {round}"));
        fs::write(&other, "x").unwrap();
        fs::rename(&other, dir.path().join("renamed")).unwrap();
        if round % 2 == 0 {
            fs::remove_file(dir.path().join("renamed")).unwrap();
        }
        let second = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        second.close().await.unwrap();
        assert_eq!(open.is_authorized(&key(1)).await, Decision::Allow);
    }
    open.close().await.unwrap();
}

#[tokio::test]
async fn a_path_longer_than_sqlite_takes_is_refused() {
    let (dir, _) = new_path();
    let of = |length: usize| {
        let mut path = dir.path().to_owned();
        while path.as_os_str().len() + 101 < length {
            path.push("d".repeat(100));
        }
        fs::create_dir_all(&path).unwrap();
        let rest = length - path.as_os_str().len() - 1;
        path.push("f".repeat(rest));
        assert_eq!(path.as_os_str().len(), length);
        path
    };
    let open = store(&of(504)).await;
    assert_eq!(open.is_authorized(&key(1)).await, Decision::Allow);
    open.close().await.unwrap();
    assert!(refused(&of(505)).await.contains("is 505 bytes long; SQLite takes at most 504"));
    assert!(refused(&dir.path().join("n".repeat(300))).await.contains("is too long"));
}

#[tokio::test]
async fn a_store_that_must_exist_is_not_made() {
    let (_dir, path) = new_path();
    let must = || SqliteConfig { must_exist: true, ..SqliteConfig::new(&path) };
    for before in [None, Some(0)] {
        if before.is_some() {
            fs::write(&path, "").unwrap();
        }
        let error = SqliteStore::open(must()).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains("holds no store, and must_exist says"), "{error}");
        assert_eq!(fs::metadata(&path).ok().map(|found| found.len()), before);
    }
    // The database has no table.
    Connection::open(&path).unwrap().execute_batch("VACUUM").unwrap();
    assert!(SqliteStore::open(must()).await.unwrap_err().to_string().contains("must_exist"));
    fs::remove_file(&path).unwrap();
    store(&path).await.close().await.unwrap();
    SqliteStore::open(must()).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_log_without_its_file_is_no_new_store() {
    for empty in [false, true] {
        let (dir, path) = new_path();
        let open = store(&path).await;
        let crashed = dir.path().join("crashed.db");
        fs::copy(with(&path, "-wal"), with(&crashed, "-wal")).unwrap();
        if empty {
            fs::write(&crashed, "").unwrap();
        }
        let before = fs::read(with(&crashed, "-wal")).unwrap();
        let error = SqliteStore::open(SqliteConfig::new(&crashed)).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
        assert!(error.to_string().contains("its log (-wal) is there"), "{error}");
        assert_eq!(fs::read(with(&crashed, "-wal")).unwrap(), before);
        open.close().await.unwrap();
    }
}

#[rstest]
#[case(None, 0o600)]
#[case(Some(0o660), 0o660)]
#[tokio::test]
async fn new_files_have_the_configured_mode(#[case] mode: Option<u32>, #[case] expected: u32) {
    use std::os::unix::fs::PermissionsExt as _;

    let (_dir, path) = new_path();
    let mut config = SqliteConfig::new(&path);
    config.mode = mode.unwrap_or(config.mode);
    let open = SqliteStore::open(config).await.unwrap();
    open.bootstrap_admin(user(1, true)).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let found = fs::metadata(with(&path, suffix)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, expected, "{suffix}");
    }
    open.close().await.unwrap();
}

#[rstest]
#[case(0o400)]
#[case(0o1600)]
#[case(600)]
#[tokio::test]
async fn an_illegal_mode_is_invalid(#[case] mode: u32) {
    let (_dir, path) = new_path();
    let config = SqliteConfig { mode, ..SqliteConfig::new(&path) };
    let error = SqliteStore::open(config).await.unwrap_err();
    assert!(error.to_string().starts_with("invalid mode: is 0o"), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn the_tables_of_litestream_are_no_damage() {
    let (_dir, path) = new_path();
    current(&path).await;
    let tables = "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
                  CREATE TABLE _litestream_lock (id INTEGER);";
    Connection::open(&path).unwrap().execute_batch(tables).unwrap();
    SqliteStore::open(SqliteConfig::new(&path)).await.unwrap().close().await.unwrap();
    let trigger = "CREATE TRIGGER _litestream_t AFTER UPDATE ON users BEGIN SELECT 1; END";
    Connection::open(&path).unwrap().execute_batch(trigger).unwrap();
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
}

/// `.dump` and `.clone` copy tables and records, but neither `application_id` nor `user_version`.
#[tokio::test]
async fn a_copy_without_its_application_id_is_refused_with_a_remedy() {
    let (_dir, path) = new_path();
    store(&path).await.close().await.unwrap();
    let db = Connection::open(&path).unwrap();
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    db.pragma_update(None, "application_id", 0).unwrap();
    db.pragma_update(None, "user_version", 0).unwrap();
    db.close().unwrap();
    let said = refused(&path).await;
    assert!(said.contains("a copy made by .dump or .clone loses it"), "{said}");
    let statement =
        format!("PRAGMA application_id = 1296192083 and PRAGMA user_version = {version}");
    assert!(said.contains(&statement), "{said}");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(&statement.replace(" and ", "; ")).unwrap();
    db.close().unwrap();
    let open = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    assert_eq!(open.is_authorized(&key(2)).await, Decision::Allow);
    open.close().await.unwrap();
}
