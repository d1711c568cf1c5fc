//! Random sequences of calls, answered alike by the memory store and by SQLite.

use fastrand::Rng;
use membership::{
    EndpointId, Epoch, MemoryStore, NewMember, NewRoom, NewUser, Page, Rekey, RoomId, SealedKey,
    SqliteStore, Store, Timestamp, UserKey,
};

use crate::support::{self, endpoint, key, new_path, room, sealed};

const CALLS: usize = 4000;

/// Few of each, so that calls meet; the order of their bytes is not that of their letters.
const ROOMS: [&str; 5] = ["a", "A", "ä", "a b", "%"];
const ENDPOINTS: [&str; 7] = ["ann", "Ann", "bob", "é", "e\u{301}", "z*>", "🦀"];
const USERS: u64 = 8;

enum Call {
    CreateRoom(NewRoom),
    Room(RoomId),
    RoomsOf(EndpointId, Page<RoomId>),
    DeleteRoom(RoomId),
    AddMember(RoomId, NewMember),
    Member(RoomId, EndpointId),
    Members(RoomId, Page<EndpointId>),
    RemoveMember(RoomId, EndpointId),
    Rekey(RoomId, Rekey),
    Key(RoomId, EndpointId, Epoch),
    LatestKey(RoomId, EndpointId),
    BootstrapAdmin(NewUser),
    AddUser(NewUser),
    User(UserKey),
    Users(Page<UserKey>),
    RevokeUser(UserKey, Timestamp),
    IsAuthorized(UserKey),
    IsAdmin(UserKey),
    HasAdmin,
}

#[tokio::test]
async fn random_calls_are_answered_alike() {
    let mut random = Rng::with_seed(support::seed());
    let (_dir, path) = new_path();
    let memory = MemoryStore::new();
    let mut sqlite = SqliteStore::open(&path).await.unwrap();
    let mut done = 0;
    for number in 0..CALLS {
        if number % 500 == 499 {
            sqlite.close().await.unwrap();
            sqlite = SqliteStore::open(&path).await.unwrap();
        }
        let call = choose(&memory, &mut random).await;
        let expected = make(&memory, &call).await;
        assert_eq!(make(&sqlite, &call).await, expected, "call {number}");
        done += usize::from(expected.starts_with("Ok"));
    }
    // Otherwise the sequence says little.
    assert!(done > CALLS / 4, "only {done} of {CALLS} calls succeeded");
}

async fn choose(known: &MemoryStore, random: &mut Rng) -> Call {
    let id = room(ROOMS[random.usize(..ROOMS.len())]);
    let who = endpoint(ENDPOINTS[random.usize(..ENDPOINTS.len())]);
    let user = key(random.u64(..USERS));
    let at = Timestamp::from_millis(random.i64(..));
    let text = sealed(format!("{who} {}", random.u32(..)));
    let limit = [1, 2, 1000][random.usize(..3)];
    let epoch = known.room(&id).await.map_or(Epoch::FIRST, |room| room.epoch);
    let near = match random.u8(..8) {
        0 => Epoch::new(epoch.get() + 1).unwrap(),
        1 => Epoch::new(epoch.get().saturating_sub(1)).unwrap(),
        _ => epoch,
    };
    let new_user = NewUser { admin: random.bool(), ..support::user(random.u64(..USERS), false) };
    match random.u8(..32) {
        0..2 => Call::CreateRoom(if random.u8(..4) == 0 {
            NewRoom::unencrypted(id, who, at)
        } else {
            NewRoom::encrypted(id, who, at, text)
        }),
        2 => Call::Room(id),
        3 => Call::RoomsOf(who, Page::new(random.bool().then_some(id), limit).unwrap()),
        4 if random.u8(..4) == 0 => Call::DeleteRoom(id),
        4..10 => Call::AddMember(
            id,
            if random.u8(..8) == 0 {
                NewMember::unsealed(who, at)
            } else {
                NewMember::sealed(who, at, near, text)
            },
        ),
        10 => Call::Member(id, who),
        11..13 => Call::Members(id, Page::new(random.bool().then_some(who), limit).unwrap()),
        13..15 => Call::RemoveMember(id, who),
        15..20 => Call::Rekey(id.clone(), rekey(known, &id, near, random).await),
        20..22 => Call::Key(id, who, near),
        22..24 => Call::LatestKey(id, who),
        24 => Call::BootstrapAdmin(new_user),
        25..27 => Call::AddUser(new_user),
        27 => Call::User(user),
        28 => Call::Users(Page::new(random.bool().then_some(user), limit).unwrap()),
        29 => Call::RevokeUser(user, at),
        30 => [Call::IsAuthorized(user), Call::IsAdmin(user)]
            .into_iter()
            .nth(random.usize(..2))
            .unwrap(),
        _ => Call::HasAdmin,
    }
}

/// A rekey that often fits the members, and often nearly.
async fn rekey(known: &MemoryStore, id: &RoomId, from: Epoch, random: &mut Rng) -> Rekey {
    let members = known.members(id, Page::first()).await.unwrap_or_default();
    let mut remove = Vec::new();
    let mut keys = Vec::new();
    for who in ENDPOINTS.map(endpoint) {
        let member = members.iter().any(|member| member.endpoint == who);
        let slip = random.u8(..24) == 0;
        if random.u8(..8) == 0 && member != slip {
            remove.push(who);
        } else if member != slip {
            keys.push((who, sealed(random.u32(..).to_string())));
        }
    }
    Rekey::new(from, remove, keys).unwrap()
}

/// Makes the call and renders what came, bytes of sealed keys included.
async fn make(store: &dyn Store, call: &Call) -> String {
    match call {
        Call::CreateRoom(new) => format!("{:?}", store.create_room(new.clone()).await),
        Call::Room(id) => format!("{:?}", store.room(id).await),
        Call::RoomsOf(who, page) => format!("{:?}", store.rooms_of(who, page.clone()).await),
        Call::DeleteRoom(id) => format!("{:?}", store.delete_room(id).await),
        Call::AddMember(id, new) => format!("{:?}", store.add_member(id, new.clone()).await),
        Call::Member(id, who) => format!("{:?}", store.member(id, who).await),
        Call::Members(id, page) => format!("{:?}", store.members(id, page.clone()).await),
        Call::RemoveMember(id, who) => format!("{:?}", store.remove_member(id, who).await),
        Call::Rekey(id, rekey) => format!("{:?}", store.rekey(id, rekey.clone()).await),
        Call::Key(id, who, epoch) => shown(store.key(id, who, *epoch).await),
        Call::LatestKey(id, who) => shown(store.latest_key(id, who).await),
        Call::BootstrapAdmin(new) => format!("{:?}", store.bootstrap_admin(new.clone()).await),
        Call::AddUser(new) => format!("{:?}", store.add_user(new.clone()).await),
        Call::User(user) => format!("{:?}", store.user(user).await),
        Call::Users(page) => format!("{:?}", store.users(page.clone()).await),
        Call::RevokeUser(user, at) => format!("{:?}", store.revoke_user(user, *at).await),
        Call::IsAuthorized(user) => format!("{:?}", store.is_authorized(user).await),
        Call::IsAdmin(user) => format!("{:?}", store.is_admin(user).await),
        Call::HasAdmin => format!("{:?}", store.has_admin().await),
    }
}

fn shown(key: Result<SealedKey, membership::Error>) -> String {
    format!("{:?}", key.map(|key| (key.clone(), key.ciphertext.as_bytes().to_vec())))
}
