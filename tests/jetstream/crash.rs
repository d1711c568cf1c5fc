//! Crashes: clients that are stopped after any exchange, and servers that are killed.
//!
//! Another client must be able to go on after a client was stopped.

use std::sync::Arc;
use std::time::Duration;

use membership::{
    Ciphertext, EndpointId, Epoch, Error, JetStreamConfig, JetStreamStore, Label, MemoryStore,
    Misheard, NewMember, NewRoom, NewUser, Page, Rekey, RoomId, Store, Timestamp,
};
use membership_conformance::model::{Answer, Op};

use crate::calls;
use crate::rng::Rng;
use crate::server::Server;

fn room() -> RoomId {
    calls::room(0)
}

fn who(n: usize) -> EndpointId {
    calls::endpoint(n)
}

fn cipher(text: &str) -> Ciphertext {
    Ciphertext::new(text).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_millis(7)
}

fn admin(n: usize) -> NewUser {
    let label = Label::new("admin").unwrap();
    NewUser { key: calls::user(n), label, admin: true, added_at: now() }
}

fn add(n: usize, epoch: u64, text: &str) -> Op {
    let epoch = Epoch::new(epoch).unwrap();
    Op::AddMember(room(), NewMember::sealed(who(n), now(), epoch, cipher(text)))
}

fn rekey(from: u64, remove: &[usize], keys: &[usize], text: &str) -> Op {
    let from = Epoch::new(from).unwrap();
    let keys = keys.iter().map(|n| (who(*n), cipher(&format!("{text} {n}"))));
    Op::Rekey(room(), Rekey::new(from, remove.iter().map(|n| who(*n)), keys).unwrap())
}

/// The state before each call that is cut short: a room at epoch 2 with three members and a former
/// one, another room, and two admins.
fn setup() -> Vec<Op> {
    vec![
        Op::CreateRoom(NewRoom::encrypted(room(), who(0), now(), cipher("0 at 1"))),
        add(1, 1, "1 at 1"),
        add(2, 1, "2 at 1"),
        add(3, 1, "3 at 1"),
        rekey(1, &[3], &[0, 1, 2], "at 2"),
        Op::CreateRoom(NewRoom::unencrypted(calls::room(1), who(1), now())),
        Op::BootstrapAdmin(admin(0)),
        Op::AddUser(admin(1)),
    ]
}

fn cut_short() -> Vec<(&'static str, Op)> {
    let room2 = calls::room(2);
    vec![
        ("create", Op::CreateRoom(NewRoom::encrypted(room2, who(1), now(), cipher("new")))),
        ("delete", Op::DeleteRoom(room())),
        ("add", add(4, 2, "4 at 2")),
        ("come-back", add(3, 2, "3 again")),
        ("remove", Op::RemoveMember(room(), who(1))),
        ("rekey", rekey(2, &[], &[0, 1, 2], "at 3")),
        ("rekey-remove", rekey(2, &[1], &[0, 2], "at 3")),
        ("add-admin", Op::AddUser(admin(2))),
        ("add-user", Op::AddUser(NewUser { admin: false, ..admin(2) })),
        ("revoke", Op::RevokeUser(calls::user(0), now())),
    ]
}

/// All answers that callers can get from a store.
async fn dump(store: &dyn Store) -> Vec<(Op, Answer)> {
    let mut all = Vec::new();
    for r in 0..3 {
        all.push(Op::Room(calls::room(r)));
        all.push(Op::Members(calls::room(r), Page::first()));
        for e in 0..5 {
            for epoch in 1..4 {
                let epoch = Epoch::new(epoch).unwrap();
                all.push(Op::Key(calls::room(r), who(e), epoch));
            }
            all.push(Op::LatestKey(calls::room(r), who(e)));
        }
    }
    all.extend((0..5).map(|e| Op::RoomsOf(who(e), Page::first())));
    all.push(Op::Users(Page::first()));
    all.push(Op::HasAdmin);
    let mut seen = Vec::new();
    for call in all {
        let answer = call.apply(store).await;
        seen.push((call, answer));
    }
    seen
}

