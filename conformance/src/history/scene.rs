//! What the calls of a history are about: few rooms, endpoints and users, and what its clients
//! have been told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use membership::{Ciphertext, Conflict, EndpointId, Epoch, Error, Record, Room, RoomId, UserKey};

use crate::make::{endpoint, room, sealed, user_number};
use crate::model::{Answer, Op};

/// How many rooms there are at a time.
const ROOMS: u64 = 2;
/// How many endpoints there are at a time.
const ENDPOINTS: u64 = 5;
/// How many users there are at a time, beside some that were revoked.
const USERS: usize = 4;

/// The few things that all clients of a history get in each other's way about.
///
/// After so many calls they begin anew, with other names, which have nothing to do with the former:
/// so a history may be long, and its parts stay short.
#[derive(Debug)]
pub struct Scene {
    /// After how many calls there are other names.
    turn: u64,
    /// A std lock: held for a moment, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    /// Every value that is stored has a number of its own, so that no two writes look the same.
    stamp: i64,
    generation: u64,
    rooms: BTreeMap<RoomId, Told>,
    users: Vec<UserKey>,
    /// Revoked, the last ones.
    gone: Vec<UserKey>,
    next_user: u64,
}

/// What clients were told of a room. Others may have changed it since.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) encrypted: bool,
    pub(super) epoch: Epoch,
    pub(super) owner: EndpointId,
    pub(super) members: BTreeSet<EndpointId>,
}

/// What a client may ask about now.
pub(super) struct Now {
    pub(super) generation: u64,
    pub(super) stamp: i64,
    pub(super) rooms: Vec<(RoomId, Option<Told>)>,
    pub(super) endpoints: Vec<EndpointId>,
    pub(super) users: Vec<UserKey>,
    pub(super) gone: Vec<UserKey>,
    /// Everybody who came with the present names is after this one.
    pub(super) before_users: UserKey,
}

impl Scene {
    /// One whose names change after `turn` calls.
    #[must_use]
    pub fn new(turn: u64) -> Self {
        Self { turn: turn.max(1), state: Mutex::default() }
    }

    /// For the next call.
    pub(super) fn now(&self) -> Now {
        let mut state = self.state();
        let generation = state.calls / self.turn;
        if generation != state.generation || state.users.is_empty() {
            let calls = state.calls;
            let stamp = state.stamp;
            *state = State { calls, stamp, generation, ..State::default() };
            for _ in 0..USERS {
                state.comes();
            }
        }
        state.calls += 1;
        state.stamp += 1;
        let rooms = (0..ROOMS).map(|number| {
            let id = room(&format!("room {generation}.{number}"));
            let told = state.rooms.get(&id).cloned();
            (id, told)
        });
        Now {
            generation,
            stamp: state.stamp,
            rooms: rooms.collect(),
            endpoints: (0..ENDPOINTS).map(|n| endpoint(&format!("end {generation}.{n}"))).collect(),
            users: state.users.clone(),
            gone: state.gone.clone(),
            before_users: first_user(generation),
        }
    }

    /// A client has been given an answer.
    pub fn learn(&self, op: &Op, answer: &Answer) {
        let mut state = self.state();
        match (op, answer) {
            (Op::RevokeUser(key, _), Answer::Done(Ok(()))) => state.goes(*key),
            (Op::DeleteRoom(id), Answer::Done(Ok(()))) => {
                state.rooms.remove(id);
            }
            (Op::RemoveMember(id, who), Answer::Done(Ok(()))) => state.leaves(id, who),
            (Op::Rekey(id, rekey), Answer::Room(Ok(found))) => {
                state.told(id, found, Some(rekey.keys().keys().cloned().collect()));
            }
            (Op::CreateRoom(new), Answer::Room(Ok(found))) => {
                state.rooms.remove(&new.id);
                state.told(&new.id, found, Some(BTreeSet::from([new.owner.clone()])));
            }
            (_, Answer::Room(Ok(found))) => state.told(&found.id, found, None),
            (_, Answer::Member(Ok(member))) => state.comes_to(&member.room, &member.endpoint),
            (Op::Members(id, page), Answer::Members(Ok(members))) if page.after().is_none() => {
                if let Some(told) = state.rooms.get_mut(id) {
                    told.members = members.iter().map(|m| m.endpoint.clone()).collect();
                }
            }
            (Op::Rekey(id, _) | Op::AddMember(id, _), _) => state.refused(id, answer.error()),
            (_, answer) => state.refused_any(answer.error()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A user nobody has heard of.
    fn comes(&mut self) {
        self.next_user += 1;
        self.users.push(user_number((self.generation << 32) + self.next_user));
    }

    fn goes(&mut self, key: UserKey) {
        if let Some(place) = self.users.iter().position(|user| *user == key) {
            self.users.remove(place);
            self.gone.insert(0, key);
            self.gone.truncate(USERS);
            self.comes();
        }
    }

    fn told(&mut self, id: &RoomId, found: &Room, members: Option<BTreeSet<EndpointId>>) {
        let owner = found.owner.clone();
        let new = || Told {
            encrypted: found.encrypted,
            epoch: found.epoch,
            members: BTreeSet::from([owner.clone()]),
            owner: owner.clone(),
        };
        let told = self.rooms.entry(id.clone()).or_insert_with(new);
        told.epoch = told.epoch.max(found.epoch);
        if let Some(members) = members {
            told.members = members;
        }
    }

    fn comes_to(&mut self, id: &RoomId, who: &EndpointId) {
        if let Some(told) = self.rooms.get_mut(id) {
            told.members.insert(who.clone());
        }
    }

    fn leaves(&mut self, id: &RoomId, who: &EndpointId) {
        if let Some(told) = self.rooms.get_mut(id) {
            told.members.remove(who);
        }
    }

    fn refused(&mut self, id: &RoomId, error: Option<&Error>) {
        let Some(told) = self.rooms.get_mut(id) else { return };
        match error {
            Some(Error::StaleEpoch { current }) => told.epoch = *current,
            Some(Error::Conflict(Conflict::KeysMismatch { missing, extra })) => {
                told.members.extend(missing.first().iter().cloned());
                told.members.retain(|who| !extra.first().contains(who));
            }
            _ => self.refused_any(error),
        }
    }

    fn refused_any(&mut self, error: Option<&Error>) {
        match error {
            Some(Error::NotFound(Record::Room(id))) => {
                self.rooms.remove(id);
            }
            Some(Error::NotFound(Record::Member { room, endpoint })) => self.leaves(room, endpoint),
            Some(Error::AlreadyExists(Record::Member { room, endpoint })) => {
                self.comes_to(room, endpoint);
            }
            _ => {}
        }
    }
}

/// Below every user of a generation, and above those before.
fn first_user(generation: u64) -> UserKey {
    user_number(generation << 32)
}

/// A sealed key that no other call stores.
pub(super) fn key_of(who: &EndpointId, epoch: Epoch, stamp: i64) -> Ciphertext {
    sealed(format!("{}@{epoch}#{stamp}", who.as_str()))
}
