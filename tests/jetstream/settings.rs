//! Buckets that exist already. If their settings would break the contract, the store refuses them,
//! names the setting to change, and changes nothing.

use std::time::Duration;

use async_nats::jetstream::{Context, stream};
use membership::{Damage, JetStreamConfig, Store};

use crate::badinput::refused;
use crate::server::Server;

type Change = fn(&mut stream::Config);

/// The settings with which the store makes a bucket, changed by `change`.
fn bucket(prefix: &str, change: impl FnOnce(&mut stream::Config)) -> stream::Config {
    let mut config = stream::Config {
        name: format!("KV_{prefix}users"),
        subjects: vec![format!("$KV.{prefix}users.>")],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_direct: true,
        allow_atomic_publish: true,
        ..stream::Config::default()
    };
    change(&mut config);
    config
}

async fn context(server: &Server) -> Context {
    async_nats::jetstream::new(server.raw().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_would_break_the_contract_are_refused() {
    let server = Server::start().await;
    let js = context(&server).await;
    let changes: [(&str, &str, Change); 12] = [
        ("forgets what is old (max_age)", "--max-age=0", |c| c.max_age = Duration::from_mins(1)),
        ("more than one revision", "--max-msgs-per-subject=1", |c| {
            c.max_messages_per_subject = 5;
        }),
        ("more than one revision", "--max-msgs-per-subject=1", |c| {
            c.max_messages_per_subject = -1;
        }),
        ("in memory", "use another prefix", |c| c.storage = stream::StorageType::Memory),
        ("retention", "use another prefix", |c| {
            c.retention = stream::RetentionPolicy::Interest;
        }),
        ("discard policy old", "--discard=new", |c| {
            (c.discard, c.max_bytes) = (stream::DiscardPolicy::Old, 1 << 20);
        }),
        ("discard policy old", "--discard=new", |c| {
            (c.discard, c.max_messages) = (stream::DiscardPolicy::Old, 1000);
        }),
        ("only small messages", "--max-msg-size=-1", |c| c.max_message_size = 1024),
        ("no direct get", "--allow-direct", |c| c.allow_direct = false),
        ("no atomic batches", "--allow-batch", |c| c.allow_atomic_publish = false),
        ("acknowledges nothing", "--ack", |c| c.no_ack = true),
        ("limits who may listen", "use another prefix", |c| c.max_consumers = 1),
    ];
    for (n, (what, how, change)) in changes.into_iter().enumerate() {
        let prefix = format!("s{n}-");
        let made = js.create_stream(bucket(&prefix, change)).await.unwrap().cached_info().clone();
        let said = refused(JetStreamConfig { prefix: prefix.clone(), ..server.config() }).await;
        assert!(said.starts_with(&format!("invalid bucket: {prefix}users ")), "{said}");
        assert!(said.contains(what) && said.contains(how), "{said}");
        assert!(said.contains(&format!("KV_{prefix}users")), "{said}");
        let mut left = js.get_stream(format!("KV_{prefix}users")).await.unwrap();
        let left = left.info().await.unwrap();
        assert_eq!((&left.config, left.state.messages), (&made.config, 0), "it was changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_with_foreign_subjects_or_sources_are_refused() {
    let server = Server::start().await;
    let js = context(&server).await;
    let config = |prefix: &str| JetStreamConfig { prefix: prefix.to_owned(), ..server.config() };
    js.create_stream(bucket("wide-", |c| c.subjects.push("elsewhere".to_owned()))).await.unwrap();
    assert!(refused(config("wide-")).await.contains("wide-users has other subjects"));
    js.create_stream(bucket("from-", |_| ())).await.unwrap();
    js.create_stream(bucket("into-", |c| {
        let name = "KV_from-users".to_owned();
        c.sources = Some(vec![stream::Source { name, ..Default::default() }]);
    }))
    .await
    .unwrap();
    assert!(refused(config("into-")).await.contains("into-users is a mirror or has sources"));
}

#[tokio::test(flavor = "multi_thread")]
async fn harmless_settings_are_accepted() {
    let server = Server::start().await;
    let js = context(&server).await;
    js.create_stream(bucket("lim-", |c| c.max_bytes = 1 << 20)).await.unwrap();
    server.open("lim-").await.close().await.unwrap();
    // The buckets are made by hand, with the settings that the store needs.
    js.create_stream(bucket("fit-", |_| ())).await.unwrap();
    server.open("fit-").await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_of_another_version_or_program_are_refused() {
    let server = Server::start().await;
    let js = context(&server).await;
    let config = |prefix: &str| JetStreamConfig { prefix: prefix.to_owned(), ..server.config() };

    js.create_stream(bucket("used-", |_| ())).await.unwrap();
    js.publish("$KV.used-users.something", "else".into()).await.unwrap().await.unwrap();
    let said = refused(config("used-")).await;
    assert!(said.starts_with("corrupt used-rooms =format: missing, though other"), "{said}");

    server.open("fit-").await.close().await.unwrap();
    js.publish("$KV.fit-users.=format", "1:garbage".into()).await.unwrap().await.unwrap();
    let said = refused(config("fit-")).await;
    assert!(said.starts_with("corrupt users =format: the value"), "{said}");

    let store = server.open("new-").await;
    store.corrupt(&Damage::Version).await.unwrap();
    store.close().await.unwrap();
    let said = refused(config("new-")).await;
    assert!(
        said.contains(" =format: format 3, and this program knows 2; use the program"),
        "{said}"
    );

    let store = server.open("gone-").await;
    let user = membership::NewUser {
        key: membership::UserKey::from_bytes([1; 32]),
        label: membership::Label::new("u").unwrap(),
        admin: true,
        added_at: membership::Timestamp::from_millis(1),
    };
    store.bootstrap_admin(user).await.unwrap();
    store.close().await.unwrap();
    let rooms = js.get_stream("KV_gone-rooms").await.unwrap();
    rooms.purge().filter("$KV.gone-rooms.=format").await.unwrap();
    let said = refused(config("gone-")).await;
    assert!(said.starts_with("corrupt gone-rooms =format: missing, though"), "{said}");
}
