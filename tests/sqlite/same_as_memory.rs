//! Random calls on the SQLite store and on the memory store must return the same.

use fastrand::Rng;
use membership::{
    Epoch, MemoryStore, NewMember, NewRoom, NewUser, Page, Rekey, RoomId, SqliteConfig,
    SqliteStore, Store, Timestamp,
};
use membership_conformance::model::Op;

use crate::support::{self, endpoint, key, new_path, room, sealed};

const CALLS: usize = 4000;

/// There are few ids, so that calls meet. The order of their bytes is not that of their letters.
const ROOMS: [&str; 5] = ["a", "A", "ä", "a b", "%"];
const ENDPOINTS: [&str; 7] = ["ann", "Ann", "bob", "é", "e\u{301}", "z*>", "🦀"];
const USERS: u64 = 8;

#[tokio::test]
async fn random_calls_are_answered_alike() {
    let mut random = Rng::with_seed(support::seed());
    let (_dir, path) = new_path();
    let memory = MemoryStore::new();
    let mut sqlite = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    let mut done = 0;
    for number in 0..CALLS {
        if number % 500 == 499 {
            sqlite.close().await.unwrap();
            sqlite = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        }
        let call = choose(&memory, &mut random).await;
        let expected = call.apply(&memory).await;
        assert_eq!(call.apply(&sqlite).await, expected, "call {number}");
        done += usize::from(expected.error().is_none());
    }
    // A sequence in which most calls fail tests little.
    assert!(done > CALLS / 4, "only {done} of {CALLS} calls succeeded");
}

async fn choose(known: &MemoryStore, random: &mut Rng) -> Op {
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
        0..2 => Op::CreateRoom(if random.u8(..4) == 0 {
            NewRoom::unencrypted(id, who, at)
        } else {
            NewRoom::encrypted(id, who, at, text)
        }),
        2 => Op::Room(id),
        3 => Op::RoomsOf(who, Page::new(random.bool().then_some(id), limit).unwrap()),
        4 if random.u8(..4) == 0 => Op::DeleteRoom(id),
        4..10 => Op::AddMember(
            id,
            if random.u8(..8) == 0 {
                NewMember::unsealed(who, at)
            } else {
                NewMember::sealed(who, at, near, text)
            },
        ),
        10 => Op::Member(id, who),
        11..13 => Op::Members(id, Page::new(random.bool().then_some(who), limit).unwrap()),
        13..15 => Op::RemoveMember(id, who),
        15..20 => Op::Rekey(id.clone(), rekey(known, &id, near, random).await),
        20..22 => Op::Key(id, who, near),
        22..24 => Op::LatestKey(id, who),
        24 => Op::BootstrapAdmin(new_user),
        25..27 => Op::AddUser(new_user),
        27 => Op::User(user),
        28 => Op::Users(Page::new(random.bool().then_some(user), limit).unwrap()),
        29 => Op::RevokeUser(user, at),
        30 => {
            [Op::IsAuthorized(user), Op::IsAdmin(user)].into_iter().nth(random.usize(..2)).unwrap()
        }
        _ => Op::HasAdmin,
    }
}

/// Draws a rekey whose keys often fit the members exactly, and often nearly.
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
