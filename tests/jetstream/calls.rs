//! Random calls about the rooms, endpoints and users of the tests of crashes.

use membership::{
    Ciphertext, EndpointId, Epoch, Label, NewMember, NewRoom, NewUser, Page, Rekey, RoomId, Store,
    Timestamp, UserKey,
};
use membership_conformance::model::Op;

use crate::rng::Rng;

pub(crate) fn room(n: usize) -> RoomId {
    ["ops", "a.b", "*"][n % 3].parse().unwrap()
}

pub(crate) fn endpoint(n: usize) -> EndpointId {
    ["ann", "Ann", "b.>", "é", "=h"][n % 5].parse().unwrap()
}

pub(crate) fn user(n: usize) -> UserKey {
    UserKey::from_bytes([u8::try_from(n % 4).unwrap(); 32])
}

pub(crate) fn at(rng: &mut Rng) -> Timestamp {
    Timestamp::from_millis(rng.next() as i64)
}

pub(crate) fn cipher(rng: &mut Rng) -> Ciphertext {
    Ciphertext::new(rng.next().to_le_bytes()).unwrap()
}

/// Draws a call about a few rooms, endpoints and users, so that many calls succeed. `hints` is a
/// store in the same state, which tells the current epochs and members.
pub(crate) async fn random(rng: &mut Rng, hints: &dyn Store) -> Op {
    let (r, e, u) = (room(rng.below(3)), endpoint(rng.below(5)), user(rng.below(4)));
    let new_user = |rng: &mut Rng| NewUser {
        key: u,
        label: Label::new(format!("user {}", rng.below(9))).unwrap(),
        admin: rng.below(2) == 0,
        added_at: at(rng),
    };
    match rng.below(29) {
        0 | 1 => Op::CreateRoom(match rng.below(3) {
            0 => NewRoom::unencrypted(r, e, at(rng)),
            _ => NewRoom::encrypted(r, e, at(rng), cipher(rng)),
        }),
        2 => Op::Room(r),
        3 | 4 => Op::RoomsOf(e, page(rng, room)),
        5 => Op::DeleteRoom(r),
        6..=10 => {
            let epoch = epoch(rng, &r, hints).await;
            Op::AddMember(
                r,
                match rng.below(5) {
                    0 => NewMember::unsealed(e, at(rng)),
                    _ if epoch == Epoch::ZERO => NewMember::unsealed(e, at(rng)),
                    _ => NewMember::sealed(e, at(rng), epoch, cipher(rng)),
                },
            )
        }
        11 => Op::Member(r, e),
        12 | 13 => Op::Members(r, page(rng, endpoint)),
        14..=16 => Op::RemoveMember(r, e),
        17..=20 => rekey(rng, r, hints).await,
        21 => {
            let epoch = epoch(rng, &r, hints).await;
            Op::Key(r, e, epoch)
        }
        22 => Op::LatestKey(r, e),
        23 => Op::BootstrapAdmin(new_user(rng)),
        24 => Op::AddUser(new_user(rng)),
        25 => Op::RevokeUser(u, at(rng)),
        26 => Op::Users(page(rng, user)),
        27 => [Op::User(u), Op::IsAuthorized(u)][rng.below(2)].clone(),
        _ => [Op::IsAdmin(u), Op::HasAdmin][rng.below(2)].clone(),
    }
}

fn page<Id>(rng: &mut Rng, id: impl Fn(usize) -> Id) -> Page<Id> {
    let after = (rng.below(2) == 0).then(|| id(rng.below(5)));
    let limit = [1, 2, 1000][rng.below(3)];
    Page::new(after, limit).unwrap()
}

async fn epoch(rng: &mut Rng, room: &RoomId, hints: &dyn Store) -> Epoch {
    let current = hints.room(room).await.map_or(1, |room| room.epoch.get());
    let epoch = match rng.below(8) {
        0 => current + 1,
        1 => current.saturating_sub(1),
        _ => current,
    };
    Epoch::new(epoch).unwrap()
}

async fn rekey(rng: &mut Rng, room: RoomId, hints: &dyn Store) -> Op {
    let from = epoch(rng, &room, hints).await;
    let members = hints.members(&room, Page::first()).await.unwrap_or_default();
    let mut remove = Vec::new();
    let mut keys = Vec::new();
    for member in members {
        match rng.below(12) {
            0 | 1 => remove.push(member.endpoint),
            2 if rng.below(3) == 0 => {}
            _ => keys.push((member.endpoint, cipher(rng))),
        }
    }
    if rng.below(10) == 0 {
        let stranger = endpoint(rng.below(5));
        if keys.iter().all(|(e, _)| *e != stranger) && !remove.contains(&stranger) {
            match rng.below(2) {
                0 => keys.push((stranger, cipher(rng))),
                _ => remove.push(stranger),
            }
        }
    }
    Op::Rekey(room, Rekey::new(from, remove, keys).unwrap())
}
