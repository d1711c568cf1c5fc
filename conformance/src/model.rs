//! The model: the contract as a small program, the oracle with which stores are compared.
//!
//! The model has one flat map per kind of record, and scans the maps for each answer: slow, and
//! obviously right. The model shares no code with any store, so that the model and a store cannot
//! share a mistake.

mod op;
mod pairs;
mod show;

use std::collections::{BTreeMap, BTreeSet};

use membership::{
    Ciphertext, Conflict, Decision, DenyReason, EndpointId, Epoch, Error, Member, NewMember,
    NewRoom, NewUser, Page, Record, Rekey, Role, Room, RoomId, SealedKey, Timestamp, User, UserKey,
};
use serde::{Deserialize, Serialize};

pub use op::{Answer, Op};

/// The state of a store, and the exact answer that the contract demands for each call.
///
/// A value stands for one client of a store: [`Op::Close`] closes it. A clone that was made before
/// stands for another client, which stays open.
///
/// ```
/// use membership_conformance::make::{encrypted, joins_at, stale, room};
/// use membership_conformance::model::{Answer, Model, Op};
///
/// let mut model = Model::new();
/// model.apply(&Op::CreateRoom(encrypted("r", "ann")));
/// let sealed_for_epoch_2 = Op::AddMember(room("r"), joins_at("bob", 2));
/// assert_eq!(model.apply(&sealed_for_epoch_2), Answer::Member(Err(stale(1))));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Model {
    rooms: BTreeMap<RoomId, Room>,
    #[serde(with = "pairs")]
    members: BTreeMap<(RoomId, EndpointId), Member>,
    #[serde(with = "pairs")]
    keys: BTreeMap<(RoomId, EndpointId, Epoch), Ciphertext>,
    users: BTreeMap<UserKey, User>,
    /// Whether an admin was ever made (USER-1).
    admin_ever: bool,
    closed: bool,
}

impl Model {
    /// An empty store, open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a call: changes the state as the contract demands, and returns the answer that it
    /// demands.
    pub fn apply(&mut self, op: &Op) -> Answer {
        if let (true, Some(answer)) = (self.closed, op.fails_with(Error::Closed)) {
            return answer;
        }
        match op {
            Op::CreateRoom(new) => Answer::Room(self.create_room(new)),
            Op::Room(room) => Answer::Room(self.room(room)),
            Op::RoomsOf(endpoint, page) => Answer::Rooms(Ok(self.rooms_of(endpoint, page))),
            Op::DeleteRoom(room) => Answer::Done(self.delete_room(room)),
            Op::AddMember(room, new) => Answer::Member(self.add_member(room, new)),
            Op::Member(room, endpoint) => Answer::Member(self.member(room, endpoint)),
            Op::Members(room, page) => Answer::Members(self.members(room, page)),
            Op::RemoveMember(room, endpoint) => Answer::Done(self.remove_member(room, endpoint)),
            Op::Rekey(room, rekey) => Answer::Room(self.rekey(room, rekey)),
            Op::Key(room, endpoint, epoch) => Answer::Key(self.key(room, endpoint, *epoch)),
            Op::LatestKey(room, endpoint) => Answer::Key(self.latest_key(room, endpoint)),
            Op::BootstrapAdmin(new) => Answer::User(self.bootstrap_admin(new)),
            Op::AddUser(new) => Answer::User(self.add_user(new)),
            Op::User(key) => Answer::User(self.user(key)),
            Op::Users(page) => Answer::Users(Ok(self.users(page))),
            Op::RevokeUser(key, at) => Answer::Done(self.revoke_user(key, *at)),
            Op::IsAuthorized(key) => Answer::Decision(self.is_authorized(key)),
            Op::IsAdmin(key) => Answer::Decision(self.is_admin(key)),
            Op::HasAdmin => Answer::Bool(Ok(self.active_admins() > 0)),
            Op::Close => {
                self.closed = true;
                Answer::Done(Ok(()))
            }
        }
    }

    /// The current epoch of a room, if the room exists; for drawing valid calls.
    #[must_use]
    pub fn epoch_of(&self, id: &RoomId) -> Option<Epoch> {
        self.rooms.get(id).map(|room| room.epoch)
    }

    /// The members of a room, in byte order; for drawing valid calls.
    #[must_use]
    pub fn endpoints_in(&self, id: &RoomId) -> Vec<EndpointId> {
        let here = self.members.keys().filter(|(room, _)| room == id);
        here.map(|(_, endpoint)| endpoint.clone()).collect()
    }

    /// Every membership, as a room and an endpoint.
    pub fn memberships(&self) -> impl Iterator<Item = (&RoomId, &EndpointId)> {
        self.members.keys().map(|(room, endpoint)| (room, endpoint))
    }

    /// Every user, revoked ones included.
    pub fn users_known(&self) -> impl Iterator<Item = UserKey> {
        self.users.keys().copied()
    }

    /// Every admin, revoked ones included.
    pub fn admins(&self) -> impl Iterator<Item = UserKey> {
        self.users.values().filter(|user| user.admin).map(|user| user.key)
    }

