//! Files that may be found at the path of a store: other databases, damaged ones, older and newer
//! ones (clause DUR-3).

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use membership::{Decision, Epoch, Error, Page, SqliteConfig, SqliteStore, Store, Timestamp};
use rstest::rstest;
use rusqlite::Connection;

use crate::fixtures::{blocking, current};
use crate::support::{
    child, child_command, copy_of_fixture, endpoint, fixture, key, new_path, room, sealed,
    succeeded, user,
};

/// The files of a directory, each with its length and a hash of its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (usize, u64)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_file())
        .map(|path| {
            let bytes = fs::read(&path).unwrap();
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            (path, (bytes.len(), hasher.finish()))
        })
        .collect()
}

#[rstest]
#[case::another_applications(
    "foreign.db",
    "invalid path: PATH is another application's database (application_id 0x47504b47); give the path of a file that is ours or new"
)]
#[case::newer(
    "newer.db",
    "invalid path: PATH was written by a newer version (schema 99; this one knows 2); upgrade this program"
)]
#[case::truncated(
    "truncated.db",
    "corrupt database PATH: database disk image is malformed; restore it from a backup"
)]
#[tokio::test]
async fn a_file_that_cannot_be_ours_is_refused_and_untouched(
    #[case] name: &str,
    #[case] message: &str,
) {
    let (dir, path) = copy_of_fixture(name);
    let before = contents(dir.path());
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert_eq!(error.to_string(), message.replace("PATH", path.to_str().unwrap()));
    assert_eq!(contents(dir.path()), before);
}

#[rstest]
#[case::none(0)]
#[case::negative(-1)]
#[tokio::test]
async fn an_impossible_version_is_corrupt_and_untouched(#[case] version: i64) {
    let (dir, path) = new_path();
    SqliteStore::open(SqliteConfig::new(&path)).await.unwrap().close().await.unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", version).unwrap();
    connection.close().unwrap();
    let before = contents(dir.path());
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    let message = format!(
        "corrupt database {}: has the schema version {version}, which there never was; restore it \
         from a backup",
        path.display()
    );
    assert_eq!(error.to_string(), message);
    assert_eq!(contents(dir.path()), before);
}

#[rstest]
#[case::text(b"to be or not to be".to_vec())]
#[case::long_text(b"to be or not to be".repeat(1000))]
#[case::zeros(vec![0; 8192])]
#[case::half_a_header(fs::read(fixture("newer.db")).unwrap()[..50].to_vec())]
#[case::half_a_page(fs::read(fixture("newer.db")).unwrap()[..1000].to_vec())]
#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt_and_untouched(#[case] bytes: Vec<u8>) {
    let (dir, path) = new_path();
    fs::write(&path, bytes).unwrap();
    let before = contents(dir.path());
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(contents(dir.path()), before);
}

#[tokio::test]
async fn a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = SqliteStore::open(SqliteConfig::new(dir.path())).await.unwrap_err();
    let path = dir.path().display();
    assert_eq!(
        error.to_string(),
        format!("invalid path: {path} is a directory; give the path of a file")
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_not_regular_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    let path = path.display();
    assert_eq!(
        error.to_string(),
        format!("invalid path: {path} is no regular file; give the path of one")
    );
}

#[rstest]
#[case::empty("")]
#[case::nul("a\0b")]
#[tokio::test]
async fn an_illegal_path_is_invalid(#[case] path: &str) {
    let error = SqliteStore::open(SqliteConfig::new(path)).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
}

