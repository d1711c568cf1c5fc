//! The partition of a history by object: parts that share no object are checked one by one.
//!
//! A history is linearizable exactly when, for each object, its calls on that object are
//! linearizable (Herlihy and Wing, "Linearizability: a correctness condition for concurrent
//! objects", 1990, theorem 1; Horn and Kroening, "Faster linearizability checking via
//! P-compositionality", 2015, use it as here). An object is a part of the state that some calls
//! touch and the others do not. The contract has these objects:
//!
//! - *a room*: its record, its members and their keys. A call that names a room touches that room
//!   and nothing else. No call on rooms reads users, and no call on users reads rooms.
//! - *a user*: its record. `user`, `is_authorized`, `is_admin`, `add_user` and `revoke_user` touch
//!   the user that they name.
//! - *the admins*: whether there ever was one, and how many are active. `has_admin` and
//!   `bootstrap_admin` touch this object, and so does each call that adds or revokes an admin.
//!
//! A listing reads several objects, and joins them into one object. `rooms_of` joins every room in
//! which its endpoint may ever have been; `users` joins every user who may be on its page. The
//! calls show in which rooms an endpoint may have been: those in which it is at the start, those
//! that a call creates with it as the owner, and those to which a call adds it. A page begins after
//! the requested id, and a full page tells nothing about users after its last one.
//!
//! A read changes nothing, so a linearizable history stays linearizable without it. Therefore the
//! objects are first checked one by one, without listings. A violation that is found there is one
//! of the whole history, and is easier to read. The check with the listings follows, and decides.

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

/// A set of objects, one bit per object. With more than 128, objects that share a bit count as one:
/// the search is slower, but its result is the same.
pub(super) type Objects = u128;

/// A call, and the objects that it touches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touching<'a> {
    pub(super) call: &'a Call,
    pub(super) objects: Objects,
}

/// Calls that share objects, directly or through one another.
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

/// Splits a history into parts that share no object, with or without its listings. Calls that prove
/// nothing are left out.
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

/// All objects that a history names, and those that its listings may read.
struct Known {
    objects: BTreeMap<Object, usize>,
    /// The rooms in which each endpoint may ever have been.
    rooms_of: BTreeMap<EndpointId, BTreeSet<RoomId>>,
    /// The users who may ever have been admins.
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

    /// The objects that a call reads or changes. A listing that can have no records touches no
    /// object. Such a listing counts as touching the admins, so that its answer is checked all the
    /// same.
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
