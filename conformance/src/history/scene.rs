//! The few rooms, endpoints and users that a history's calls name, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use membership::{Ciphertext, Conflict, EndpointId, Epoch, Error, Record, Room, RoomId, UserKey};

use crate::make::{endpoint, room, sealed, user_number};
use crate::model::{Answer, Op};

/// The number of rooms in one round.
const ROOMS: u64 = 2;
/// The number of endpoints in one round.
const ENDPOINTS: u64 = 5;
/// The number of users in use at a time. As many revoked ones are kept beside them.
const USERS: usize = 4;

/// The names that all clients of a history share, so that their calls contend.
///
/// After a number of calls a new round begins, with fresh names. Calls of different rounds are
/// independent, so even a long history splits into short parts, which are checked one by one.
#[derive(Debug)]
pub struct Scene {
    /// The number of calls in a round.
    turn: u64,
    /// A std lock: held briefly, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    /// A number that is unique to each call and part of what it stores, so that no two writes look
    /// alike.
    stamp: i64,
    round: u64,
    rooms: BTreeMap<RoomId, Told>,
    users: Vec<UserKey>,
    /// The users that were revoked last, the newest first.
    revoked: Vec<UserKey>,
    next_user: u64,
}

/// What the answers so far show of a room. This may be stale: other calls may have changed the
/// room.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) encrypted: bool,
    pub(super) epoch: Epoch,
    pub(super) owner: EndpointId,
    pub(super) members: BTreeSet<EndpointId>,
}

/// The names that the next call may use, with what is known of them.
pub(super) struct Choices {
    pub(super) round: u64,
    pub(super) stamp: i64,
    pub(super) rooms: Vec<(RoomId, Option<Told>)>,
    pub(super) endpoints: Vec<EndpointId>,
    pub(super) users: Vec<UserKey>,
    pub(super) revoked: Vec<UserKey>,
    /// A key below those of all users of this round.
    pub(super) before_users: UserKey,
}

impl Scene {
    /// Creates a scene whose names change after `turn` calls.
    #[must_use]
    pub fn new(turn: u64) -> Self {
        Self { turn: turn.max(1), state: Mutex::default() }
    }

    /// Counts one more call, and returns the names for it.
    pub(super) fn next_choices(&self) -> Choices {
        let mut state = self.state();
        let round = state.calls / self.turn;
        if round != state.round || state.users.is_empty() {
            let calls = state.calls;
            let stamp = state.stamp;
            *state = State { calls, stamp, round, ..State::default() };
            for _ in 0..USERS {
                state.add_fresh_user();
            }
        }
        state.calls += 1;
        state.stamp += 1;
        let rooms = (0..ROOMS).map(|number| {
            let id = room(&format!("room {round}.{number}"));
            let told = state.rooms.get(&id).cloned();
            (id, told)
        });
        Choices {
            round,
            stamp: state.stamp,
            rooms: rooms.collect(),
            endpoints: (0..ENDPOINTS).map(|n| endpoint(&format!("end {round}.{n}"))).collect(),
            users: state.users.clone(),
            revoked: state.revoked.clone(),
            before_users: before_users(round),
        }
    }

    /// Updates what is known from an answer.
    pub fn learn(&self, op: &Op, answer: &Answer) {
        let mut state = self.state();
        match (op, answer) {
            (Op::RevokeUser(key, _), Answer::Done(Ok(()))) => state.replace_revoked_user(*key),
            (Op::DeleteRoom(id), Answer::Done(Ok(()))) => {
                state.rooms.remove(id);
            }
            (Op::RemoveMember(id, who), Answer::Done(Ok(()))) => state.drop_member(id, who),
            (Op::Rekey(id, rekey), Answer::Room(Ok(found))) => {
                state.note_room(id, found, Some(rekey.keys().keys().cloned().collect()));
            }
            (Op::CreateRoom(new), Answer::Room(Ok(found))) => {
                state.rooms.remove(&new.id);
                state.note_room(&new.id, found, Some(BTreeSet::from([new.owner.clone()])));
            }
            (_, Answer::Room(Ok(found))) => state.note_room(&found.id, found, None),
            (_, Answer::Member(Ok(member))) => state.note_member(&member.room, &member.endpoint),
            (Op::Members(id, page), Answer::Members(Ok(members))) if page.after().is_none() => {
                if let Some(told) = state.rooms.get_mut(id) {
                    told.members = members.iter().map(|m| m.endpoint.clone()).collect();
                }
            }
            (Op::Rekey(id, _) | Op::AddMember(id, _), _) => {
                state.learn_from_refused_key(id, answer.error());
            }
            (_, answer) => state.learn_from_error(answer.error()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add_fresh_user(&mut self) {
        self.next_user += 1;
        self.users.push(user_number((self.round << 32) + self.next_user));
    }

    fn replace_revoked_user(&mut self, key: UserKey) {
        if let Some(place) = self.users.iter().position(|user| *user == key) {
            self.users.remove(place);
            self.revoked.insert(0, key);
            self.revoked.truncate(USERS);
            self.add_fresh_user();
        }
    }

    fn note_room(&mut self, id: &RoomId, found: &Room, members: Option<BTreeSet<EndpointId>>) {
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

    fn note_member(&mut self, id: &RoomId, who: &EndpointId) {
        if let Some(told) = self.rooms.get_mut(id) {
            told.members.insert(who.clone());
        }
    }

    fn drop_member(&mut self, id: &RoomId, who: &EndpointId) {
        if let Some(told) = self.rooms.get_mut(id) {
            told.members.remove(who);
        }
    }

    fn learn_from_refused_key(&mut self, id: &RoomId, error: Option<&Error>) {
        let Some(told) = self.rooms.get_mut(id) else { return };
        match error {
            Some(Error::StaleEpoch { current }) => told.epoch = *current,
            Some(Error::Conflict(Conflict::KeysMismatch { missing, extra })) => {
                told.members.extend(missing.first().iter().cloned());
                told.members.retain(|who| !extra.first().contains(who));
            }
            _ => self.learn_from_error(error),
        }
    }

    fn learn_from_error(&mut self, error: Option<&Error>) {
        match error {
            Some(Error::NotFound(Record::Room(id))) => {
                self.rooms.remove(id);
            }
            Some(Error::NotFound(Record::Member { room, endpoint })) => {
                self.drop_member(room, endpoint);
            }
            Some(Error::AlreadyExists(Record::Member { room, endpoint })) => {
                self.note_member(room, endpoint);
            }
            _ => {}
        }
    }
}

/// A key below those of all users of a round, and above those of all earlier rounds.
fn before_users(round: u64) -> UserKey {
    user_number(round << 32)
}

/// A sealed key that no other call stores, since each call has a `stamp` of its own.
pub(super) fn key_of(who: &EndpointId, epoch: Epoch, stamp: i64) -> Ciphertext {
    sealed(format!("{}@{epoch}#{stamp}", who.as_str()))
}
