//! Turns the numbers of a sequence into calls.

use std::collections::BTreeSet;

use membership::{
    Ciphertext, EndpointId, Epoch, Member, NewMember, NewRoom, NewUser, Page, Rekey, Room, RoomId,
};
use proptest::strategy::Strategy;

use crate::make::{at, endpoint, label, page, room, sealed, user_key};
use crate::model::{Answer, Model, Op};

const ROOMS: [&str; 3] = ["ops", "Ops", "lab"];
const ENDPOINTS: [&str; 5] = ["ann", "bob", "cat", "Bob", "dan"];
const USERS: [u8; 5] = [0x01, 0x7f, 0x80, 0xa1, 0xff];

/// Which calls a sequence is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mix {
    /// Rooms, members and keys, with many rekeys.
    Rooms,
    /// Users, admins and decisions.
    Users,
    /// All calls.
    All,
    /// All calls, and now and then the store is closed and opened again.
    Reopened,
}

/// One call, as numbers. Smaller numbers make a simpler call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    kind: u8,
    client: u8,
    room: u8,
    who: u8,
    /// Which mistake the call has. Below 160 the call has none.
    twist: u8,
    /// A set, one bit per member; or a number.
    some: u8,
    salt: u16,
}

/// The action that a draw stands for.
pub(super) enum Act {
    Call(Op),
    Reopen,
}

/// A kind of call. A mix lists each kind as many times as its weight.
#[derive(Clone, Copy)]
enum Kind {
    Encrypted,
    Plain,
    Delete,
    Add,
    Remove,
    Rekey,
    Room,
    RoomsOf,
    Member,
    Members,
    Key,
    Latest,
    Bootstrap,
    AddUser,
    Revoke,
    User,
    Users,
    Authorized,
    Admin,
    HasAdmin,
    Reopen,
}

const OF_ROOMS: &[Kind] = {
    use Kind::{Add, Delete, Encrypted, Key, Latest, Member, Members, Plain, Rekey, Remove, Room};
    &[
        Encrypted,
        Encrypted,
        Plain,
        Add,
        Add,
        Add,
        Add,
        Rekey,
        Rekey,
        Rekey,
        Rekey,
        Remove,
        Remove,
        Delete,
        Room,
        Latest,
        Latest,
        Key,
        Key,
        Member,
        Members,
        Kind::RoomsOf,
    ]
};
const OF_USERS: &[Kind] = {
    use Kind::{AddUser, Admin, Authorized, Bootstrap, HasAdmin, Revoke, User, Users};
    &[
        AddUser, AddUser, Bootstrap, Revoke, Revoke, Authorized, Authorized, Admin, User, Users,
        HasAdmin,
    ]
};

impl Draw {
    pub(super) fn strategy() -> impl Strategy<Value = Self, Tree: Send> {
        let numbers =
            (0..=u8::MAX, 0..=u8::MAX, 0..=u8::MAX, 0..=u8::MAX, 0..=u8::MAX, 0..=u8::MAX);
        (numbers, 0..=u16::MAX).prop_map(|((kind, client, room, who, twist, some), salt)| Self {
            kind,
            client,
            room,
            who,
            twist,
            some,
            salt,
        })
    }

    /// Which of `clients` clients makes the call.
    pub(super) fn client(self, clients: usize) -> usize {
        usize::from(self.client) % clients.max(1)
    }

    /// The action, with arguments that fit the model's state, or nearly do.
    pub(super) fn act(self, mix: Mix, model: &mut Model) -> Act {
        let kind = match mix {
            Mix::Rooms => pick(OF_ROOMS, self.kind),
            Mix::Users => pick(OF_USERS, self.kind),
            Mix::Reopened if self.kind < 8 => Kind::Reopen,
            Mix::All | Mix::Reopened if self.kind % 4 == 3 => pick(OF_USERS, self.kind / 4),
            Mix::All | Mix::Reopened => pick(OF_ROOMS, self.kind / 4 * 3 + self.kind % 4),
        };
        if let Kind::Reopen = kind {
            return Act::Reopen;
        }
        let op = self.room_op(kind, model).or_else(|| self.user_op(kind));
        Act::Call(op.unwrap_or(Op::HasAdmin))
    }

    fn room_op(self, kind: Kind, model: &mut Model) -> Option<Op> {
        let (id, who) = (room(pick(&ROOMS, self.room)), endpoint(pick(&ENDPOINTS, self.who)));
        let time = at(i64::from(self.salt));
        Some(match kind {
            Kind::Encrypted => {
                let key = self.key(&who, Epoch::FIRST);
                Op::CreateRoom(NewRoom::encrypted(id, who, time, key))
            }
            Kind::Plain => Op::CreateRoom(NewRoom::unencrypted(id, who, time)),
            Kind::Delete => Op::DeleteRoom(id),
            Kind::Add => {
                let found = room_now(model, &id);
                let epoch = found.as_ref().map_or(Epoch::FIRST, |room| room.epoch);
                let sealed = found.is_none_or(|room| room.encrypted) != (self.twist >= 240);
                let epoch = self.near(epoch);
                let key = self.key(&who, epoch);
                let new = if sealed {
                    NewMember::sealed(who, time, epoch, key)
                } else {
                    NewMember::unsealed(who, time)
                };
                Op::AddMember(id, new)
            }
            Kind::Remove => Op::RemoveMember(id, who),
            Kind::Rekey => self.rekey(id, &who, model)?,
            Kind::Room => Op::Room(id),
            Kind::RoomsOf => {
                let after = (self.some >= 128).then(|| room(pick(&ROOMS, self.some)));
                Op::RoomsOf(who, self.page(after))
            }
            Kind::Member => Op::Member(id, who),
            Kind::Members => {
                let after = (self.some >= 128).then(|| endpoint(pick(&ENDPOINTS, self.some)));
                Op::Members(id, self.page(after))
            }
            Kind::Key => {
                let current = room_now(model, &id).map_or(1, |room| room.epoch.get());
                let asked = u64::from(self.some) % (current + 2);
                Op::Key(id, who, Epoch::new(asked).unwrap_or(Epoch::FIRST))
            }
            Kind::Latest => Op::LatestKey(id, who),
            _ => return None,
        })
    }

