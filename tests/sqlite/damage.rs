//! Damaged and edited records are noticed and named, and let nobody in (clauses ERR-3, AUTH-2).

use membership::{Decision, DenyReason, Epoch, Error, Page, SqliteConfig, SqliteStore, Store};
use rstest::rstest;
use rusqlite::Connection;

use crate::fixtures::current;
use crate::support::{self, NOW, copy_of_fixture, endpoint, key, new_path, room, user};

fn corrupt<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Corrupt(corrupt)) => format!("{} {}", corrupt.place(), corrupt.key()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_flipped_bit_does_not_let_a_revoked_user_in() {
    let (_dir, path) = copy_of_fixture("flipped.db");
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    let decision = store.is_authorized(&key(3)).await;
    assert!(
        matches!(&decision, Decision::Deny(DenyReason::Failed(Error::Corrupt(_)))),
        "{decision:?}"
    );
    assert_eq!(corrupt(store.user(&key(3)).await), format!("users {}", key(3)));
    assert_eq!(corrupt(store.users(Page::first()).await), format!("users {}", key(3)));
    assert_eq!(corrupt(store.revoke_user(&key(3), NOW).await), format!("users {}", key(3)));
    // The records of the other users are sound.
    assert_eq!(store.is_authorized(&key(2)).await, Decision::Allow);
    assert_eq!(store.has_admin().await, Ok(true));
    store.close().await.unwrap();
}

/// Each edit leaves a record that SQLite reads without complaint.
#[rstest]
#[case("UPDATE users SET admin = 1 WHERE label = 'user 2'")]
#[case("UPDATE users SET label = 'root' WHERE label = 'user 2'")]
#[case("UPDATE users SET added_at = added_at + 1")]
#[case("UPDATE users SET revoked = 0, revoked_at = NULL WHERE label = 'user 3'")]
#[case("UPDATE users SET sum = sum + 1")]
#[case("UPDATE users SET key = x'00' WHERE label = 'user 2'")]
#[case("UPDATE users SET label = CAST(x'ff' AS TEXT)")]
#[case("UPDATE users SET revoked = 2")]
#[case("INSERT INTO revocations SELECT key FROM users WHERE label = 'user 2'")]
#[tokio::test]
async fn an_edited_user_is_corrupt(#[case] edit: &str) {
    let (_dir, path) = new_path();
    current(&path).await;
    Connection::open(&path)
        .unwrap()
        .execute_batch(&format!("PRAGMA foreign_keys = OFF; {edit}"))
        .unwrap();
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    corrupt(store.users(Page::first()).await);
    store.close().await.unwrap();
}

/// Each edit damages one of the two places that store a fact: the revocations beside the users, or
/// the bootstrap's record beside the admins.
#[rstest]
#[case("DELETE FROM revocations")]
#[case("UPDATE bootstrap SET admin_made = 0")]
#[case("DELETE FROM bootstrap")]
#[case("UPDATE bootstrap SET sum = sum + 1")]
#[case("DELETE FROM users WHERE admin = 1")]
#[tokio::test]
async fn two_witnesses_that_disagree_are_corrupt(#[case] edit: &str) {
    let (_dir, path) = new_path();
    current(&path).await;
    Connection::open(&path).unwrap().execute_batch(edit).unwrap();
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    if edit.contains("revocations") {
        assert!(!store.is_authorized(&key(3)).await.is_allowed());
        corrupt(store.user(&key(3)).await);
    } else {
        corrupt(store.has_admin().await);
        corrupt(store.bootstrap_admin(user(9, true)).await);
    }
    store.close().await.unwrap();
}

#[rstest]
#[case("UPDATE rooms SET epoch = 2")]
#[case("UPDATE rooms SET owner = 'bob'")]
#[case("UPDATE rooms SET encrypted = 0, epoch = 0, rekey_due = 0")]
#[tokio::test]
async fn an_edited_room_is_corrupt(#[case] edit: &str) {
    let (_dir, path) = new_path();
    current(&path).await;
    Connection::open(&path).unwrap().execute_batch(edit).unwrap();
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    let (ops, ann) = (room("ops"), endpoint("ann"));
    let expected = "rooms \"ops\"";
    assert_eq!(corrupt(store.room(&ops).await), expected);
    assert_eq!(corrupt(store.members(&ops, Page::first()).await), expected);
    assert_eq!(corrupt(store.rooms_of(&ann, Page::first()).await), expected);
    assert_eq!(corrupt(store.latest_key(&ops, &ann).await), expected);
    assert_eq!(corrupt(store.delete_room(&ops).await), expected);
    assert_eq!(corrupt(store.remove_member(&ops, &endpoint("bob")).await), expected);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_edited_member_or_key_is_corrupt() {
    let (_dir, path) = new_path();
    current(&path).await;
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "UPDATE members SET owner = 1 WHERE endpoint = 'bob';
             UPDATE room_keys SET ciphertext = x'00' WHERE endpoint = 'ann'",
        )
        .unwrap();
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    let (ops, ann, bob) = (room("ops"), endpoint("ann"), endpoint("bob"));
    assert_eq!(corrupt(store.member(&ops, &bob).await), "members \"ops\" \"bob\"");
    assert_eq!(corrupt(store.members(&ops, Page::first()).await), "members \"ops\" \"bob\"");
    assert_eq!(corrupt(store.rooms_of(&bob, Page::first()).await), "members of \"bob\"");
    assert_eq!(corrupt(store.latest_key(&ops, &ann).await), "room_keys \"ops\" 1 \"ann\"");
    let first = store.key(&ops, &ann, Epoch::FIRST).await;
    assert_eq!(corrupt(first), "room_keys \"ops\" 1 \"ann\"");
    store.close().await.unwrap();
}

/// Changes single bytes of the file at random. A user who was denied must stay denied, and
/// `has_admin` must never return `false`.
#[tokio::test]
async fn no_flipped_byte_lets_anybody_in() {
    const SAMPLE: usize = 1200;
    let mut random = fastrand::Rng::with_seed(support::seed());
    let (_dir, path) = new_path();
    grown(&path).await;
    let sound = std::fs::read(&path).unwrap();
    // The bytes are every third byte of a page that holds revoked users, and a sample of all
    // others.
    let needle = key(REVOKED.start).as_bytes().to_vec();
    let page = sound.windows(32).position(|window| window == needle).unwrap() / 4096 * 4096;
    let places =
        (page..page + 4096).step_by(3).chain((0..SAMPLE).map(|_| random.usize(..sound.len())));
    let mut opened = 0;
    for place in places.collect::<Vec<_>>() {
        let flip = random.u8(1..);
        let mut bytes = sound.clone();
        bytes[place] ^= flip;
        let (_dir, path) = new_path();
        std::fs::write(&path, bytes).unwrap();
        let Ok(store) = SqliteStore::open(SqliteConfig::new(&path)).await else { continue };
        opened += 1;
        let what = format!("byte {place} ^ {flip}");
        for n in REVOKED.chain(UNKNOWN) {
            assert!(!store.is_authorized(&key(n)).await.is_allowed(), "{what}: user {n}");
        }
        for n in REVOKED.chain(PLAIN).chain(UNKNOWN) {
            assert!(!store.is_admin(&key(n)).await.is_allowed(), "{what}: admin {n}");
        }
        assert_ne!(store.has_admin().await, Ok(false), "{what}");
        store.close().await.unwrap();
    }
    assert!(opened > SAMPLE / 2, "only {opened} damaged files could be opened");
}

const PLAIN: std::ops::Range<u64> = 1..60;
const REVOKED: std::ops::Range<u64> = 60..100;
const UNKNOWN: std::ops::Range<u64> = 100..110;

/// Makes a store whose pages are split and full, with revocations that came after that.
async fn grown(path: &std::path::Path) {
    let store = SqliteStore::open(SqliteConfig::new(path)).await.unwrap();
    store.bootstrap_admin(user(0, true)).await.unwrap();
    for n in PLAIN.chain(REVOKED) {
        store.add_user(user(n, false)).await.unwrap();
    }
    for n in REVOKED {
        store.revoke_user(&key(n), NOW).await.unwrap();
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_revoked_admin_in_the_index_is_not_an_admin() {
    let (_dir, path) = new_path();
    let (gone, stays) = if key(1) < key(2) { (1, 2) } else { (2, 1) };
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    store.bootstrap_admin(user(gone, true)).await.unwrap();
    store.add_user(user(stays, true)).await.unwrap();
    store.revoke_user(&key(gone), NOW).await.unwrap();
    store.close().await.unwrap();

    // The index is replaced by one over all admins, which is declared as the original one.
    let db = Connection::open(&path).unwrap();
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'active_admins'";
    let sql: String = db.query_row(sql, [], |row| row.get(0)).unwrap();
    let all = "DROP INDEX active_admins;
               CREATE INDEX active_admins ON users (key) WHERE admin = 1;
               PRAGMA writable_schema = ON;";
    db.execute_batch(all).unwrap();
    let set = "UPDATE sqlite_schema SET sql = ?1 WHERE name = 'active_admins'";
    assert_eq!(db.execute(set, [sql]), Ok(1));
    db.close().unwrap();

    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    assert_eq!(corrupt(store.has_admin().await), format!("users {}", key(gone)));
    assert!(!store.is_admin(&key(gone)).await.is_allowed());
    store.close().await.unwrap();
}
