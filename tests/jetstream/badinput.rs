//! What an operator or an editor of buckets can get wrong: one clear error each, and nobody let in.

use std::time::Duration;

use async_nats::jetstream::stream;
use membership::{
    Ciphertext, Credentials, Damage, Decision, DenyReason, EndpointId, Epoch, Error,
    JetStreamConfig, JetStreamStore, Label, NewMember, NewRoom, NewUser, Page, RoomId, Store,
    Timestamp, UserKey,
};

use crate::server::Server;

async fn refused(config: JetStreamConfig) -> String {
    let config = JetStreamConfig { op_timeout: Duration::from_millis(400), ..config };
    let begun = std::time::Instant::now();
    let error = JetStreamStore::open(config).await.expect_err("opened");
    assert!(begun.elapsed() < Duration::from_millis(4250), "{:?}", begun.elapsed());
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    println!("{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_do_not_fit() {
    assert!(refused(JetStreamConfig::new(["http://a b"])).await.contains("no NATS URL"));
    let closed = refused(JetStreamConfig::new(["nats://127.0.0.1:1"])).await;
    assert!(closed.contains("cannot connect to nats://127.0.0.1:1"), "{closed}");

    let server = Server::start_with(&["--user", "u", "--pass", "p"]);
    let wrong = JetStreamConfig {
        credentials: Credentials::UserPassword { user: "u".into(), password: "wrong".into() },
        ..server.config()
    };
    assert!(refused(wrong).await.contains("check the credentials"));
    assert!(refused(server.config()).await.contains("check the credentials"));
    let right = JetStreamConfig {
        credentials: Credentials::UserPassword { user: "u".into(), password: "p".into() },
        ..server.config()
    };
    JetStreamStore::open(right.clone()).await.unwrap();
    let many = refused(JetStreamConfig { replicas: 3, prefix: "many-".into(), ..right }).await;
    assert!(many.contains("invalid replicas: are more than the servers there are"), "{many}");

    let server = Server::start_plain();
    let plain = refused(server.config()).await;
    assert!(plain.contains("JetStream"), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_that_do_not_fit() {
    let server = Server::start();
    let js = async_nats::jetstream::new(server.raw().await);
    let bucket = |prefix: &str| stream::Config {
        name: format!("KV_{prefix}users"),
        subjects: vec![format!("$KV.{prefix}users.>")],
        max_messages_per_subject: 1,
        allow_direct: true,
        allow_atomic_publish: true,
        ..stream::Config::default()
    };
    let config = |prefix: &str| JetStreamConfig { prefix: prefix.into(), ..server.config() };

    let aging = stream::Config { max_age: Duration::from_mins(1), ..bucket("age-") };
    js.create_stream(aging).await.unwrap();
    let said = refused(config("age-")).await;
    assert!(said.contains("age-users") && said.contains("--max-age=0"), "{said}");

    js.create_stream(stream::Config { allow_atomic_publish: false, ..bucket("kv-") })
        .await
        .unwrap();
    assert!(refused(config("kv-")).await.contains("allow_atomic"));

    js.create_stream(bucket("used-")).await.unwrap();
    js.publish("$KV.used-users.something", "else".into()).await.unwrap().await.unwrap();
    let said = refused(config("used-")).await;
    assert!(said.starts_with("corrupt used-users =format"), "{said}");

    js.create_stream(bucket("fit-")).await.unwrap();
    server.open("fit-").await.close().await.unwrap();
    js.publish("$KV.fit-users.=format", "1:garbage".into()).await.unwrap().await.unwrap();
    let said = refused(config("fit-")).await;
    assert!(said.starts_with("corrupt users =format"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_bucket_says_so_and_loses_nothing() {
    let server = Server::start();
    let store = server.open("full-").await;
    let js = async_nats::jetstream::new(server.raw().await);
    let room: RoomId = "ops".parse().unwrap();
    let at = Timestamp::from_millis(1);
    let key = Ciphertext::new(vec![7; 4096]).unwrap();
    let new = NewRoom::encrypted(room.clone(), "ann".parse().unwrap(), at, key.clone());
    store.create_room(new).await.unwrap();
    let mut stream = js.get_stream("KV_full-room_keys").await.unwrap();
    let settings = stream.info().await.unwrap().config.clone();
    let limited = stream::Config { max_bytes: 20_000, ..settings.clone() };
    js.update_stream(limited).await.unwrap();
    let mut added = 1;
    let error = loop {
        let who = format!("endpoint {added}").parse().unwrap();
        let new = NewMember::sealed(who, at, Epoch::FIRST, key.clone());
        match store.add_member(&room, new).await {
            Ok(_) => added += 1,
            Err(error) => break error,
        }
    };
    println!("{error}");
    assert!(matches!(error, Error::Unavailable(_)) && error.to_string().contains("maximum bytes"));
    assert_eq!(store.members(&room, Page::first()).await.unwrap().len(), added);
    js.update_stream(settings).await.unwrap();
    let who = format!("endpoint {added}").parse().unwrap();
    store.add_member(&room, NewMember::sealed(who, at, Epoch::FIRST, key)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_edited_by_hand_is_corrupt_and_lets_nobody_in() {
    let server = Server::start();
    let store = server.open("e-").await;
    let at = Timestamp::from_millis(1);
    let (room, ann): (RoomId, EndpointId) = ("ops".parse().unwrap(), "ann".parse().unwrap());
    let user = UserKey::from_bytes([1; 32]);
    let corrupt = |error: Error, place: &str| {
        assert!(matches!(&error, Error::Corrupt(c) if c.place() == place), "{error}");
    };
    let label = Label::new("u").unwrap();
    store.bootstrap_admin(NewUser { key: user, label, admin: true, added_at: at }).await.unwrap();

    let fresh = async || {
        let key = Ciphertext::new("sealed").unwrap();
        let made = store.create_room(NewRoom::encrypted(room.clone(), ann.clone(), at, key)).await;
        assert!(made.is_ok() || matches!(made, Err(Error::AlreadyExists(_))), "{made:?}");
    };
    fresh().await;
    store.corrupt(&Damage::Keys(room.clone(), ann.clone(), None)).await.unwrap();
    corrupt(store.latest_key(&room, &ann).await.unwrap_err(), "room_keys");
    store.corrupt(&Damage::Member(room.clone(), ann.clone())).await.unwrap();
    corrupt(store.member(&room, &ann).await.unwrap_err(), "members");
    corrupt(store.members(&room, Page::first()).await.unwrap_err(), "members");
    corrupt(store.latest_key(&room, &ann).await.unwrap_err(), "members");
    corrupt(store.rooms_of(&ann, Page::first()).await.unwrap_err(), "members");
    store.corrupt(&Damage::Head(room.clone())).await.unwrap();
    corrupt(store.room(&room).await.unwrap_err(), "members");
    store.corrupt(&Damage::Index(ann.clone())).await.unwrap();
    corrupt(store.rooms_of(&ann, Page::first()).await.unwrap_err(), "rooms_by_member");
    store.corrupt(&Damage::Room(room.clone())).await.unwrap();
    corrupt(store.room(&room).await.unwrap_err(), "rooms");
    corrupt(store.delete_room(&room).await.unwrap_err(), "rooms");

    store.corrupt(&Damage::User(user)).await.unwrap();
    corrupt(store.user(&user).await.unwrap_err(), "users");
    corrupt(store.users(Page::first()).await.unwrap_err(), "users");
    let decision = store.is_authorized(&user).await;
    assert!(
        matches!(&decision, Decision::Deny(DenyReason::Failed(Error::Corrupt(_)))),
        "{decision:?}"
    );
    store.corrupt(&Damage::Admins).await.unwrap();
    corrupt(store.has_admin().await.unwrap_err(), "users");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_is_closed_and_a_dropped_one_leaves_the_other() {
    let server = Server::start();
    let (a, b, c) = (server.open("z-").await, server.open("z-").await, server.open("z-").await);
    let (first, second) = tokio::join!(a.close(), a.close());
    first.unwrap();
    second.unwrap();
    let user = UserKey::from_bytes([1; 32]);
    assert_eq!(a.has_admin().await, Err(Error::Closed));
    assert_eq!(a.set_replicas(1, |_| {}).await, Err(Error::Closed));
    assert_eq!(a.is_authorized(&user).await, Decision::Deny(DenyReason::Failed(Error::Closed)));
    drop(c);
    assert_eq!(b.has_admin().await, Ok(false));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    // Theirs are gone.
    loop {
        let left = server.connections();
        if left == 1 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{left} connections are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
