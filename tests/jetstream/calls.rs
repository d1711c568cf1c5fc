//! Calls as values: they are drawn at random, made on any store, and compared by their results.

use membership::{
    Ciphertext, EndpointId, Epoch, Label, NewMember, NewRoom, NewUser, Page, Rekey, RoomId, Store,
    Timestamp, UserKey,
};

use crate::rng::Rng;

#[derive(Clone, Debug)]
pub(crate) enum Call {
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
    Bootstrap(NewUser),
    AddUser(NewUser),
    User(UserKey),
    Users(Page<UserKey>),
    Revoke(UserKey, Timestamp),
    IsAuthorized(UserKey),
    IsAdmin(UserKey),
    HasAdmin,
}

impl Call {
    pub(crate) async fn run(&self, store: &dyn Store) -> String {
        match self.clone() {
            Self::CreateRoom(new) => format!("{:?}", store.create_room(new).await),
            Self::Room(room) => format!("{:?}", store.room(&room).await),
            Self::RoomsOf(endpoint, page) => format!("{:?}", store.rooms_of(&endpoint, page).await),
            Self::DeleteRoom(room) => format!("{:?}", store.delete_room(&room).await),
            Self::AddMember(room, new) => format!("{:?}", store.add_member(&room, new).await),
            Self::Member(room, who) => format!("{:?}", store.member(&room, &who).await),
            Self::Members(room, page) => format!("{:?}", store.members(&room, page).await),
            Self::RemoveMember(room, who) => {
                format!("{:?}", store.remove_member(&room, &who).await)
            }
            Self::Rekey(room, rekey) => format!("{:?}", store.rekey(&room, rekey).await),
            Self::Key(room, who, epoch) => sealed(&store.key(&room, &who, epoch).await),
            Self::LatestKey(room, who) => sealed(&store.latest_key(&room, &who).await),
            Self::Bootstrap(new) => format!("{:?}", store.bootstrap_admin(new).await),
            Self::AddUser(new) => format!("{:?}", store.add_user(new).await),
            Self::User(user) => format!("{:?}", store.user(&user).await),
            Self::Users(page) => format!("{:?}", store.users(page).await),
            Self::Revoke(user, at) => format!("{:?}", store.revoke_user(&user, at).await),
            Self::IsAuthorized(user) => format!("{:?}", store.is_authorized(&user).await),
            Self::IsAdmin(user) => format!("{:?}", store.is_admin(&user).await),
            Self::HasAdmin => format!("{:?}", store.has_admin().await),
        }
    }
}

/// Shows the key's bytes, which `Debug` hides.
fn sealed(key: &Result<membership::SealedKey, membership::Error>) -> String {
    match key {
        Ok(sealed) => format!("{key:?} {:?}", sealed.ciphertext.as_bytes()),
        Err(_) => format!("{key:?}"),
    }
}

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
pub(crate) async fn random(rng: &mut Rng, hints: &dyn Store) -> Call {
    let (r, e, u) = (room(rng.below(3)), endpoint(rng.below(5)), user(rng.below(4)));
    let new_user = |rng: &mut Rng| NewUser {
        key: u,
        label: Label::new(format!("user {}", rng.below(9))).unwrap(),
        admin: rng.below(2) == 0,
        added_at: at(rng),
    };
    match rng.below(29) {
        0 | 1 => Call::CreateRoom(match rng.below(3) {
            0 => NewRoom::unencrypted(r, e, at(rng)),
            _ => NewRoom::encrypted(r, e, at(rng), cipher(rng)),
        }),
        2 => Call::Room(r),
        3 | 4 => Call::RoomsOf(e, page(rng, room)),
        5 => Call::DeleteRoom(r),
        6..=10 => {
            let epoch = epoch(rng, &r, hints).await;
            Call::AddMember(
                r,
                match rng.below(5) {
                    0 => NewMember::unsealed(e, at(rng)),
                    _ if epoch == Epoch::ZERO => NewMember::unsealed(e, at(rng)),
                    _ => NewMember::sealed(e, at(rng), epoch, cipher(rng)),
                },
            )
        }
        11 => Call::Member(r, e),
        12 | 13 => Call::Members(r, page(rng, endpoint)),
        14..=16 => Call::RemoveMember(r, e),
        17..=20 => rekey(rng, r, hints).await,
        21 => {
            let epoch = epoch(rng, &r, hints).await;
            Call::Key(r, e, epoch)
        }
        22 => Call::LatestKey(r, e),
        23 => Call::Bootstrap(new_user(rng)),
        24 => Call::AddUser(new_user(rng)),
        25 => Call::Revoke(u, at(rng)),
        26 => Call::Users(page(rng, user)),
        27 => [Call::User(u), Call::IsAuthorized(u)][rng.below(2)].clone(),
        _ => [Call::IsAdmin(u), Call::HasAdmin][rng.below(2)].clone(),
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

async fn rekey(rng: &mut Rng, room: RoomId, hints: &dyn Store) -> Call {
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
    Call::Rekey(room, Rekey::new(from, remove, keys).unwrap())
}
