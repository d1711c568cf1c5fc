//! Buckets, accounts and servers that are full. The error must be clear, nothing may be lost, and
//! calls must work again once there is room.

use std::time::{Duration, Instant};

use async_nats::jetstream::{Context, stream};
use membership::{
    Ciphertext, Decision, DenyReason, Epoch, Error, JetStreamConfig, JetStreamStore, Label,
    NewMember, NewRoom, NewUser, Page, RoomId, Store, Timestamp, UserKey,
};
use nats_cluster::{Cluster, ClusterOptions};

use crate::server::Server;

const AT: Timestamp = Timestamp::from_millis(1);

fn user(n: u8, admin: bool) -> NewUser {
    let label = Label::new("x".repeat(200)).unwrap();
    NewUser { key: UserKey::from_bytes([n; 32]), label, admin, added_at: AT }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_bucket_refuses_writes_and_loses_nothing() {
    let server = Server::start().await;
    let store = server.open("full-").await;
    let js = async_nats::jetstream::new(server.raw().await);
    let room: RoomId = "ops".parse().unwrap();
    let key = Ciphertext::new(vec![7; 4096]).unwrap();
    let new = NewRoom::encrypted(room.clone(), "ann".parse().unwrap(), AT, key.clone());
    store.create_room(new).await.unwrap();
    let mut stream = js.get_stream("KV_full-room_keys").await.unwrap();
    let settings = stream.info().await.unwrap().config.clone();
    let limited = stream::Config { max_bytes: 20_000, ..settings.clone() };
    js.update_stream(limited).await.unwrap();
    let mut added = 1;
    let error = loop {
        let who = format!("endpoint {added}").parse().unwrap();
        let new = NewMember::sealed(who, AT, Epoch::FIRST, key.clone());
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
    store.add_member(&room, NewMember::sealed(who, AT, Epoch::FIRST, key)).await.unwrap();
}

/// Fills all room, with a stream of its own.
async fn fill(js: &Context, replicas: usize) {
    let config = stream::Config {
        name: "filler".to_owned(),
        subjects: vec!["filler.>".to_owned()],
        num_replicas: replicas,
        ..stream::Config::default()
    };
    js.create_stream(config).await.unwrap();
    // The messages become ever smaller, so that at last no small message has room either.
    for size in [64 << 10, 4 << 10, 256, 1] {
        let mut stored = 0;
        while let Ok(ack) = js.publish("filler.x", vec![0; size].into()).await
            && let Ok(_) = ack.await
        {
            stored += 1;
            assert!(stored < 10_000, "the stream never fills up");
        }
    }
}

/// Repeats a call until it is refused: servers tell one another how full they are, with some delay.
async fn refused<T>(call: impl AsyncFn() -> Result<T, Error>) -> Error {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match call().await {
            Ok(_) => assert!(Instant::now() < deadline, "there is still room"),
            Err(error) => return error,
        }
    }
}

/// Repeats a call until it succeeds, for the same reason.
async fn accepted<T>(call: impl AsyncFn() -> Result<T, Error>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => {
                assert!(error.outcome_unknown(), "{error}");
                assert!(Instant::now() < deadline, "{error}");
            }
        }
    }
}

async fn everything_stops_and_goes_on(url: String, js: Context, replicas: u8) {
    let config = JetStreamConfig {
        replicas,
        op_timeout: Duration::from_secs(1),
        ..JetStreamConfig::new([url])
    };
    let store = JetStreamStore::open(config).await.unwrap();
    store.bootstrap_admin(user(1, true)).await.unwrap();
    store.add_user(user(2, false)).await.unwrap();
    let room: RoomId = "ops".parse().unwrap();
    store
        .create_room(NewRoom::unencrypted(room.clone(), "ann".parse().unwrap(), AT))
        .await
        .unwrap();

    fill(&js, replicas.into()).await;
    let full = |error: &Error| {
        let text = error.to_string();
        assert!(matches!(error, Error::Unavailable(_)), "{text}");
        assert!(text.contains("nothing more can be stored until its limit is raised"), "{text}");
    };
    full(&refused(async || store.has_admin().await).await);
    full(&refused(async || store.room(&room).await).await);
    full(&store.add_user(user(3, false)).await.unwrap_err());
    let more = NewRoom::unencrypted("more".parse().unwrap(), "ann".parse().unwrap(), AT);
    full(&store.create_room(more).await.unwrap_err());
    for n in [1, 2, 3] {
        let begun = Instant::now();
        let decision = store.is_authorized(&user(n, false).key).await;
        println!("{:?} {decision:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_millis(1250), "{:?}", begun.elapsed());
        match decision {
            Decision::Deny(DenyReason::Failed(error)) => full(&error),
            other => panic!("{other:?}"),
        }
    }

    js.delete_stream("filler").await.unwrap();
    assert_eq!(accepted(async || store.users(Page::first()).await).await.len(), 2);
    assert_eq!(accepted(async || store.room(&room).await).await.id, room);
    assert!(store.is_authorized(&user(2, false).key).await.is_allowed());
    accepted(async || store.add_user(user(3, false)).await).await;
    store.close().await.unwrap();
}

/// Tests an account that may store this much, on this many servers.
async fn account(servers: u8, max_file: &str) {
    let lines = format!(
        "accounts {{ A {{ jetstream {{ max_file: {max_file}, max_mem: 10M }}\n\
         users: [ {{ user: a, password: a }} ] }} }}\nno_auth_user: a"
    );
    let options = ClusterOptions::servers(servers.into()).lines(lines);
    let cluster = Cluster::start(options).await.unwrap();
    let url = cluster.client_url(0).unwrap();
    let js = async_nats::jetstream::new(async_nats::connect(&url).await.unwrap());
    everything_stops_and_goes_on(url, js, servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_account_denies_and_recovers() {
    account(1, "600K").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_account_on_three_servers_denies_and_recovers() {
    account(3, "2M").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_denies_and_recovers() {
    let server = Server::start_with(ClusterOptions::servers(1).max_file_store(600 << 10)).await;
    let js = async_nats::jetstream::new(server.raw().await);
    everything_stops_and_goes_on(server.url(), js, 1).await;
}