    /// A rekey with keys for exactly the remaining members, or with one mistake.
    fn rekey(self, id: RoomId, who: &EndpointId, model: &mut Model) -> Option<Op> {
        let epoch = room_now(model, &id).map_or(Epoch::FIRST, |room| room.epoch);
        let members = members_now(model, &id);
        let owner = members.iter().find(|member| member.role == membership::Role::Owner);
        let mut remove = BTreeSet::new();
        if self.some >= 128 {
            for (bit, member) in members.iter().enumerate().take(7) {
                if self.some >> bit & 1 == 1 && Some(member) != owner {
                    remove.insert(member.endpoint.clone());
                }
            }
        }
        if (224..232).contains(&self.twist) {
            // This may be the owner, or an endpoint that is no member.
            remove.insert(who.clone());
        }
        let next = epoch.next()?;
        let mut keys: Vec<_> = members
            .iter()
            .filter(|member| !remove.contains(&member.endpoint))
            .map(|member| (member.endpoint.clone(), self.key(&member.endpoint, next)))
            .collect();
        match self.twist {
            232..240 => {
                let one = usize::from(self.salt) % keys.len().max(1);
                keys = keys
                    .into_iter()
                    .enumerate()
                    .filter(|(n, _)| *n != one)
                    .map(|(_, key)| key)
                    .collect();
            }
            240.. if !remove.contains(who) && keys.iter().all(|(here, _)| here != who) => {
                keys.push((who.clone(), self.key(who, next)));
            }
            _ => {}
        }
        Some(Op::Rekey(id, Rekey::new(self.near(epoch), remove, keys).ok()?))
    }

    fn user_op(self, kind: Kind) -> Option<Op> {
        let key = user_key(pick(&USERS, self.who));
        let new = || NewUser {
            key,
            label: label(&self.salt.to_string()),
            admin: self.twist % 2 == 1,
            added_at: at(i64::from(self.salt)),
        };
        Some(match kind {
            Kind::Bootstrap => Op::BootstrapAdmin(new()),
            Kind::AddUser => Op::AddUser(new()),
            Kind::Revoke => Op::RevokeUser(key, at(i64::from(self.salt))),
            Kind::User => Op::User(key),
            Kind::Users => {
                let after = (self.some >= 128).then(|| user_key(self.some.wrapping_mul(2)));
                Op::Users(self.page(after))
            }
            Kind::Authorized => Op::IsAuthorized(key),
            Kind::Admin => Op::IsAdmin(key),
            Kind::HasAdmin => Op::HasAdmin,
            _ => return None,
        })
    }

    /// Returns `epoch`, or the epoch before or after it if `twist` says so.
    fn near(self, epoch: Epoch) -> Epoch {
        let number = match self.twist {
            160..200 => epoch.get().saturating_sub(1),
            200..224 => epoch.get() + 1,
            _ => epoch.get(),
        };
        Epoch::new(number).unwrap_or(epoch)
    }

    /// A key that no other call of the sequence is likely to store.
    fn key(self, who: &EndpointId, epoch: Epoch) -> Ciphertext {
        sealed(format!("{who}@{epoch}#{}", self.salt))
    }

    fn page<Id>(self, after: Option<Id>) -> Page<Id> {
        page(after, if self.twist < 128 { 1000 } else { usize::from(self.twist % 4) + 1 })
    }
}

/// Every read of the rooms, endpoints and users that sequences name, existing or not.
pub(super) fn views(model: &mut Model) -> Vec<Op> {
    let mut views = vec![Op::Users(Page::first()), Op::HasAdmin];
    for key in USERS.map(user_key) {
        views.extend([Op::User(key), Op::IsAuthorized(key), Op::IsAdmin(key)]);
    }
    views.extend(ENDPOINTS.map(|who| Op::RoomsOf(endpoint(who), Page::first())));
    for id in ROOMS.map(room) {
        let current = room_now(model, &id).map_or(0, |room| room.epoch.get());
        views.extend([Op::Room(id.clone()), Op::Members(id.clone(), Page::first())]);
        for who in ENDPOINTS.map(endpoint) {
            views.extend([
                Op::Member(id.clone(), who.clone()),
                Op::LatestKey(id.clone(), who.clone()),
            ]);
            let epochs = (0..=current + 1).filter_map(|epoch| Epoch::new(epoch).ok());
            views.extend(epochs.map(|epoch| Op::Key(id.clone(), who.clone(), epoch)));
        }
    }
    views
}

fn room_now(model: &mut Model, id: &RoomId) -> Option<Room> {
    match model.apply(&Op::Room(id.clone())) {
        Answer::Room(room) => room.ok(),
        _ => None,
    }
}

fn members_now(model: &mut Model, id: &RoomId) -> Vec<Member> {
    match model.apply(&Op::Members(id.clone(), Page::first())) {
        Answer::Members(Ok(members)) => members,
        _ => Vec::new(),
    }
}

#[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
fn pick<T: Copy>(from: &[T], number: u8) -> T {
    from[usize::from(number) % from.len()]
}
