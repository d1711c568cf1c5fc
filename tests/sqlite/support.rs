//! Helpers of the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use membership::{
    Ciphertext, EndpointId, Epoch, Label, NewMember, NewRoom, NewUser, RoomId, Timestamp, UserKey,
};

/// How long a call may take beyond its deadline (clause TIME-1).
pub(crate) const GRACE: Duration = Duration::from_millis(250);

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn room(id: impl AsRef<str>) -> RoomId {
    RoomId::new(id).unwrap()
}

pub(crate) fn endpoint(id: impl AsRef<str>) -> EndpointId {
    EndpointId::new(id).unwrap()
}

pub(crate) fn sealed(text: impl AsRef<str>) -> Ciphertext {
    Ciphertext::new(text.as_ref()).unwrap()
}

pub(crate) fn key(n: u64) -> UserKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    bytes[24..].copy_from_slice(&n.to_be_bytes());
    UserKey::from_bytes(bytes)
}

pub(crate) fn user(n: u64, admin: bool) -> NewUser {
    NewUser { key: key(n), label: Label::new(format!("user {n}")).unwrap(), admin, added_at: NOW }
}

pub(crate) fn encrypted(id: &str, owner: &str) -> NewRoom {
    NewRoom::encrypted(room(id), endpoint(owner), NOW, sealed(format!("{owner} 1")))
}

pub(crate) fn member(id: impl AsRef<str>, epoch: u64) -> NewMember {
    let epoch = Epoch::new(epoch).unwrap();
    NewMember::sealed(endpoint(&id), NOW, epoch, sealed(format!("{} {epoch}", id.as_ref())))
}

/// A temporary directory, and the path of a store in it that does not exist yet.
pub(crate) fn new_path() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("members.db");
    (dir, path)
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sqlite").join(name)
}

/// A copy of a fixture: opening may change files beside the database.
pub(crate) fn copy_of_fixture(name: &str) -> (tempfile::TempDir, PathBuf) {
    let (dir, path) = new_path();
    std::fs::copy(fixture(name), &path).unwrap();
    (dir, path)
}

/// The seed in the variable `SEED`, or a new one. The seed is printed, so that a failure can be
/// repeated.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    println!("SEED={seed}");
    seed
}

/// Waits until `holds` returns true, at most ten seconds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The argument of this process, if it is the child of a test.
pub(crate) fn child() -> Option<PathBuf> {
    std::env::var_os("MEMBERSHIP_TEST_CHILD").map(PathBuf::from)
}

/// Makes the command that runs the test `name` of `program` as a child with `argument`.
///
/// The shell commands `prepare` run before it.
pub(crate) fn child_command(program: &Path, name: &str, prepare: &str, argument: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{prepare} exec \"$0\" \"$@\"")])
        .arg(program)
        .args(["--exact", "--nocapture", "--test-threads=1", name])
        .env("MEMBERSHIP_TEST_CHILD", argument);
    command
}

/// Checks that a child succeeded; the failure shows the child's output.
pub(crate) fn succeeded(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "child: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
}
