//! One of three servers comes back with damaged files: bits flipped, tails cut off, or older files. The damages are
//! those of Jepsen's report on NATS 2.12.1, and of the issues that followed from it (nats-io/nats-server 7545, 7549,
//! 7556). Clients are open meanwhile. Whatever the servers make of the files, no revoked user may be let in, and no id
//! that was taken may be free. Each answer must be right, a denial, or an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use membership::{
    Ciphertext, Decision, DenyReason, EndpointId, Epoch, Error, JetStreamConfig, JetStreamStore,
    NewRoom, ReadMode, Rekey, RoomId, Store, Timestamp, UserKey,
};
use nats_cluster::{Cluster, ClusterOptions};
use tokio::time::Instant;

use crate::cluster::user;
use crate::rng::Rng;
use crate::together::make_room;

const TIMEOUT: Duration = Duration::from_secs(1);
const PREFIX: &str = "d-";
const BOUND: Duration = Duration::from_secs(1);
/// The server that is damaged.
const HURT: usize = 2;

const AT: Timestamp = Timestamp::from_millis(1);

fn key(n: u8) -> UserKey {
    user(n, false).key
}

/// The user that is revoked before the damage.
const REVOKED: u8 = 2;
/// The user that is revoked while the damaged server is back.
const REVOKED_LATER: u8 = 3;
/// The user that is never revoked.
const ACTIVE: u8 = 4;
/// The user that is never added.
const STRANGER: u8 = 99;

fn who(n: u8) -> EndpointId {
    format!("endpoint {n}").parse().unwrap()
}

fn ops() -> RoomId {
    "ops".parse().unwrap()
}

pub(crate) async fn open(
    cluster: &Cluster,
    nodes: &[usize],
    read_mode: ReadMode,
) -> Result<JetStreamStore, Error> {
    let urls = nodes.iter().map(|node| cluster.client_url(*node).unwrap());
    let replicas = u8::try_from(cluster.size().min(3)).unwrap();
    let config = JetStreamConfig {
        prefix: PREFIX.to_owned(),
        replicas,
        op_timeout: TIMEOUT,
        read_mode,
        ..JetStreamConfig::new(urls)
    };
    JetStreamStore::open(config).await
}

