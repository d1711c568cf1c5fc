//! Errors name what keeps a store from working, rather than only report a timeout.

use std::time::{Duration, Instant};

use membership::{
    Ciphertext, Credentials, Decision, DenyReason, Error, JetStreamConfig, JetStreamStore, NewRoom,
    ReadMode, Store, Timestamp, UserKey,
};
use nats_cluster::ClusterOptions;

use crate::badinput::refused;
use crate::server::Server;
use crate::who::{NEVER, Operated, user_with};

const TIMEOUT: Duration = Duration::from_secs(1);
const USER: UserKey = UserKey::from_bytes([1; 32]);

/// Repeats a call, which must always fail, until its error contains `expected`.
async fn fails_with(call: impl AsyncFn() -> Error, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let said = call().await.to_string();
        println!("{said}");
        if said.contains(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{said:?} has no {expected:?}");
    }
}

/// The users in a server's configuration: `app` with these permissions, and another user with all
/// permissions.
fn users(password: &str, permissions: &str) -> String {
    format!(
        "authorization {{ users: [ {{ user: all, password: p }},\n\
         {{ user: app, password: {password}, permissions: {{ {permissions} }} }} ] }}\n\
         no_auth_user: all\n"
    )
}

async fn decide(store: &JetStreamStore) -> Error {
    match store.is_authorized(&USER).await {
        Decision::Deny(DenyReason::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_was_withdrawn_is_named() {
    let all = "publish: [\">\"]";
    let server = Server::start_with(ClusterOptions::servers(1).lines(users("p", all))).await;
    let credentials = Credentials::UserPassword { user: "app".into(), password: "p".into() };
    let config = JetStreamConfig { credentials, op_timeout: TIMEOUT, ..server.config() };
    let bound = Duration::from_millis(500);
    let read_mode = ReadMode::BoundedStaleness { bound };
    let bounded =
        JetStreamStore::open(JetStreamConfig { read_mode, ..config.clone() }).await.unwrap();
    let store = JetStreamStore::open(config).await.unwrap();
    let room = "ops".parse().unwrap();
    let everything = async |what: &str| {
        fails_with(async || decide(&store).await, what).await;
        fails_with(async || decide(&bounded).await, what).await;
        fails_with(async || store.has_admin().await.unwrap_err(), what).await;
        fails_with(async || store.room(&room).await.unwrap_err(), what).await;
        let new = || {
            NewRoom::unencrypted(room.clone(), "ann".parse().unwrap(), Timestamp::from_millis(1))
        };
        fails_with(async || store.create_room(new()).await.unwrap_err(), what).await;
    };
    let mut before = users("p", all);
    for (now, what) in [
        (
            users("p", "publish: { deny: [\"$KV.>\"] }"),
            "Permissions Violation for Publish to \"$KV.",
        ),
        (
            users("p", "subscribe: { deny: [\"_INBOX.>\"] }"),
            "Permissions Violation for Subscription to \"_INBOX.",
        ),
        (users("other", all), "authorization violation; check the credentials"),
    ] {
        server.run_with(|text| text.replace(&before, &now)).await;
        everything(what).await;
        before = now;
    }
    // Once the permissions are given back, calls work again.
    server.run_with(|text| text.replace(&before, &users("p", all))).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = store.has_admin().await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_named() {
    let server = Server::start().await;
    let store = JetStreamStore::open(JetStreamConfig { op_timeout: TIMEOUT, ..server.config() })
        .await
        .unwrap();
    server.kill().await;
    let what = format!("no connection: {}: IO error", server.url());
    fails_with(async || store.has_admin().await.unwrap_err(), &what).await;
}

/// Starts a server whose only account has these limits.
async fn limited(limits: &str) -> Server {
    let lines = format!(
        "accounts {{ A {{ jetstream {{ {limits} }}\nusers: [ {{ user: a, password: a }} ] }} }}\n\
         no_auth_user: a"
    );
    Server::start_with(ClusterOptions::servers(1).lines(lines)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_room_for_streams_is_named() {
    let server = limited("max_streams: 3").await;
    let said = refused(server.config()).await;
    assert!(said.contains("maximum number of streams reached"), "{said}");
    assert!(said.ends_with("; raise the account's limit"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_demands_a_limit_of_bytes_gets_one() {
    let server = limited("max_file: 100M, max_bytes_required: true").await;
    let said = refused(server.config()).await;
    assert!(said.starts_with("invalid bucket_max_bytes: is not given, and this account"), "{said}");
    let with = |bytes| JetStreamConfig { bucket_max_bytes: Some(bytes), ..server.config() };
    let said = refused(JetStreamConfig { prefix: "large-".into(), ..with(60 << 20) }).await;
    assert!(said.ends_with("; raise the account's limit"), "{said}");
    let js = async_nats::jetstream::new(server.raw().await);
    // The buckets for which the account had room are removed.
    for bucket in ["rooms", "members", "rooms_by_member", "room_keys", "users"] {
        let _ = js.delete_stream(format!("KV_large-{bucket}")).await;
    }
    let store = JetStreamStore::open(with(10 << 20)).await.unwrap();
    for bucket in ["rooms", "members", "rooms_by_member", "room_keys", "users"] {
        let mut stream = js.get_stream(format!("KV_{bucket}")).await.unwrap();
        assert_eq!(stream.info().await.unwrap().config.max_bytes, 10 << 20, "{bucket}");
    }
    store.close().await.unwrap();
}

/// Counts how many consumers the server was asked to make meanwhile.
async fn consumers_asked(server: &Server, meanwhile: impl Future<Output = ()>) -> usize {
    let client = server.raw().await;
    let mut audit = client.subscribe("$JS.EVENT.ADVISORY.API").await.unwrap();
    client.flush().await.unwrap();
    meanwhile.await;
    let mut asked = 0;
    while let Ok(Some(event)) =
        tokio::time::timeout(Duration::from_millis(200), futures_util::StreamExt::next(&mut audit))
            .await
    {
        let event: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
        asked += usize::from(event["subject"].as_str().unwrap().contains(".CONSUMER.CREATE."));
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_room_for_consumers_is_named_and_rarely_asked() {
    let server = limited("max_consumers: 1").await;
    let config = JetStreamConfig { op_timeout: TIMEOUT, ..server.config() };
    // The first store has the only consumer, so the second store gets none.
    let first = JetStreamStore::open(config.clone()).await.unwrap();
    let asked = consumers_asked(&server, async {
        let said = Box::pin(refused(config.clone())).await;
        assert!(said.contains("maximum consumers limit reached"), "{said}");
    })
    .await;
    // This is the count of ten seconds. A former version asked every 20 ms.
    println!("{asked} consumers asked for");
    assert!((2..=40).contains(&asked), "{asked} consumers");
    assert_eq!(first.has_admin().await, Ok(false));

    // The same must hold for stores that are open when the limit is lowered.
    server.run_with(|text| text.replace("max_consumers: 1", "max_consumers: 2")).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let second = loop {
        match JetStreamStore::open(config.clone()).await {
            Ok(second) => break second,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    server.run_with(|text| text.replace("max_consumers: 2", "max_consumers: 1")).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let stores = [first, second];
    'refused: loop {
        for store in &stores {
            if let Err(error) = store.has_admin().await
                && error.to_string().contains("maximum consumers limit reached")
            {
                break 'refused;
            }
        }
        assert!(Instant::now() < deadline, "both have one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_take_only_small_messages_are_refused() {
    for most in ["4KB", "64KB", "524287"] {
        let lines = format!("max_payload: {most}");
        let server = Server::start_with(ClusterOptions::servers(1).lines(lines)).await;
        let begun = Instant::now();
        let said = refused(server.config()).await;
        assert!(said.starts_with("invalid server: takes messages of "), "{said}");
        assert!(said.ends_with("raise its max_payload to 524288 or more"), "{said}");
        assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
        let streams = server.raw().await.request("$JS.API.STREAM.NAMES", "".into()).await.unwrap();
        let streams: serde_json::Value = serde_json::from_slice(&streams.payload).unwrap();
        assert_eq!(streams["total"], 0, "{streams}");
    }
    let server = Server::start_with(ClusterOptions::servers(1).lines("max_payload: 524288")).await;
    server.open("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_send_only_small_messages_is_refused() {
    let Operated { server, account, .. } = Operated::start().await;
    let dir = tempfile::tempdir().unwrap();
    let as_ = |payload: i64| {
        let path = dir.path().join(format!("{payload}.creds"));
        std::fs::write(&path, user_with(&account, NEVER, payload)).unwrap();
        JetStreamConfig { credentials: Credentials::File(path), ..server.config() }
    };
    let begun = Instant::now();
    let said = refused(as_(64 << 10)).await;
    assert!(said.contains("Maximum Payload Violation; raise max_payload of"), "{said}");
    assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
    crate::who::opens(as_(512 << 10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_became_too_large_is_refused_at_once() {
    let lines = "max_payload: 1MB";
    let server = Server::start_with(ClusterOptions::servers(1).lines(lines)).await;
    let store = server.open("").await;
    server.run_with(|text| text.replace(lines, "max_payload: 4KB")).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = store.has_admin().await {
        assert!(Instant::now() < deadline, "{error}");
    }
    let key = Ciphertext::new(vec![7; 4096]).unwrap();
    let room = "ops".parse().unwrap();
    let new = NewRoom::encrypted(room, "ann".parse().unwrap(), Timestamp::from_millis(1), key);
    let begun = Instant::now();
    let said = store.create_room(new).await.unwrap_err().to_string();
    println!("{:?}: {said}", begun.elapsed());
    assert!(said.contains("Payload size limit of 4096 exceeded by message size of "), "{said}");
    assert!(said.ends_with("; raise the server's max_payload"), "{said}");
    // The error must come at once, and `op_timeout` is five seconds.
    assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
}