#[tokio::test]
async fn a_directory_that_is_missing_is_named() {
    let (dir, _) = new_path();
    let path = dir.path().join("no such directory/members.db");
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn names_that_sqlite_treats_specially_are_files() {
    let (dir, _) = new_path();
    for name in [":memory:", "file:members.db?mode=memory", "a%20b?c#d"] {
        let path = dir.path().join(name);
        let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        store.add_user(user(1, false)).await.unwrap();
        store.close().await.unwrap();
        assert!(path.is_file(), "{name}");
    }
}

/// Root may write everywhere. So if the tests run as root, the child runs as another user.
#[test]
fn an_unwritable_file_is_refused_and_untouched() {
    if let Some(path) = child() {
        let error = blocking(SqliteStore::open(SqliteConfig::new(&path))).unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        return;
    }
    let (dir, path) = new_path();
    blocking(current(&path));
    let before = contents(dir.path());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();

    // The directory is one from which that user may run the test.
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = shared.path().join("child");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let name = "files::an_unwritable_file_is_refused_and_untouched";
    let mut command = child_command(&program, name, "", &path);
    let root = fs::OpenOptions::new().append(true).open(&program).is_ok()
        && fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    if root {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    succeeded(&output);
    assert_eq!(contents(dir.path()), before);
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let (_dir, path) = new_path();
    fs::write(&path, b"").unwrap();
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    assert_eq!(store.has_admin().await, Ok(false));
    store.close().await.unwrap();
}

/// The database of another program that crashed with writes in its log. No byte of the database,
/// the log or the shared memory may change, by whatever name the database is opened. No file may
/// appear or disappear.
#[rstest]
#[case::all_in_the_log("", &["", "-wal"])]
#[case::with_shared_memory("", &["", "-wal", "-shm"])]
#[case::checkpointed("PRAGMA wal_checkpoint; INSERT INTO t VALUES (2);", &["", "-wal", "-shm"])]
#[tokio::test]
async fn another_applications_log_is_untouched(
    #[case] more: &str,
    #[case] files: &[&str],
    #[values(false, true)] by_a_link: bool,
) {
    let (dir, path) = new_path();
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);")
        .unwrap();
    other.execute_batch(more).unwrap();
    let crashed = tempfile::tempdir().unwrap();
    for suffix in files {
        let name = format!("members.db{suffix}");
        fs::copy(dir.path().join(&name), crashed.path().join(&name)).unwrap();
    }
    let file = crashed.path().join("members.db");
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("link.db");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let before = contents(crashed.path());
    let error = SqliteStore::open(SqliteConfig::new(if by_a_link { &link } else { &file }))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("is another application's database"), "{error}");
    assert_eq!(contents(crashed.path()), before);
    assert_eq!(contents(links.path()).len(), 1);
}

/// A store that crashed before its first checkpoint: all its records are in its log.
#[tokio::test]
async fn a_store_that_is_all_in_its_log_opens() {
    let (dir, path) = new_path();
    let old = Connection::open(&path).unwrap();
    old.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    old.execute_batch("BEGIN").unwrap();
    old.execute_batch(crate::fixtures::VERSION_1).unwrap();
    old.execute_batch("PRAGMA application_id = 0x4D425253; PRAGMA user_version = 1; COMMIT")
        .unwrap();
    let crashed = dir.path().join("crashed.db");
    fs::copy(&path, &crashed).unwrap();
    assert_eq!(fs::metadata(&crashed).unwrap().len(), 4096);
    fs::copy(dir.path().join("members.db-wal"), dir.path().join("crashed.db-wal")).unwrap();
    let store = SqliteStore::open(SqliteConfig::new(&crashed)).await.unwrap();
    assert_eq!(store.has_admin().await, Ok(false));
    store.close().await.unwrap();
}

#[tokio::test]
async fn changed_tables_are_corrupt() {
    for change in [
        "CREATE TRIGGER t AFTER UPDATE ON users BEGIN UPDATE users SET revoked = 0; END",
        "DROP INDEX active_admins",
        "ALTER TABLE users ADD COLUMN note TEXT",
        "CREATE TABLE mine (x)",
    ] {
        let (_dir, path) = new_path();
        current(&path).await;
        Connection::open(&path).unwrap().execute_batch(change).unwrap();
        let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{change}: {error:?}");
    }
}