/// Repeats a call until its outcome is known.
pub(crate) async fn surely<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match call().await {
            Ok(value) => return value,
            Err(error) if error.outcome_unknown() && Instant::now() < deadline => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// Three servers, and clients at each of them.
struct Scene {
    cluster: Cluster,
    long_lived: Vec<(String, JetStreamStore)>,
    /// How often each answer was given, for the log.
    answers: BTreeMap<String, usize>,
    /// Whether `REVOKED_LATER` is revoked already.
    later: bool,
    wrong: Vec<String>,
}

impl Scene {
    /// Makes users and a room, opens clients, and then makes the changes that must not be undone: a revocation, a
    /// removal and a rekey. `before` runs before these changes.
    async fn new(before: impl AsyncFnOnce(&Cluster)) -> Self {
        let cluster = Cluster::start(ClusterOptions::servers(3)).await.unwrap();
        let store = open(&cluster, &[0, 1], ReadMode::Linearizable).await.unwrap();
        store.bootstrap_admin(user(1, true)).await.unwrap();
        for n in REVOKED..10 {
            store.add_user(user(n, false)).await.unwrap();
        }
        make_room(&store, &ops(), 3).await;
        same_everywhere(&cluster).await;
        before(&cluster).await;
        let mut long_lived = Vec::new();
        for node in 0..3 {
            for mode in [ReadMode::Linearizable, ReadMode::BoundedStaleness { bound: BOUND }] {
                let name = format!("long-lived {mode:?} at n{node}");
                let store = open(&cluster, &[node], mode).await.unwrap();
                surely(&name, async || match store.is_authorized(&key(REVOKED)).await {
                    Decision::Allow => Ok(()),
                    Decision::Deny(DenyReason::Failed(error)) => Err(error),
                    Decision::Deny(_) => panic!("{name}: denied"),
                })
                .await;
                long_lived.push((name, store));
            }
        }
        surely("revoke", async || store.revoke_user(&key(REVOKED), AT).await).await;
        surely("remove", async || match store.remove_member(&ops(), &who(2)).await {
            Err(Error::NotFound(_)) => Ok(()),
            other => other,
        })
        .await;
        surely("rekey", async || {
            let sealed = |n| (who(n), Ciphertext::new(format!("{n} at 2")).unwrap());
            let rekey = Rekey::new(Epoch::FIRST, [], [0, 1].map(sealed)).unwrap();
            match store.rekey(&ops(), rekey).await {
                Err(Error::StaleEpoch { .. }) => Ok(()),
                other => other.map(drop),
            }
        })
        .await;
        // A client in the bounded mode may allow the revoked user until then.
        tokio::time::sleep(BOUND).await;
        store.close().await.unwrap();
        same_everywhere(&cluster).await;
        let (answers, wrong) = (BTreeMap::new(), Vec::new());
        Self { cluster, long_lived, answers, later: false, wrong }
    }

    /// Asks the open clients, and new ones, every question whose wrong answer lets someone in.
    async fn ask(&mut self, when: &str) {
        let mut fresh = Vec::new();
        for node in 0..3 {
            for mode in [ReadMode::Linearizable, ReadMode::BoundedStaleness { bound: BOUND }] {
                let name = format!("fresh {mode:?} at n{node}");
                let nodes = [node];
                let opened = open(&self.cluster, &nodes, mode);
                match tokio::time::timeout(10 * TIMEOUT, opened).await {
                    Ok(Ok(store)) => fresh.push((name, store)),
                    Ok(Err(error)) => self.note(&format!("{when}: {name} opens: {error}")),
                    Err(_) => self.note(&format!("{when}: {name} does not open in time")),
                }
            }
        }
        let long_lived = std::mem::take(&mut self.long_lived);
        for (name, store) in long_lived.iter().chain(&fresh) {
            self.judge(&format!("{when}: {name}"), store).await;
        }
        self.long_lived = long_lived;
        for (_, store) in fresh {
            store.close().await.unwrap();
        }
    }

    async fn judge(&mut self, whom: &str, store: &JetStreamStore) {
        let (room, two) = (ops(), who(2));
        let (revoked, later, active, stranger) =
            (key(REVOKED), key(REVOKED_LATER), key(ACTIVE), key(STRANGER));
        let (revoked, later, active, stranger, has_admin, found, member, latest, listed) = tokio::join!(
            store.is_authorized(&revoked),
            store.is_authorized(&later),
            store.is_authorized(&active),
            store.is_authorized(&stranger),
            store.has_admin(),
            store.room(&room),
            store.member(&room, &two),
            store.latest_key(&room, &two),
            store.rooms_of(&two, membership::Page::first()),
        );
        let said = format!(
            "revoked {revoked:?}, later {later:?}, active {active:?}, has_admin {has_admin:?}, room \
             {:?}, member {:?}, key {:?}, rooms {:?}",
            found.as_ref().map(|room| room.epoch),
            member.as_ref().map(|_| ()),
            latest.as_ref().map(|_| ()),
            listed.as_ref().map(Vec::len),
        );
        self.note(&format!("{whom}: {said}"));
        let wrong = [
            (revoked.is_allowed(), "a revoked user is let in"),
            (self.later && later.is_allowed(), "a user revoked since is let in"),
            (stranger.is_allowed(), "a stranger is let in"),
            (matches!(has_admin, Ok(false)), "the bootstrap is free"),
            (found.is_ok_and(|room| room.epoch != Epoch::new(2).unwrap()), "a stale room is shown"),
            (member.is_ok(), "a removed endpoint is a member"),
            (latest.is_ok(), "a removed member has a key"),
            (listed.is_ok_and(|rooms| !rooms.is_empty()), "a removed member has a listed room"),
        ];
        for (holds, what) in wrong {
            if holds {
                self.wrong.push(format!("{whom}: {what}: {said}"));
            }
        }
    }

    fn note(&mut self, what: &str) {
        *self.answers.entry(what.to_owned()).or_default() += 1;
    }

    /// Waits until the servers report that they are ready, but no longer than `limit`.
    async fn well(&mut self, when: &str, limit: Duration) {
        let ready = tokio::time::timeout(limit, self.cluster.wait_ready()).await;
        let said = match ready {
            Ok(Ok(())) => "well".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not well after {limit:?}"),
        };
        self.note(&format!("{when}: servers {said}"));
    }

    /// The files of the damaged server.
    fn store(&self) -> &Path {
        self.cluster.node(HURT).unwrap().store()
    }

    /// Starts the damaged server again, and asks at each of these times: at once, when it is back, when it leads, after
    /// more writes, with another server lost, and at the end.
    async fn comes_back(mut self) {
        if let Err(error) = self.cluster.run(HURT).await {
            self.note(&format!("it does not start: {error}"));
            self.ask("without it").await;
            self.told();
            return;
        }
        self.ask("at once").await;
        self.well("back", Duration::from_secs(15)).await;
        self.ask("when it is back").await;
        for bucket in ["users", "members", "rooms", "room_keys", "rooms_by_member"] {
            let stream = format!("KV_{PREFIX}{bucket}");
            let led = self.cluster.lead(HURT, &stream);
            if !matches!(tokio::time::timeout(Duration::from_secs(3), led).await, Ok(Ok(()))) {
                self.note(&format!("it does not lead {bucket}"));
            }
        }
        self.ask("when it leads").await;
        // These writes go through the other servers, and must hold once they are acknowledged.
        if let Ok(store) = open(&self.cluster, &[0, 1], ReadMode::Linearizable).await {
            let deadline = Instant::now() + Duration::from_secs(10);
            while !self.later && Instant::now() < deadline {
                self.later = store.revoke_user(&key(REVOKED_LATER), AT).await.is_ok();
            }
            for n in 20..30 {
                let _ = store.add_user(user(n, false)).await;
            }
            store.close().await.unwrap();
        }
        // Through the damaged server: ids that are taken must not be free there.
        if let Ok(store) = open(&self.cluster, &[HURT], ReadMode::Linearizable).await {
            let again = store.bootstrap_admin(user(30, true)).await;
            let made = NewRoom::unencrypted(ops(), who(9), AT);
            let room = store.create_room(made).await;
            self.note(&format!("bootstrap {again:?}, create {room:?}"));
            for (done, what) in [
                (again.is_ok(), "a second bootstrap worked"),
                (room.is_ok(), "a room was made twice"),
            ] {
                if done {
                    self.wrong.push(what.to_owned());
                }
            }
            store.close().await.unwrap();
        }
        tokio::time::sleep(BOUND).await;
        let later = self.later;
        self.note(&format!("revoked another: {later}"));
        self.ask("after more writes").await;
        self.cluster.kill(0).await.unwrap();
        self.ask("with another one lost").await;
        self.cluster.run(0).await.unwrap();
        self.well("all", Duration::from_secs(15)).await;
        self.ask("in the end").await;
        self.told();
    }

    fn told(&self) {
        for (what, times) in &self.answers {
            println!("{times} x {what}");
        }
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }
}

/// Waits until every server has every message of every bucket.
pub(crate) async fn same_everywhere(cluster: &Cluster) {
    let deadline = Instant::now() + Duration::from_secs(30);
    for bucket in ["users", "members", "rooms", "room_keys", "rooms_by_member"] {
        let stream = format!("KV_{PREFIX}{bucket}");
        loop {
            let mut seen = Vec::new();
            for node in 0..cluster.size() {
                seen.push(
                    cluster.replica(node, &stream).await.map(|replica| replica.last_sequence),
                );
            }
            if seen.iter().all(|last| last.is_some() && *last == seen[0]) {
                break;
            }
            assert!(Instant::now() < deadline, "{bucket}: {seen:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let place = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&file, place).unwrap();
    }
}

/// Puts a copy into the place of a server's files.
pub(crate) fn put_back(copied: &Path, store: &Path) {
    fs::remove_dir_all(store).unwrap();
    copy(copied, store);
}

/// Flips a random bit in each file that `which` selects. Returns the number of files.
fn flip(store: &Path, which: impl Fn(&str) -> bool) -> usize {
    let mut rng = Rng::new("bits");
    let mut flipped = 0;
    for file in files(store) {
        let mut bytes = fs::read(&file).unwrap();
        if bytes.is_empty() || !which(file.strip_prefix(store).unwrap().to_str().unwrap()) {
            continue;
        }
        let (at, bit) = (rng.below(bytes.len()), rng.below(8));
        bytes[at] ^= 1 << bit;
        println!("bit {bit} of byte {at} of {} of {}", bytes.len(), file.display());
        fs::write(&file, bytes).unwrap();
        flipped += 1;
    }
    flipped
}

/// Whether a file holds messages of a bucket.
fn is_block(name: &str) -> bool {
    name.contains("/streams/KV_") && Path::new(name).extension().is_some_and(|kind| kind == "blk")
}

/// Flips a bit of the payload of every message in every block. A message begins with its length and ends in a sum of
/// eight bytes. The highest bit of the length says whether the message has headers.
fn flip_every_message(store: &Path) {
    for file in files(store) {
        if !is_block(file.strip_prefix(store).unwrap().to_str().unwrap()) {
            continue;
        }
        let mut bytes = fs::read(&file).unwrap();
        let mut at = 0;
        while at + 30 < bytes.len() {
            let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
            at += len as usize;
            bytes[at - 9] ^= 1;
        }
        println!("{at} of {} bytes of {}", bytes.len(), file.display());
        fs::write(&file, bytes).unwrap();
    }
}

/// Whether a file holds Raft's state: of a bucket, or (`_meta_`) of the list of streams.
fn is_raft(name: &str) -> bool {
    name.contains("$SYS/_js_/")
}

async fn nothing(_: &Cluster) {}

/// Flips a bit in the last record of the revoked user.
fn flip_the_revocation(store: &Path) {
    let (block, mut bytes, at) = revocation(store);
    bytes[at + 80] ^= 1;
    fs::write(block, bytes).unwrap();
}

/// Finds the revoked user's last record: the block that holds it, the block's bytes, and the offset
/// of the user's name in them.
fn revocation(store: &Path) -> (PathBuf, Vec<u8>, usize) {
    let name = key(REVOKED).to_string();
    let mut found = files(store).into_iter().filter_map(|file| {
        if !is_block(&file.to_string_lossy()) {
            return None;
        }
        let bytes = fs::read(&file).unwrap();
        let at = bytes.windows(name.len()).rposition(|part| part == name.as_bytes())?;
        Some((file, bytes, at))
    });
    found.next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flipped_in_a_revocation_lets_nobody_in() {
    let scene = Scene::new(nothing).await;
    scene.cluster.stop(HURT).await.unwrap();
    flip_the_revocation(scene.store());
    scene.comes_back().await;
}

/// A known limit, which `PROTOCOL.md` names: while the damaged server leads, the record is missing. An admin who adds
/// the user again is not told that the user was revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_the_record_of_a_revocation_lets_the_user_be_added_again() {
    let scene = Scene::new(nothing).await;
    scene.cluster.stop(HURT).await.unwrap();
    flip_the_revocation(scene.store());
    scene.cluster.run(HURT).await.unwrap();
    scene.cluster.wait_ready().await.unwrap();
    scene.cluster.lead(HURT, "KV_d-users").await.unwrap();
    let store = open(&scene.cluster, &[HURT], ReadMode::Linearizable).await.unwrap();
    let before = store.is_authorized(&key(REVOKED)).await;
    let added = store.add_user(user(REVOKED, false)).await;
    println!("{before:?}, added: {added:?}");
    assert!(!before.is_allowed(), "a revoked user is let in");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !store.is_authorized(&key(REVOKED)).await.is_allowed() {
        assert!(Instant::now() < deadline, "no limit any more: say so in PROTOCOL.md");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_cut_off_before_a_revocation_lets_nobody_in() {
    let scene = Scene::new(nothing).await;
    scene.cluster.kill(HURT).await.unwrap();
    let (block, bytes, at) = revocation(scene.store());
    // The flipped bit is in the middle of the message's header, which precedes the subject.
    fs::write(block, &bytes[..at - 30]).unwrap();
    scene.comes_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flipped_in_every_message_lets_nobody_in() {
    let scene = Scene::new(nothing).await;
    scene.cluster.stop(HURT).await.unwrap();
    flip_every_message(scene.store());
    scene.comes_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_flipped_in_every_index_let_nobody_in() {
    let scene = Scene::new(nothing).await;
    scene.cluster.stop(HURT).await.unwrap();
    assert!(flip(scene.store(), |name| name.ends_with("index.db")) >= 5);
    scene.comes_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_flipped_in_the_state_of_raft_let_nobody_in() {
    let scene = Scene::new(nothing).await;
    scene.cluster.kill(HURT).await.unwrap();
    assert!(flip(scene.store(), |name| is_raft(name) && !name.contains("_meta_")) >= 5);
    scene.comes_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_flipped_in_the_list_of_streams_let_nobody_in() {
    let scene = Scene::new(nothing).await;
    scene.cluster.kill(HURT).await.unwrap();
    assert!(flip(scene.store(), |name| is_raft(name) && name.contains("_meta_")) >= 3);
    scene.comes_back().await;
}

/// Puts back those files of the damaged server that are below this folder, to their state before the revocation.
async fn older(part: &str) {
    let copied = tempfile::tempdir().unwrap();
    let scene = Scene::new(async |cluster: &Cluster| {
        cluster.stop(HURT).await.unwrap();
        copy(cluster.node(HURT).unwrap().store(), copied.path());
        cluster.run(HURT).await.unwrap();
        cluster.wait_ready().await.unwrap();
    })
    .await;
    scene.cluster.kill(HURT).await.unwrap();
    put_back(&copied.path().join(part), &scene.store().join(part));
    scene.comes_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_files_of_one_server_let_nobody_in() {
    older("jetstream").await;
}

/// Only these files are put back, as if the buckets and Raft's state were on different disks.
#[tokio::test(flavor = "multi_thread")]
async fn older_buckets_of_one_server_let_nobody_in() {
    older("jetstream/$G").await;
}
