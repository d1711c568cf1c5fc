//! What somebody removed by hand, or left alone: a record that is named and is not there is corrupt (clause
//! ERR-3), and a bucket that is made again has nothing of the former one.

use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use futures_util::TryStreamExt;
use membership::{
    Ciphertext, Decision, DenyReason, EndpointId, Epoch, Error, JetStreamStore, NewRoom, RoomId,
    Store, Timestamp,
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
async fn a_key_that_its_room_names() {
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
async fn the_head_of_a_room() {
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

/// Whoever was in the bucket that was there before is not let in by a store that knew it.
#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_of_users_which_is_made_again() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("again-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    store.add_user(user(2, false)).await.unwrap();
    assert!(store.is_authorized(&user(2, false).key).await.is_allowed());

    js.delete_stream("KV_again-users").await.unwrap();
    let other = server.open("again-").await;
    other.bootstrap_admin(user(3, true)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !store.is_authorized(&user(3, true).key).await.is_allowed() {
        let former = store.is_authorized(&user(2, false).key).await;
        assert!(!former.is_allowed(), "a user is let in whom nobody added");
        assert!(Instant::now() < deadline, "not seen within 30 s");
    }
    let former = store.is_authorized(&user(2, false).key).await;
    assert_eq!(former, Decision::Deny(DenyReason::Unknown));
}

/// A consumer lives as long as nothing is wrong with it, also where there is nothing to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_nobody_changes_is_followed_by_one_consumer() {
    let server = Server::start().await;
    let js = async_nats::jetstream::new(server.raw().await);
    let store = server.open("rest-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    assert!(store.is_authorized(&user(1, true).key).await.is_allowed());
    let users = js.get_stream("KV_rest-users").await.unwrap();
    let consumers = async || users.consumer_names().try_collect::<Vec<_>>().await.unwrap();
    let before = consumers().await;
    assert_eq!(before.len(), 1);
    // Longer than three heartbeats.
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    assert_eq!(consumers().await, before);
}
