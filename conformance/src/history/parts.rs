//! Which calls of a history have to do with one another.
//!
//! A history is linearizable exactly when what it says of each object is (Herlihy and Wing,
//! "Linearizability: a correctness condition for concurrent objects", 1990, theorem 1; Horn and
//! Kroening, "Faster linearizability checking via P-compositionality", 2015, use it as here). An
//! object is a part of the state that some calls touch and the others do not. The contract has
//! these:
//!
//! - *a room*: its record, its members, their keys. Every call that names the room touches it and
//!   nothing else; no call on rooms looks at users, nor the other way round.
//! - *a user*: its record. `user`, `is_authorized`, `is_admin`, `add_user` and `revoke_user` touch
//!   the one they name.
//! - *the admins*: which there were, and how many are active. `has_admin`, `bootstrap_admin` and
//!   whatever makes or revokes an admin touch it beside the user.
//!
//! A listing looks at several: `rooms_of` at every room its endpoint may ever have been in, `users`
//! at every user there may be on its page. It makes one object of all of them. Who may be in which
//! room is read off the calls: an endpoint can only be in rooms that were to be made with it as
//! their owner, or that it was to be added to. A page begins after the id that was asked for, and
//! one that is full says nothing of what comes after its last record.
//!
//! A read changes nothing, so a history without it is linearizable if the whole one is. Therefore
//! the objects are first looked at without listings, one by one: what is wrong there is wrong, and
//! easier to see. Only then with them, which decides.

use std::collections::{BTreeMap, BTreeSet};

use membership::{EndpointId, RoomId, UserKey};

use super::{Call, History, Says};
use crate::model::{Answer, Op};

/// A part of the state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Room(RoomId),
    User(UserKey),
    Admins,
}

/// Objects as a set of bits. Those beyond 128 share a bit with others: they count as one, which is
/// slower and no less right.
pub(super) type Objects = u128;

/// A call, and what it touches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touching<'a> {
    pub(super) call: &'a Call,
    pub(super) objects: Objects,
}

/// Calls that have to do with one another.
struct Group<'a> {
    objects: BTreeSet<usize>,
    calls: Vec<(&'a Call, Vec<usize>)>,
}

impl<'a> Group<'a> {
    fn touching(self) -> Vec<Touching<'a>> {
        let places: BTreeMap<usize, usize> = self.objects.into_iter().zip(0..).collect();
        let bit = |object: &usize| 1 << (places.get(object).copied().unwrap_or_default() % 128);
        let touching = |(call, objects): (&'a Call, Vec<usize>)| Touching {
            call,
            objects: objects.iter().map(bit).fold(0, |all, one: Objects| all | one),
        };
        self.calls.into_iter().map(touching).collect()
    }
}

/// The calls that say anything, in groups that have nothing to do with one another; with the
/// listings, or without.
pub(super) fn parts(history: &History, listings: bool) -> Vec<Vec<Touching<'_>>> {
    let known = Known::of(history);
    let mut groups: Vec<Group<'_>> = Vec::new();
    for call in history.calls.iter().filter(|call| call.says() != Says::Nothing) {
        if !listings && matches!(call.op, Op::RoomsOf(..) | Op::Users(_)) {
            continue;
        }
        let touched = known.touched(call);
        let mut group = Group { objects: touched.iter().copied().collect(), calls: Vec::new() };
        let shares = |other: &mut Group<'_>| !other.objects.is_disjoint(&group.objects);
        let others: Vec<_> = groups.extract_if(.., shares).collect();
        for other in others {
            group.objects.extend(other.objects);
            group.calls.extend(other.calls);
        }
        group.calls.push((call, touched));
        groups.push(group);
    }
    groups.into_iter().map(Group::touching).collect()
}

/// All objects that a history names, and what listings have to look at.
struct Known {
    objects: BTreeMap<Object, usize>,
    /// The rooms in which an endpoint may ever have been.
    rooms_of: BTreeMap<EndpointId, BTreeSet<RoomId>>,
    /// Who may ever have been an admin.
    admins: BTreeSet<UserKey>,
}

