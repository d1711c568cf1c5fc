//! Records and buckets that an operator removes by hand. A record that is named and missing is
//! corrupt (clause ERR-3). A bucket that is made again has nothing of the former one.

use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Config;
use futures_util::TryStreamExt;
use membership::{
    Ciphertext, Decision, DenyReason, EndpointId, Epoch, Error, JetStreamConfig, JetStreamStore,
    NewMember, NewRoom, Rekey, RoomId, Store, Timestamp,
};

use crate::cluster::user;
use crate::server::Server;

async fn encrypted_room(store: &JetStreamStore) -> (RoomId, EndpointId) {
    let (room, owner) = (RoomId::new("ops").unwrap(), EndpointId::new("ann").unwrap());
    let (at, key) = (Timestamp::from_millis(1), Ciphertext::new("sealed").unwrap());
    store.create_room(NewRoom::encrypted(room.clone(), owner.clone(), at, key)).await.unwrap();
    (room, owner)
}

async fn remove(js: &Context, bucket: &str, key: &str) {
    let stream = js.get_stream(format!("KV_{bucket}")).await.unwrap();
    let purged = stream.purge().filter(format!("$KV.{bucket}.{key}")).await.unwrap();
    assert_eq!(purged.purged, 1, "{bucket} {key}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_that_its_room_names_is_corrupt() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("key-").await;
    let (room, ann) = encrypted_room(&store).await;
    remove(&js, "key-room_keys", "ops.*.ann.1.*").await;
    for key in [store.key(&room, &ann, Epoch::FIRST).await, store.latest_key(&room, &ann).await] {
        assert!(matches!(key, Err(Error::Corrupt(_))), "{key:?}");
    }
    assert!(store.room(&room).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_head_is_corrupt() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("head-").await;
    let (id, ann) = encrypted_room(&store).await;
    remove(&js, "head-members", "ops.*.=h").await;
    let room = store.room(&id).await;
    assert!(matches!(room, Err(Error::Corrupt(_))), "{room:?}");
    let key = store.latest_key(&id, &ann).await;
    assert!(matches!(key, Err(Error::Corrupt(_))), "{key:?}");
}

/// A bucket of users that was removed is not made again beside the others, since its bootstrap
/// would be free. The users in it are not let in any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_bucket_of_users_is_not_made_anew() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("again-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    store.add_user(user(2, false)).await.unwrap();
    assert!(store.is_authorized(&user(2, false).key).await.is_allowed());

    js.delete_stream("KV_again-users").await.unwrap();
    let config = JetStreamConfig { prefix: "again-".to_owned(), ..server.config() };
    let opened = JetStreamStore::open(config).await;
    assert!(matches!(opened, Err(Error::Corrupt(_))), "{opened:?}");
    for decision in [store.is_authorized(&user(2, false).key), store.is_admin(&user(1, true).key)] {
        let decision = decision.await;
        assert!(matches!(decision, Decision::Deny(DenyReason::Failed(_))), "{decision:?}");
    }
    assert!(store.has_admin().await.is_err());
}

/// Users cannot be purged, and no edit of the bucket allows it again.
#[tokio::test(flavor = "multi_thread")]
async fn users_cannot_be_purged() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("kept-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    let mut users = js.get_stream("KV_kept-users").await.unwrap();
    assert!(users.purge().await.is_err());
    let mut settings = users.info().await.unwrap().config.clone();
    settings.deny_purge = false;
    assert!(js.update_stream(settings).await.is_err());
    assert!(store.is_authorized(&user(1, true).key).await.is_allowed());
}

/// Once the bucket of users has a `max_age`, no client answers from its copy, and no second
/// bootstrap succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_a_max_age_lets_nobody_in() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("age-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    let mut users = js.get_stream("KV_age-users").await.unwrap();
    let mut settings = users.info().await.unwrap().config.clone();
    settings.max_age = Duration::from_secs(1);
    settings.duplicate_window = Duration::from_secs(1);
    js.update_stream(settings).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while store.is_authorized(&user(1, true).key).await.is_allowed() {
        assert!(Instant::now() < deadline, "still let in after 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let again = store.bootstrap_admin(user(2, true)).await;
    assert!(matches!(again, Err(Error::Unavailable(_))), "{again:?}");
    let config = JetStreamConfig { prefix: "age-".to_owned(), ..server.config() };
    assert!(matches!(JetStreamStore::open(config).await, Err(Error::Invalid(_))));
}

/// A killed server may bring back what it purged, but not what expired: neither the last messages, nor those that they
/// had replaced. The simulated servers rely on this.
#[tokio::test(flavor = "multi_thread")]
async fn what_expired_does_not_come_back_after_the_server_is_killed() {
    let server = Server::start().await;
    let store = server.open("gone-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    store.add_user(user(2, false)).await.unwrap();
    store.revoke_user(&user(2, false).key, Timestamp::from_millis(2)).await.unwrap();
    store.close().await.unwrap();
    let js = async_nats::jetstream::new(server.raw().await);
    let mut users = js.get_stream("KV_gone-users").await.unwrap();
    let before = users.info().await.unwrap().config.clone();
    let age = Duration::from_millis(100);
    let settings = Config { max_age: age, duplicate_window: age, ..before.clone() };
    js.update_stream(settings).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while users.info().await.unwrap().state.messages > 0 {
        assert!(Instant::now() < deadline, "there are still messages after 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let last = users.info().await.unwrap().state.last_sequence;
    js.update_stream(before).await.unwrap();
    js.publish("$KV.gone-users.later", "".into()).await.unwrap().await.unwrap();
    server.kill().await;
    server.run().await;

    let js = async_nats::jetstream::new(server.raw().await);
    let state = js.get_stream("KV_gone-users").await.unwrap().cached_info().state.clone();
    assert_eq!((state.messages, state.first_sequence), (1, last + 1));
}

/// `=format` says that an admin was made. If `=format` is left and the admins are not, no second
/// bootstrap succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_only_its_first_message_left_allows_no_bootstrap() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("left-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    let mut users = js.get_stream("KV_left-users").await.unwrap();
    let settings = users.info().await.unwrap().config.clone();
    let subject = "$KV.left-users.=format";
    let format = users.get_last_raw_message_by_subject(subject).await.unwrap();
    js.delete_stream("KV_left-users").await.unwrap();
    js.create_stream(settings).await.unwrap();
    js.publish(subject, format.payload).await.unwrap().await.unwrap();

    let config = JetStreamConfig { prefix: "left-".to_owned(), ..server.config() };
    let again = JetStreamStore::open(config).await.unwrap();
    let admin = again.has_admin().await;
    assert!(matches!(admin, Err(Error::Corrupt(_))), "{admin:?}");
    let first = again.bootstrap_admin(user(2, true)).await;
    assert!(matches!(first, Err(Error::Corrupt(_))), "{first:?}");
    assert!(again.add_user(user(3, true)).await.is_err());
}

/// Tickets name garbage that is still to be collected. A room with more tickets than one answer of a server may hold
/// works all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_with_thousands_of_tickets_still_changes() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("many-").await;
    let (room, ann) = encrypted_room(&store).await;
    let members = js.get_stream("KV_many-members").await.unwrap();
    let head = members.get_last_raw_message_by_subject("$KV.many-members.ops.*.=h").await.unwrap();
    let incarnation = head.subject.trim_end_matches(".=h").to_owned();
    for n in 0..1_100 {
        let ticket = format!("{incarnation}.=g.t{n}");
        js.publish(ticket, "".into()).await.unwrap().await.unwrap();
    }
    let (at, bob) = (Timestamp::from_millis(2), EndpointId::new("bob").unwrap());
    let sealed = || Ciphertext::new("sealed").unwrap();
    let new = NewMember::sealed(bob.clone(), at, Epoch::FIRST, sealed());
    store.add_member(&room, new).await.unwrap();
    store.remove_member(&room, &bob).await.unwrap();
    let rekey = Rekey::new(Epoch::FIRST, [], [(ann.clone(), sealed())]).unwrap();
    assert_eq!(store.rekey(&room, rekey).await.unwrap().epoch.get(), 2);
    assert!(store.latest_key(&room, &ann).await.is_ok());
}

/// A healthy consumer is kept, even while it has nothing to deliver.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_bucket_keeps_its_consumer() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("rest-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    assert!(store.is_authorized(&user(1, true).key).await.is_allowed());
    let users = js.get_stream("KV_rest-users").await.unwrap();
    let consumers = async || users.consumer_names().try_collect::<Vec<_>>().await.unwrap();
    let before = consumers().await;
    assert_eq!(before.len(), 1);
    // The test waits longer than three heartbeats, after which a silent consumer is replaced.
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    assert_eq!(consumers().await, before);
}
