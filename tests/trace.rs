//! Tests of the events that the stores emit with `tracing`, and of the values that no event has.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use membership::{
    Blow, Ciphertext, Decision, EndpointId, Epoch, Error, JetStreamConfig, JetStreamStore, Label,
    NewMember, NewRoom, NewUser, Rekey, RoomId, Simulation, SqliteConfig, SqliteStore, Store,
    Timestamp, UserKey, Weather,
};
use nats_cluster::{Cluster, ClusterOptions};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

const AT: Timestamp = Timestamp::from_millis(1);
/// The sealed key in these tests.
const SEALED: &str = "sealed-for-one-endpoint";
const PASSWORD: &str = "correct-horse";

/// The events of this thread since [`listen`].
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl io::Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Heard {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Heard {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(bytes.clone()).unwrap()
    }

    /// Whether one line has all these parts.
    fn has(&self, parts: &[&str]) -> bool {
        self.text().lines().any(|line| parts.iter().all(|part| line.contains(part)))
    }

    /// Fails unless one line has all these parts.
    #[track_caller]
    fn expect(&self, parts: &[&str]) {
        assert!(self.has(parts), "no line with {parts:?} in\n{}", self.text());
    }

    /// Fails if the output has a secret.
    #[track_caller]
    fn has_no_secret(&self) {
        let text = self.text();
        // The bytes of a ciphertext as a list are searched for, too, since `Debug` could show them so.
        let list = SEALED.bytes().take(8).map(|byte| byte.to_string()).collect::<Vec<_>>();
        for secret in [SEALED, PASSWORD, &list.join(", ")] {
            assert!(!text.contains(secret), "{secret:?} is in\n{text}");
        }
        assert!(text.contains("TRACE"), "nothing at the level trace in\n{text}");
    }
}

/// Records the events of this thread at every level until the guard is dropped. Of the NATS driver it leaves out the level
/// `trace`, which shows whole messages, and so sealed keys.
fn listen() -> (Heard, impl Drop) {
    let heard = Heard::default();
    let events = tracing_subscriber::fmt().with_env_filter("trace,async_nats=debug");
    let guard = events.with_ansi(false).with_writer(heard.clone()).finish().set_default();
    (heard, guard)
}

fn room() -> RoomId {
    RoomId::new("ops").unwrap()
}

fn endpoint(name: &str) -> EndpointId {
    EndpointId::new(name).unwrap()
}

fn sealed() -> Ciphertext {
    Ciphertext::new(SEALED).unwrap()
}

fn user() -> NewUser {
    let (key, label) = (UserKey::from_bytes([1; 32]), Label::new("ann").unwrap());
    NewUser { key, label, admin: false, added_at: AT }
}

/// Makes a room, changes its members and keys, reads a key, and decides about a user.
async fn use_store(store: &dyn Store) {
    let (room, [ann, bob]) = (room(), ["ann", "bob"].map(endpoint));
    let new = || NewRoom::encrypted(room.clone(), ann.clone(), AT, sealed());
    store.create_room(new()).await.unwrap();
    assert!(matches!(store.create_room(new()).await, Err(Error::AlreadyExists(_))));
    let member = NewMember::sealed(bob.clone(), AT, Epoch::FIRST, sealed());
    store.add_member(&room, member).await.unwrap();
    let rekey = Rekey::new(Epoch::FIRST, [bob], [(ann.clone(), sealed())]).unwrap();
    let epoch = store.rekey(&room, rekey).await.unwrap().epoch;
    assert_eq!(store.key(&room, &ann, epoch).await.unwrap().ciphertext, sealed());
    store.add_user(user()).await.unwrap();
    assert_eq!(store.is_authorized(&user().key).await, Decision::Allow);
    assert!(matches!(store.is_admin(&user().key).await, Decision::Deny(_)));
}

/// Fails unless the calls of [`use_store`] emitted events.
#[track_caller]
fn heard_its_calls(heard: &Heard) {
    for call in [
        &["create_room{room=ops}", "outcome=\"ok\""][..],
        &["create_room{room=ops}", "outcome=\"error\"", "reason=room \"ops\" exists already"],
        &["add_member{room=ops endpoint=bob}", "outcome=\"ok\""],
        &["rekey{room=ops from=1}", "outcome=\"ok\""],
        &["key{room=ops endpoint=ann epoch=2}", "outcome=\"ok\""],
        &["add_user{user=0101", "outcome=\"ok\""],
        &["is_authorized{user=0101", "outcome=\"allow\""],
        &["is_admin{user=0101", "outcome=\"deny\"", "reason=not an admin"],
    ] {
        heard.expect(&[call, &["DEBUG", " membership::call: answered", "duration="]].concat());
    }
}