    // ROOM-1, ROOM-2.
    fn create_room(&mut self, new: &NewRoom) -> Result<Room, Error> {
        if self.rooms.contains_key(&new.id) {
            return Err(Error::AlreadyExists(Record::Room(new.id.clone())));
        }
        let encrypted = new.owner_key.is_some();
        let epoch = if encrypted { Epoch::FIRST } else { Epoch::ZERO };
        let room = Room {
            id: new.id.clone(),
            owner: new.owner.clone(),
            encrypted,
            epoch,
            rekey_due: false,
            created_at: new.created_at,
        };
        let owner = Member {
            room: new.id.clone(),
            endpoint: new.owner.clone(),
            role: Role::Owner,
            joined_epoch: epoch,
            added_at: new.created_at,
        };
        self.rooms.insert(new.id.clone(), room.clone());
        self.members.insert((new.id.clone(), new.owner.clone()), owner);
        if let Some(key) = &new.owner_key {
            self.keys.insert((new.id.clone(), new.owner.clone(), epoch), key.clone());
        }
        Ok(room)
    }

    // ROOM-3, ERR-1.
    fn room(&self, id: &RoomId) -> Result<Room, Error> {
        self.rooms.get(id).cloned().ok_or_else(|| Error::NotFound(Record::Room(id.clone())))
    }

    // LIST-1, LIST-3, LIST-4: without an index, which could differ from the members.
    fn rooms_of(&self, endpoint: &EndpointId, page: &Page<RoomId>) -> Vec<Room> {
        let is_in = |room: &RoomId| self.members.contains_key(&(room.clone(), endpoint.clone()));
        listed(self.rooms.values().filter(|room| is_in(&room.id)), |room| &room.id, page)
    }

    // ROOM-4.
    fn delete_room(&mut self, id: &RoomId) -> Result<(), Error> {
        self.room(id)?;
        self.rooms.remove(id);
        self.members.retain(|(room, _), _| room != id);
        self.keys.retain(|(room, _, _), _| room != id);
        Ok(())
    }

    // MEM-1, MEM-2, in the order of ERR-4.
    fn add_member(&mut self, id: &RoomId, new: &NewMember) -> Result<Member, Error> {
        let room = self.room(id)?;
        if room.encrypted && new.key.is_none() {
            return Err(Error::Conflict(Conflict::KeyMissing));
        }
        if !room.encrypted && new.key.is_some() {
            return Err(Error::Conflict(Conflict::RoomUnencrypted));
        }
        let slot = (id.clone(), new.endpoint.clone());
        if self.members.contains_key(&slot) {
            let (room, endpoint) = slot;
            return Err(Error::AlreadyExists(Record::Member { room, endpoint }));
        }
        if let Some((sealed_for, ciphertext)) = &new.key {
            if *sealed_for != room.epoch {
                return Err(Error::StaleEpoch { current: room.epoch });
            }
            let triple = (id.clone(), new.endpoint.clone(), room.epoch);
            self.keys.insert(triple, ciphertext.clone());
        }
        let member = Member {
            room: id.clone(),
            endpoint: new.endpoint.clone(),
            role: Role::Member,
            joined_epoch: room.epoch,
            added_at: new.added_at,
        };
        self.members.insert(slot, member.clone());
        Ok(member)
    }

    // ERR-1.
    fn member(&self, id: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        self.room(id)?;
        let found = self.members.get(&(id.clone(), endpoint.clone())).cloned();
        found.ok_or_else(|| {
            Error::NotFound(Record::Member { room: id.clone(), endpoint: endpoint.clone() })
        })
    }

    // LIST-1, LIST-3.
    fn members(&self, id: &RoomId, page: &Page<EndpointId>) -> Result<Vec<Member>, Error> {
        self.room(id)?;
        let of_room = self.members.values().filter(|member| member.room == *id);
        Ok(listed(of_room, |member| &member.endpoint, page))
    }

    // MEM-3, MEM-4.
    fn remove_member(&mut self, id: &RoomId, endpoint: &EndpointId) -> Result<(), Error> {
        let mut room = self.room(id)?;
        self.member(id, endpoint)?;
        if room.owner == *endpoint {
            return Err(Error::Conflict(Conflict::OwnerStays));
        }
        self.forget(id, endpoint);
        room.rekey_due = room.encrypted;
        self.rooms.insert(id.clone(), room);
        Ok(())
    }