/// Makes a call, which must succeed.
async fn must(call: &Op, store: &dyn Store) {
    let answer = call.apply(store).await;
    assert_eq!(answer.error(), None, "{call:?}");
}

async fn model(calls: &[Op]) -> MemoryStore {
    let model = MemoryStore::new();
    for call in calls {
        call.apply(&model).await;
    }
    model
}

/// Stops a client in the middle of a call, after each of its exchanges in turn. With `sends` the
/// next exchange is sent, and its answer is lost.
async fn cut(server: &Server, name: &str, sends: bool, call: Op, mut rng: Rng) {
    let model = model(&setup()).await;
    let seen_before = dump(&model).await;
    must(&call, &model).await;
    let seen_after = dump(&model).await;
    assert_ne!(seen_before, seen_after);
    for exchanges in 0.. {
        let what = format!("{name} stopped after {exchanges} exchanges, the next sent: {sends}");
        let prefix = format!("{name}-{sends}-{exchanges}-");
        let first = server.open(&prefix).await;
        for step in setup() {
            must(&step, &first).await;
        }
        first.close().await.unwrap();

        let stopped = server.open(&prefix).await;
        stopped.stop_after(exchanges, sends);
        let dies = async {
            stopped.stopped().await;
            // This lets the message in flight arrive.
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let error = tokio::select! {
            answer = call.apply(&stopped) => answer.error().cloned(),
            () = dies => Some(Error::Timeout),
        };
        let finished = !stopped.is_stopped();
        drop(stopped);

        let other = server.open(&prefix).await;
        let seen = dump(&other).await;
        let done = seen == seen_after;
        assert!(done || seen == seen_before, "{what}: neither before nor after\n{seen:?}");
        match &error {
            None => assert!(done, "{what}: it succeeded, and it is not there"),
            Some(error) => assert!(error.outcome_unknown(), "{what}: {error}"),
        }
        // The messages that the stopped client sent must not disturb later calls.
        let (played, base) = (MemoryStore::new(), setup());
        for step in base.iter().chain(done.then_some(&call)) {
            step.apply(&played).await;
        }
        for _ in 0..40 {
            let next = calls::random(&mut rng, &played).await;
            let (expected, got) = (next.apply(&played).await, next.apply(&other).await);
            assert_eq!(got, expected, "{what}, then {next:?}");
        }
        assert_eq!(dump(&other).await, dump(&played).await, "{what}, at the end");
        other.close().await.unwrap();
        if finished {
            assert_eq!(error, None, "{what}");
            println!("{name}: {exchanges} exchanges at most");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_stopped_after_any_exchange_takes_effect_entirely_or_not_at_all() {
    let server = Arc::new(Server::start().await);
    let mut rng = Rng::new("cut short");
    let mut cuts = tokio::task::JoinSet::new();
    for (name, call) in cut_short() {
        for sends in [false, true] {
            let (server, call, rng) = (Arc::clone(&server), call.clone(), rng.fork());
            cuts.spawn(async move { cut(&server, name, sends, call, rng).await });
        }
    }
    while let Some(cut) = cuts.join_next().await {
        cut.unwrap();
    }
}

/// A sequence that once failed, on a real server. The simulation enumerates such sequences.
#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_held_while_a_member_leaves_and_returns_names_only_existing_keys() {
    let server = Server::start().await;
    let call = rekey(2, &[], &[0, 1, 2], "held");
    let meanwhile = [Op::RemoveMember(room(), who(1)), add(1, 2, "back")];
    let after = async |steps: &[&Op]| {
        let played = model(&setup()).await;
        for step in steps {
            step.apply(&played).await;
        }
        dump(&played).await
    };
    let [goes, comes] = &meanwhile;
    let (late, early) = (after(&[goes, comes, &call]).await, after(&[&call, goes, comes]).await);
    for exchanges in 0.. {
        let prefix = format!("held-{exchanges}-");
        let other = server.open(&prefix).await;
        for step in setup() {
            must(&step, &other).await;
        }
        let held = server.open(&prefix).await;
        held.hold_after(exchanges);
        let mut run = std::pin::pin!(call.apply(&held));
        tokio::select! {
            biased;
            () = held.held() => {}
            answer = &mut run => {
                assert_eq!(answer.error(), None);
                println!("{exchanges} exchanges");
                return;
            }
        }
        let (answer, ()) = tokio::join!(run, async {
            for step in &meanwhile {
                step.apply(&other).await;
            }
            // `close` waits until the keys of the removed membership are collected.
            other.close().await.unwrap();
            held.let_go();
        });
        assert_eq!(answer.error(), None, "held after {exchanges} exchanges");
        let seen = dump(&server.open(&prefix).await).await;
        assert!(seen == late || seen == early, "held after {exchanges} exchanges\n{seen:?}");
    }
}

/// A revocation replaces the record that shows that the addition was made.
#[tokio::test(flavor = "multi_thread")]
async fn an_addition_succeeds_even_if_its_user_is_revoked_before_the_answer() {
    let server = Server::start().await;
    let member = NewUser { admin: false, ..admin(1) };
    for (prefix, added, as_if) in [
        ("refused-", &member, Misheard::Refused),
        ("refused-admin-", &admin(1), Misheard::Refused),
        ("unanswered-", &member, Misheard::Unanswered),
        ("unanswered-admin-", &admin(1), Misheard::Unanswered),
    ] {
        let (store, other) = (server.open(prefix).await, server.open(prefix).await);
        must(&Op::BootstrapAdmin(admin(0)), &other).await;
        store.mishear_after(0, as_if);
        let (said, ()) = tokio::join!(store.add_user(added.clone()), async {
            store.held().await;
            other.revoke_user(&added.key, now()).await.unwrap();
            store.let_go();
        });
        assert_eq!(said, Ok(added.user()), "{prefix}");
        assert!(other.user(&added.key).await.unwrap().revoked);
    }
}

/// The keys of a bucket's messages.
async fn raw_keys(client: &async_nats::Client, bucket: &str) -> Vec<String> {
    let request = format!(r#"{{"subjects_filter":"$KV.{bucket}.>"}}"#);
    let subject = format!("$JS.API.STREAM.INFO.KV_{bucket}");
    let answer = client.request(subject, request.into()).await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    let subjects = info["state"]["subjects"].as_object().cloned().unwrap_or_default();
    let prefix = format!("$KV.{bucket}.");
    subjects.keys().map(|subject| subject.strip_prefix(&prefix).unwrap().to_owned()).collect()
}

/// A late copy of a room's first head is not taken for the room's last state.
///
/// The copy arrives after the room was deleted, and after the tombstone of its head was purged. A
/// client that looked up the room before the deletion reads the copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_first_head_of_a_deleted_room_is_ignored() {
    let server = Server::start().await;
    let raw = server.raw().await;
    // The client reads two buckets at once, and chance says which read is held. So each number of
    // exchanges is tried ten times.
    for (exchanges, trial) in (0..).flat_map(|exchanges| (0..10).map(move |n| (exchanges, n))) {
        let prefix = format!("late-{exchanges}-{trial}-");
        let bucket = format!("{prefix}members");
        let other = server.open(&prefix).await;
        let made = NewRoom::encrypted(room(), who(0), now(), cipher("0 at 1"));
        must(&Op::CreateRoom(made), &other).await;
        let heads = raw_keys(&raw, &bucket).await;
        let head = heads.iter().find(|key| key.ends_with(".=h")).unwrap();
        let subject = format!("$KV.{bucket}.{head}");
        let get = format!("$JS.API.DIRECT.GET.KV_{bucket}.{subject}");
        let first = raw.request(get, "".into()).await.unwrap().payload;
        must(&rekey(1, &[], &[0], "at 2"), &other).await;

        let reader = server.open(&prefix).await;
        reader.hold_after(exchanges);
        let id = room();
        let mut read = std::pin::pin!(reader.room(&id));
        let stands = tokio::select! {
            biased;
            () = reader.held() => true,
            done = &mut read => {
                assert_eq!(done.unwrap().epoch.get(), 2);
                false
            }
        };
        if !stands {
            assert!(exchanges > 2, "a room is read with {exchanges} exchanges");
            return;
        }
        let (answer, ()) = tokio::join!(read, async {
            must(&Op::DeleteRoom(room()), &other).await;
            other.close().await.unwrap();
            let purge = format!("$JS.API.STREAM.PURGE.KV_{bucket}");
            let filter = format!(r#"{{"filter":"{subject}"}}"#);
            let purged = raw.request(purge, filter.into()).await.unwrap();
            assert!(
                String::from_utf8_lossy(&purged.payload).contains(r#""purged":1"#),
                "{purged:?}"
            );
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
            let inbox = raw.new_inbox();
            let mut acks = raw.subscribe(inbox.clone()).await.unwrap();
            raw.publish_with_reply_and_headers(subject, inbox, headers, first).await.unwrap();
            let ack = futures_util::StreamExt::next(&mut acks).await.unwrap();
            assert!(!String::from_utf8_lossy(&ack.payload).contains("error"), "{ack:?}");
            reader.let_go();
        });
        match answer {
            Ok(room) => assert_eq!(room.epoch.get(), 2, "held after {exchanges} exchanges"),
            Err(error) => assert!(matches!(error, Error::NotFound(_)), "{error}"),
        }
    }
}

/// Waits until only the bucket's own records, and keys for which `keep` is true, are left.
async fn collected(client: &async_nats::Client, bucket: &str, keep: impl Fn(&str) -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let mut keys = raw_keys(client, bucket).await;
        keys.retain(|key| !key.starts_with("=barrier.") && key != "=format" && !keep(key));
        if keys.is_empty() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{bucket} still holds {keys:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_collected() {
    let server = Server::start().await;
    let store = server.open("gc-").await;
    let raw = server.raw().await;
    for step in setup() {
        step.apply(&store).await;
    }
    // A rekey, an addition and a creation that are stopped half-way.
    for (call, exchanges) in [
        (rekey(2, &[], &[0, 1, 2], "lost"), 7),
        (add(4, 2, "lost"), 5),
        (cut_short()[0].1.clone(), 5),
    ] {
        let config = JetStreamConfig {
            prefix: "gc-".to_owned(),
            op_timeout: Duration::from_millis(100),
            ..server.config()
        };
        let crashed = JetStreamStore::open(config).await.unwrap();
        crashed.stop_after(exchanges, false);
        assert!(call.apply(&crashed).await.error().is_some());
        assert!(crashed.is_stopped());
    }
    // The next rekey collects the keys of the stopped one; a removal collects the keys of the
    // removed member.
    rekey(2, &[1], &[0, 2], "at 3").apply(&store).await;
    collected(&raw, "gc-room_keys", |key| key.starts_with("=2A.") || live(key)).await;
    // A listing of the endpoint's rooms collects the index entry of the stopped addition.
    Op::RoomsOf(who(4), Page::first()).apply(&store).await;
    collected(&raw, "gc-rooms_by_member", |key| !key.starts_with("=3Dh.") || key.ends_with(".=n"))
        .await;
    // The next creation of the room collects the messages of the stopped one.
    cut_short()[0].1.apply(&store).await;
    for room in [room(), calls::room(1), calls::room(2)] {
        must(&Op::DeleteRoom(room), &store).await;
    }
    Op::RoomsOf(who(1), Page::first()).apply(&store).await;
    collected(&raw, "gc-room_keys", |_| false).await;
    // The tombstone of each room's head stays.
    collected(&raw, "gc-members", |key| key.ends_with(".=h")).await;
    let is_counter = |key: &str| key.ends_with(".=n") || key.starts_with("=r");
    collected(&raw, "gc-rooms_by_member", is_counter).await;
    store.close().await.unwrap();

    // For an id that was used many times, only the tombstones of its last rooms stay.
    let again = Op::CreateRoom(NewRoom::unencrypted(room(), who(0), now()));
    for _ in 0..12 {
        let store = server.open("gc-").await;
        must(&again, &store).await;
        must(&Op::DeleteRoom(room()), &store).await;
        store.close().await.unwrap();
    }
    let heads = raw_keys(&raw, "gc-members").await;
    let heads = heads.iter().filter(|key| key.starts_with("ops.") && key.ends_with(".=h"));
    assert_eq!(heads.count(), 9, "eight, and that of the last room");
}

/// Whether a key is a sealed key of one of the two remaining members, for any epoch.
fn live(key: &str) -> bool {
    let tokens: Vec<&str> = key.split('.').collect();
    matches!(tokens[..], ["ops", _, "ann" | "b=2E=3E", "1" | "2" | "3", _])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_keeps_acknowledged_writes() {
    let server = Server::start().await;
    let config = JetStreamConfig { op_timeout: Duration::from_millis(500), ..server.config() };
    let store = JetStreamStore::open(config).await.unwrap();
    for step in setup() {
        must(&step, &store).await;
    }
    let before = dump(&store).await;
    server.kill().await;
    let begun = std::time::Instant::now();
    assert!(!store.is_authorized(&calls::user(0)).await.is_allowed());
    assert!(store.room(&room()).await.is_err_and(|error| error.outcome_unknown()));
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    server.run().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !store.is_authorized(&calls::user(0)).await.is_allowed() {
        assert!(std::time::Instant::now() < deadline, "it does not come back");
    }
    assert_eq!(dump(&store).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_stays_removed_after_the_server_is_killed() {
    let server = Server::start().await;
    let config = JetStreamConfig { op_timeout: Duration::from_millis(500), ..server.config() };
    let store = JetStreamStore::open(config).await.unwrap();
    for step in setup() {
        must(&step, &store).await;
    }
    // There are more additions and removals than a generation of the roster keeps tombstones of, so
    // a new generation begins.
    for n in 0..180 {
        let who: EndpointId = format!("guest {n}").parse().unwrap();
        let new = NewMember::sealed(who.clone(), now(), Epoch::new(2).unwrap(), cipher("x"));
        store.add_member(&room(), new).await.unwrap();
        store.remove_member(&room(), &who).await.unwrap();
    }
    let raw = server.raw().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while raw_keys(&raw, "members").await.len() > 150 {
        assert!(std::time::Instant::now() < deadline, "the tombstones are not collected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = dump(&store).await;
    server.kill().await;
    server.run().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while store.room(&room()).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "it does not come back");
    }
    assert_eq!(dump(&store).await, before);
}

/// A killed server may forget a purge, or that the purged message had replaced another one. So the
/// tombstone over a deleted room's head must stay. Otherwise a client that looked up the room
/// before would find an earlier head.
#[tokio::test(flavor = "multi_thread")]
async fn no_earlier_state_of_a_deleted_room_returns_after_the_server_is_killed() {
    let server = Server::start().await;
    for step in setup() {
        must(&step, &server.open("").await).await;
    }
    let raw = server.raw().await;
    let heads = raw_keys(&raw, "members").await;
    let head = heads.iter().find(|key| key.ends_with(".=h") && key.starts_with("ops")).unwrap();
    let store = server.open("").await;
    store.delete_room(&room()).await.unwrap();
    store.close().await.unwrap();
    server.kill().await;
    server.run().await;

    let raw = server.raw().await;
    let get = format!("$JS.API.DIRECT.GET.KV_members.$KV.members.{head}");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let found = loop {
        match raw.request(get.clone(), "".into()).await {
            Ok(found) => break found,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
    };
    let headers = found.headers.unwrap_or_default();
    let what = String::from_utf8_lossy(&found.payload);
    assert_eq!(
        headers.get("KV-Operation").map(async_nats::HeaderValue::as_str),
        Some("DEL"),
        "{what}"
    );
}