#[tokio::test]
async fn a_call_of_the_sqlite_store_is_told_without_its_secrets() {
    let (heard, _listening) = listen();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("members.db");
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    use_store(&store).await;
    heard.expect(&["open{path=", "outcome=\"ok\""]);
    heard_its_calls(&heard);

    std::fs::rename(&path, dir.path().join("moved.db")).unwrap();
    assert!(matches!(store.room(&room()).await, Err(Error::Unavailable(_))));
    heard.expect(&["WARN", "room{room=ops}", " membership::file: ", "change=was removed"]);
    store.close().await.unwrap();
    heard.expect(&["close", "outcome=\"ok\""]);
    let text = heard.text();
    assert!(!text.contains(SEALED), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_drops_is_told() {
    let (heard, _listening) = listen();
    let store = open(&Simulation::new(1, 1, Weather::CALM), 1).await;
    {
        let mut call = store.add_user(user());
        assert!(futures_util::poll!(&mut call).is_pending());
    }
    heard.expect(&["add_user{user=0101", "dropped by the caller duration="]);
    store.close().await.unwrap();
}

async fn open(simulation: &Simulation, replicas: u8) -> JetStreamStore {
    let config = JetStreamConfig { replicas, ..JetStreamConfig::new(["nats://simulated"]) };
    simulation.open("client", 0, false, config).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_of_the_jetstream_store_is_told_with_its_barriers_and_its_garbage() {
    let (heard, _listening) = listen();
    let simulation = Simulation::new(1, 1, Weather::CALM);
    let store = open(&simulation, 1).await;
    use_store(&store).await;
    heard_its_calls(&heard);
    heard.expect(&[
        "DEBUG",
        "create_room{room=ops}",
        " membership::barrier: acknowledged",
        "bucket=rooms",
    ]);
    let ops = room();
    assert!(tokio::join!(store.room(&ops), store.room(&ops)).0.is_ok());
    heard.expect(&["DEBUG", "membership::barrier: one for several calls", "callers=2"]);
    heard.expect(&["DEBUG", "add_user{user=0101", "membership::call: committed messages=1"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let purged = " membership::garbage: purge bucket=room_keys";
    heard.expect(&["DEBUG", "rekey{room=ops from=1}:background:", purged]);
    for level in ["INFO", "WARN"] {
        assert!(!heard.has(&[level]), "all is well, and yet\n{}", heard.text());
    }

    // An error of garbage collection emits an event, too.
    store
        .add_member(
            &room(),
            NewMember::sealed(endpoint("eve"), AT, Epoch::new(2).unwrap(), sealed()),
        )
        .await
        .unwrap();
    store.remove_member(&room(), &endpoint("eve")).await.unwrap();
    simulation.strike(Blow::Weather(Weather { lost_requests: 1000, ..Weather::CALM }));
    tokio::time::sleep(Duration::from_mins(2)).await;
    heard.expect(&[
        "remove_member{",
        ":background:",
        " membership::garbage: left to later calls error=",
    ]);
    heard.has_no_secret();
}

#[tokio::test(start_paused = true)]
async fn retries_stale_replies_and_lost_data_are_told() {
    let (heard, _listening) = listen();
    let simulation = Simulation::new(1, 3, Weather::CALM);
    let store = open(&simulation, 3).await;
    let before = simulation.moment();
    let rough = Weather { lag: 200, lost_requests: 200, lost_answers: 200, ..Weather::CALM };
    simulation.strike(Blow::Weather(rough));
    store.add_user(user()).await.unwrap();
    for _ in 0..50 {
        drop(store.room(&room()).await);
    }
    heard.expect(&["DEBUG", "room{room=ops}", " membership::exchange: a read is tried again"]);
    heard.expect(&["DEBUG", " membership::exchange: a barrier is sent again bucket="]);
    heard.expect(&["DEBUG", "room{room=ops}", " membership::exchange: a stale reply is refused"]);
    assert!(store.counters().stale_replies() > 0);

    simulation.strike(Blow::GoBack(before));
    simulation.heal();
    for _ in 0..50 {
        drop(store.has_admin().await);
    }
    heard.expect(&["WARN", " membership::bucket: the bucket went back", "bucket=users"]);
    heard.expect(&["INFO", " membership::users: the copy begins anew"]);
    heard.has_no_secret();
}

#[tokio::test]
async fn no_secret_is_told_to_or_of_a_real_server() {
    let (heard, _listening) = listen();
    let users = format!(
        "authorization {{ users: [ {{ user: all, password: p }},\n\
         {{ user: app, password: {PASSWORD} }} ] }}\nno_auth_user: all\n"
    );
    let cluster = Cluster::start(ClusterOptions::servers(1).lines(users)).await;
    let cluster = cluster.unwrap_or_else(|error| panic!("{error}"));
    let url = cluster.client_url(0).unwrap();
    let url = url.replace("nats://", &format!("nats://app:{PASSWORD}@"));
    let store = JetStreamStore::open(JetStreamConfig::new([url])).await.unwrap();
    use_store(&store).await;
    heard_its_calls(&heard);
    heard.expect(&["DEBUG", "open{servers=", "@127.0.0.1:", "outcome=\"ok\""]);
    heard.expect(&[
        "TRACE",
        "create_room{room=ops}",
        " membership::exchange: request subject=$KV.rooms.",
    ]);
    assert!(!heard.has(&["INFO membership"]), "{}", heard.text());

    cluster.kill(0).await.unwrap();
    cluster.run(0).await.unwrap();
    let back = async { while store.has_admin().await.is_err() {} };
    tokio::time::timeout(Duration::from_mins(1), back).await.unwrap();
    heard.expect(&["INFO", "membership::connection: the connection was lost"]);
    heard.expect(&["INFO", "membership::connection: connected again"]);
    let wrong =
        cluster.client_url(0).unwrap().replace("nats://", &format!("nats://no:{PASSWORD}@"));
    let refused = JetStreamStore::open(JetStreamConfig::new([wrong])).await.unwrap_err();
    heard.expect(&["open{servers=", &format!("reason={refused}")]);
    store.close().await.unwrap();
    heard.has_no_secret();
}
