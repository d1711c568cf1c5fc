//! What the stores are filled with, and callers.

use std::sync::Arc;

use membership::{
    Ciphertext, EndpointId, Epoch, Label, NewMember, NewRoom, NewUser, RoomId, Store, Timestamp,
    UserKey,
};
use tokio::runtime::Runtime;

pub(crate) const USERS: u32 = 100_000;
pub(crate) const ROOMS: u32 = 10_000;
/// How many callers there are at once, where there are several.
pub(crate) const CALLERS: u32 = 64;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A key that looks like one: spread over all 32 bytes, the same for the same number.
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

pub(crate) fn sealed(number: u32) -> Ciphertext {
    Ciphertext::new(number.to_le_bytes().repeat(20)).unwrap()
}

/// Runs `each` of the numbers, from [`CALLERS`] tasks at once.
pub(crate) fn by_many<F>(
    runtime: &Runtime,
    numbers: std::ops::Range<u32>,
    each: impl Fn(u32) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send,
{
    runtime.block_on(async {
        let tasks: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (each, numbers) = (each.clone(), numbers.clone());
                tokio::spawn(async move {
                    for number in numbers.skip(caller as usize).step_by(CALLERS as usize) {
                        each(number).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

pub(crate) fn fill_users(runtime: &Runtime, store: &Arc<dyn Store>, users: u32) {
    let store = Arc::clone(store);
    by_many(runtime, 0..users, move |number| {
        let store = Arc::clone(&store);
        async move { drop(store.add_user(user(number)).await.unwrap()) }
    });
}

/// Encrypted rooms, each with its owner `endpoint(0)` and one member of its own.
pub(crate) fn fill_rooms(runtime: &Runtime, store: &Arc<dyn Store>, rooms: std::ops::Range<u32>) {
    let store = Arc::clone(store);
    by_many(runtime, rooms, move |number| {
        let store = Arc::clone(&store);
        async move {
            let id = room_id(number);
            let owner = endpoint(number % 100);
            let new = NewRoom::encrypted(id.clone(), owner, NOW, sealed(number));
            store.create_room(new).await.unwrap();
            let who = endpoint(1_000_000 + number);
            let new = NewMember::sealed(who, NOW, Epoch::FIRST, sealed(number));
            store.add_member(&id, new).await.unwrap();
        }
    });
}

/// A room at epoch 1 with `members` members, the owner among them.
pub(crate) fn big_room(
    runtime: &Runtime,
    store: &Arc<dyn Store>,
    id: &str,
    members: u32,
) -> RoomId {
    let room: RoomId = id.parse().unwrap();
    let new = NewRoom::encrypted(room.clone(), endpoint(0), NOW, sealed(0));
    runtime.block_on(store.create_room(new)).unwrap();
    let (store, id) = (Arc::clone(store), room.clone());
    by_many(runtime, 1..members, move |number| {
        let (store, id) = (Arc::clone(&store), id.clone());
        async move {
            let new = NewMember::sealed(endpoint(number), NOW, Epoch::FIRST, sealed(number));
            store.add_member(&id, new).await.unwrap();
        }
    });
    room
}
