//! Records that somebody removed by hand: what is named and is not there is corrupt (clause ERR-3).

use async_nats::jetstream::Context;
use membership::{
    Ciphertext, EndpointId, Epoch, Error, JetStreamStore, NewRoom, RoomId, Store, Timestamp,
};

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