impl Known {
    fn of(history: &History) -> Self {
        let mut known = Self {
            objects: BTreeMap::new(),
            rooms_of: BTreeMap::new(),
            admins: history.start.admins().collect(),
        };
        known.add(Object::Admins);
        for (room, endpoint) in history.start.memberships() {
            known.joins(endpoint, room);
        }
        history.start.users_known().for_each(|key| known.add(Object::User(key)));
        for call in &history.calls {
            match &call.op {
                Op::CreateRoom(new) => known.joins(&new.owner, &new.id),
                Op::AddMember(room, new) => known.joins(&new.endpoint, room),
                Op::BootstrapAdmin(new) => {
                    known.admins.insert(new.key);
                    known.add(Object::User(new.key));
                }
                Op::AddUser(new) => {
                    if new.admin {
                        known.admins.insert(new.key);
                    }
                    known.add(Object::User(new.key));
                }
                op => {
                    if let Some(room) = room_of(op) {
                        known.add(Object::Room(room.clone()));
                    }
                    if let Some(key) = user_of(op) {
                        known.add(Object::User(key));
                    }
                }
            }
        }
        known
    }

    fn add(&mut self, object: Object) {
        let next = self.objects.len();
        self.objects.entry(object).or_insert(next);
    }

    fn joins(&mut self, endpoint: &EndpointId, room: &RoomId) {
        self.add(Object::Room(room.clone()));
        self.rooms_of.entry(endpoint.clone()).or_default().insert(room.clone());
    }

    /// The objects that a call looks at or changes. One that touches none, a listing of nothing,
    /// is put with the admins, so that it is looked at all the same.
    fn touched(&self, call: &Call) -> Vec<usize> {
        let mut objects: Vec<Object> = Vec::new();
        let op = &call.op;
        match op {
            Op::RoomsOf(endpoint, _) => {
                let rooms = self.rooms_of.get(endpoint).into_iter().flatten();
                objects.extend(rooms.cloned().map(Object::Room));
            }
            Op::Users(page) => {
                let last = match &call.ended {
                    Some((_, Answer::Users(Ok(users)))) if users.len() == page.limit() => {
                        users.last().map(|user| user.key)
                    }
                    _ => None,
                };
                let listed = |key: &UserKey| {
                    page.after().is_none_or(|after| key > after) && last.is_none_or(|l| *key <= l)
                };
                let users = self
                    .objects
                    .keys()
                    .filter(|object| matches!(object, Object::User(key) if listed(key)));
                objects.extend(users.cloned());
            }
            _ => {
                objects.extend(room_of(op).cloned().map(Object::Room));
                objects.extend(user_of(op).map(Object::User));
            }
        }
        let of_admins = match op {
            Op::HasAdmin | Op::BootstrapAdmin(_) => true,
            Op::AddUser(new) => new.admin,
            Op::RevokeUser(key, _) => self.admins.contains(key),
            _ => objects.is_empty(),
        };
        if of_admins {
            objects.push(Object::Admins);
        }
        objects.iter().filter_map(|object| self.objects.get(object).copied()).collect()
    }
}

/// The one room that a call names.
fn room_of(op: &Op) -> Option<&RoomId> {
    match op {
        Op::CreateRoom(new) => Some(&new.id),
        Op::Room(room)
        | Op::DeleteRoom(room)
        | Op::AddMember(room, _)
        | Op::Member(room, _)
        | Op::Members(room, _)
        | Op::RemoveMember(room, _)
        | Op::Rekey(room, _)
        | Op::Key(room, ..)
        | Op::LatestKey(room, _) => Some(room),
        _ => None,
    }
}

/// The one user that a call names.
fn user_of(op: &Op) -> Option<UserKey> {
    match op {
        Op::BootstrapAdmin(new) | Op::AddUser(new) => Some(new.key),
        Op::User(key) | Op::RevokeUser(key, _) | Op::IsAuthorized(key) | Op::IsAdmin(key) => {
            Some(*key)
        }
        _ => None,
    }
}