    // KEY-4 to KEY-6, KEY-10, TYPE-6, in the order of ERR-4.
    fn rekey(&mut self, id: &RoomId, rekey: &Rekey) -> Result<Room, Error> {
        let mut room = self.room(id)?;
        if !room.encrypted {
            return Err(Error::Conflict(Conflict::RoomUnencrypted));
        }
        if rekey.from() != room.epoch {
            return Err(Error::StaleEpoch { current: room.epoch });
        }
        for endpoint in rekey.remove() {
            self.member(id, endpoint)?;
        }
        if rekey.remove().contains(&room.owner) {
            return Err(Error::Conflict(Conflict::OwnerStays));
        }
        if room.epoch == Epoch::MAX {
            return Err(Error::Conflict(Conflict::LastEpoch));
        }
        let here = self.members.keys().filter(|(room, _)| room == id).map(|(_, who)| who);
        let staying: BTreeSet<_> = here.filter(|who| !rekey.remove().contains(*who)).collect();
        let sealed: BTreeSet<_> = rekey.keys().keys().collect();
        let missing = staying.difference(&sealed).copied();
        let extra = sealed.difference(&staying).copied();
        if let Some(mismatch) = Conflict::keys_mismatch(missing, extra) {
            return Err(Error::Conflict(mismatch));
        }

        let next = room.epoch.next().ok_or(Error::Conflict(Conflict::LastEpoch))?;
        for endpoint in rekey.remove() {
            self.forget(id, endpoint);
        }
        for (endpoint, ciphertext) in rekey.keys() {
            self.keys.insert((id.clone(), endpoint.clone(), next), ciphertext.clone());
        }
        room.epoch = next;
        room.rekey_due = false;
        self.rooms.insert(id.clone(), room.clone());
        Ok(room)
    }

    // KEY-2, KEY-10.
    fn key(&self, id: &RoomId, endpoint: &EndpointId, at: Epoch) -> Result<SealedKey, Error> {
        self.room(id)?;
        let no_key = || no_key(id, endpoint, Some(at));
        let triple = (id.clone(), endpoint.clone(), at);
        let ciphertext = self.keys.get(&triple).cloned().ok_or_else(no_key)?;
        let (room, endpoint, epoch) = triple;
        Ok(SealedKey { room, epoch, endpoint, ciphertext })
    }

    // KEY-3, KEY-10.
    fn latest_key(&self, id: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error> {
        let current = self.room(id)?.epoch;
        self.key(id, endpoint, current).map_err(|_| no_key(id, endpoint, None))
    }

    // USER-1.
    fn bootstrap_admin(&mut self, new: &NewUser) -> Result<User, Error> {
        if self.admin_ever {
            return Err(Error::Conflict(Conflict::AdminExists));
        }
        self.add_user(&NewUser { admin: true, ..new.clone() })
    }

    // USER-2.
    fn add_user(&mut self, new: &NewUser) -> Result<User, Error> {
        if self.users.contains_key(&new.key) {
            return Err(Error::AlreadyExists(Record::User(new.key)));
        }
        let user = User {
            key: new.key,
            label: new.label.clone(),
            admin: new.admin,
            revoked: false,
            added_at: new.added_at,
            revoked_at: None,
        };
        self.users.insert(new.key, user.clone());
        self.admin_ever |= new.admin;
        Ok(user)
    }

    // USER-5, ERR-1.
    fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.users.get(key).cloned().ok_or(Error::NotFound(Record::User(*key)))
    }

    // USER-5, LIST-1.
    fn users(&self, page: &Page<UserKey>) -> Vec<User> {
        listed(self.users.values(), |user| &user.key, page)
    }

    // USER-3, USER-4.
    fn revoke_user(&mut self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        let user = self.user(key)?;
        if user.revoked {
            return Ok(());
        }
        if user.admin && self.active_admins() == 1 {
            return Err(Error::Conflict(Conflict::LastAdmin));
        }
        self.users.insert(*key, User { revoked: true, revoked_at: Some(at), ..user });
        Ok(())
    }

    // AUTH-1.
    fn is_authorized(&self, key: &UserKey) -> Decision {
        match self.users.get(key) {
            None => Decision::Deny(DenyReason::Unknown),
            Some(user) if user.revoked => Decision::Deny(DenyReason::Revoked),
            Some(_) => Decision::Allow,
        }
    }

    // AUTH-1.
    fn is_admin(&self, key: &UserKey) -> Decision {
        match self.users.get(key) {
            None => Decision::Deny(DenyReason::Unknown),
            Some(user) if user.revoked => Decision::Deny(DenyReason::Revoked),
            Some(user) if !user.admin => Decision::Deny(DenyReason::NotAdmin),
            Some(_) => Decision::Allow,
        }
    }

    fn active_admins(&self) -> usize {
        self.users.values().filter(|user| user.admin && !user.revoked).count()
    }

    /// Removes an endpoint's membership and keys in one room.
    fn forget(&mut self, id: &RoomId, endpoint: &EndpointId) {
        self.members.retain(|(room, who), _| room != id || who != endpoint);
        self.keys.retain(|(room, who, _), _| room != id || who != endpoint);
    }
}

/// The page of `records`, which must be in byte order of their ids.
fn listed<'a, T: Clone + 'a, Id: Ord>(
    records: impl Iterator<Item = &'a T>,
    id: impl Fn(&T) -> &Id,
    page: &Page<Id>,
) -> Vec<T> {
    let past = |record: &&T| page.after().is_none_or(|after| id(record) > after);
    records.filter(past).take(page.limit()).cloned().collect()
}

fn no_key(room: &RoomId, endpoint: &EndpointId, epoch: Option<Epoch>) -> Error {
    Error::NotFound(Record::Key { room: room.clone(), endpoint: endpoint.clone(), epoch })
}
