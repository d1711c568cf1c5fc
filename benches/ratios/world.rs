//! The data of the stores, and concurrent callers.

use std::sync::Arc;

use membership::{
    Ciphertext, EndpointId, Epoch, Label, NewMember, NewRoom, NewUser, Rekey, RoomId, Store,
    Timestamp, UserKey,
};
use tokio::runtime::Runtime;

pub(crate) const USERS: u32 = 100_000;
pub(crate) const ROOMS: u32 = 10_000;
/// How many callers call at once, unless a row says otherwise.
pub(crate) const CALLERS: u32 = 64;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Makes a key that looks random in all 32 bytes. A number always has the same key.
pub(crate) fn user_key(number: u32) -> UserKey {
    let mut state = u64::from(number) ^ 0x9e37_79b9_7f4a_7c15;
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    UserKey::from_bytes(bytes)
}

pub(crate) fn user(number: u32) -> NewUser {
    NewUser {
        key: user_key(number),
        label: Label::new(format!("user {number}")).unwrap(),
        admin: number == 0,
        added_at: NOW,
    }
}

pub(crate) fn room_id(number: u32) -> RoomId {
    format!("room-{number:06}").parse().unwrap()
}

pub(crate) fn endpoint(number: u32) -> EndpointId {
    format!("endpoint-{number:06}").parse().unwrap()
}

/// The owner of `room_id(number)`, which is a member of no other room.
pub(crate) fn owner(number: u32) -> EndpointId {
    endpoint(1_000_000 + number)
}

pub(crate) fn sealed(number: u32) -> Ciphertext {
    Ciphertext::new(number.to_le_bytes().repeat(20)).unwrap()
}

/// Calls `each` with each number, from [`CALLERS`] tasks at once.
pub(crate) fn by_many<F>(
    runtime: &Runtime,
    numbers: std::ops::Range<u32>,
    each: impl Fn(u32) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send,
{
    runtime.block_on(by(CALLERS, numbers, each));
}

/// Calls `each` with each number, from `callers` tasks at once.
pub(crate) async fn by<F>(
    callers: u32,
    numbers: std::ops::Range<u32>,
    each: impl Fn(u32) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (each, numbers) = (each.clone(), numbers.clone());
            tokio::spawn(async move {
                for number in numbers.skip(caller as usize).step_by(callers as usize) {
                    each(number).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

pub(crate) async fn fill_users(store: &Arc<dyn Store>, callers: u32, users: u32) {
    let store = Arc::clone(store);
    by(callers, 0..users, move |number| {
        let store = Arc::clone(&store);
        async move { drop(store.add_user(user(number)).await.unwrap()) }
    })
    .await;
}

/// Makes encrypted rooms, each with an owner of its own.
pub(crate) async fn fill_rooms(store: &Arc<dyn Store>, callers: u32, rooms: u32) {
    let store = Arc::clone(store);
    by(callers, 0..rooms, move |number| {
        let store = Arc::clone(&store);
        async move {
            let id = room_id(number);
            let new = NewRoom::encrypted(id, owner(number), NOW, sealed(number));
            store.create_room(new).await.unwrap();
        }
    })
    .await;
}

/// Makes a room at epoch 1 with `members` members, the owner included.
pub(crate) async fn big_room(
    store: &Arc<dyn Store>,
    callers: u32,
    id: &str,
    members: u32,
) -> RoomId {
    let room: RoomId = id.parse().unwrap();
    let new = NewRoom::encrypted(room.clone(), endpoint(0), NOW, sealed(0));
    store.create_room(new).await.unwrap();
    let (store, id) = (Arc::clone(store), room.clone());
    by(callers, 1..members, move |number| {
        let (store, id) = (Arc::clone(&store), id.clone());
        async move {
            let new = NewMember::sealed(endpoint(number), NOW, Epoch::FIRST, sealed(number));
            store.add_member(&id, new).await.unwrap();
        }
    })
    .await;
    room
}

/// Makes a rekey of a room whose members are the first `members` endpoints.
pub(crate) fn rekey(from: u64, members: u32) -> Rekey {
    let keys = (0..members).map(|number| (endpoint(number), sealed(number)));
    Rekey::new(Epoch::new(from).unwrap(), [], keys).unwrap()
}