#[tokio::test]
async fn statistics_of_analyze_are_no_damage() {
    let (_dir, path) = new_path();
    current(&path).await;
    Connection::open(&path).unwrap().execute_batch("ANALYZE").unwrap();
    SqliteStore::open(SqliteConfig::new(&path)).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn version_1_is_brought_forward() {
    let (_dir, path) = copy_of_fixture("v1.db");
    // The file is opened twice: the second time there is nothing left to migrate.
    for _ in 0..2 {
        let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        let ops = store.room(&room("ops")).await.unwrap();
        assert_eq!((ops.epoch.get(), ops.rekey_due), (2, true));
        assert_eq!(
            store.room(&room("town square")).await.unwrap().created_at,
            Timestamp::from_millis(-5)
        );
        assert_eq!(store.members(&room("ops"), Page::first()).await.unwrap().len(), 2);
        assert_eq!(store.rooms_of(&endpoint("bob"), Page::first()).await.unwrap().len(), 2);
        let first = store.key(&room("ops"), &endpoint("ann"), Epoch::FIRST).await.unwrap();
        assert_eq!(first.ciphertext, sealed("\u{1}"));
        assert_eq!(store.users(Page::first()).await.unwrap().len(), 3);
        assert_eq!(store.has_admin().await, Ok(true));
        assert_eq!(store.is_admin(&key(1)).await, Decision::Allow);
        assert_eq!(store.is_authorized(&key(2)).await, Decision::Allow);
        assert!(!store.is_authorized(&key(3)).await.is_allowed());
        store.close().await.unwrap();
    }
}

#[rstest]
#[case::epoch_below("epoch = -1", "negative epoch")]
#[case::epoch_above("epoch = 9007199254740992", "at most 9007199254740991 is allowed")]
#[case::flag("rekey_due = 2", "is neither 0 nor 1")]
#[tokio::test]
async fn a_migration_that_meets_damage_changes_nothing(#[case] damage: &str, #[case] said: &str) {
    let (dir, path) = copy_of_fixture("v1.db");
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "ignore_check_constraints", true).unwrap();
    db.execute_batch(&format!("UPDATE rooms SET {damage} WHERE id = 'ops'")).unwrap();
    db.close().unwrap();
    let before = contents(dir.path());
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert!(error.to_string().contains(said), "{error}");
    assert_eq!(contents(dir.path()), before);
}

#[tokio::test]
async fn concurrent_openings_make_one_store() {
    let (_dir, path) = new_path();
    let opening: Vec<_> = (0..8)
        .map(|n| {
            let path = path.clone();
            tokio::spawn(async move {
                let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
                store.add_user(user(n, false)).await.unwrap();
                store.close().await.unwrap();
            })
        })
        .collect();
    for task in opening {
        task.await.unwrap();
    }
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    assert_eq!(store.users(Page::first()).await.unwrap().len(), 8);
    store.close().await.unwrap();
}

/// A creation that is killed half-way leaves files of which the next opening makes a store.
#[test]
fn a_killed_creation_is_completed_by_the_next_opening() {
    if let Some(path) = child() {
        println!("begun");
        return blocking(async {
            SqliteStore::open(SqliteConfig::new(&path)).await.unwrap().close().await.unwrap();
        });
    }
    let mut random = fastrand::Rng::with_seed(crate::support::seed());
    let program = std::env::current_exe().unwrap();
    let name = "files::a_killed_creation_is_completed_by_the_next_opening";
    for _ in 0..40 {
        let (_dir, path) = new_path();
        let mut process = child_command(&program, name, "", &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("begun")));
        // A creation takes some milliseconds, so the kills come at all stages.
        std::thread::sleep(Duration::from_micros(random.u64(..8000)));
        process.kill().unwrap();
        process.wait().unwrap();
        blocking(async {
            let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
            store.bootstrap_admin(user(1, true)).await.unwrap();
            store.close().await.unwrap();
        });
    }
}
