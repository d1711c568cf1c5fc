use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Bound;

use crate::decision::Standing;
use crate::error::{Conflict, Error, Record};
use crate::{
    Ciphertext, EndpointId, Epoch, Member, NewMember, NewRoom, NewUser, Page, Rekey, Role, Room,
    RoomId, SealedKey, Timestamp, User, UserKey,
};

/// All data of a memory store. Each method checks everything before it changes anything, so that an
/// error changes nothing (clause ERR-2).
#[derive(Clone, Default)]
pub(super) struct State {
    rooms: BTreeMap<RoomId, RoomState>,
    /// The reverse index. Every change of a room's members changes the index, too.
    rooms_of: BTreeMap<EndpointId, BTreeSet<RoomId>>,
    users: BTreeMap<UserKey, User>,
    /// The number of admins that are not revoked. Once it is above 0 it stays above 0, since the
    /// last active admin cannot be revoked (clause USER-4). So this number also says whether an
    /// admin was ever made (clause USER-1).
    active_admins: usize,
}

#[derive(Clone)]
struct RoomState {
    room: Room,
    members: BTreeMap<EndpointId, MemberState>,
}

#[derive(Clone)]
struct MemberState {
    member: Member,
    keys: BTreeMap<Epoch, Ciphertext>,
}

impl State {
    pub(super) fn create_room(&mut self, new: NewRoom) -> Result<Room, Error> {
        let btree_map::Entry::Vacant(slot) = self.rooms.entry(new.id.clone()) else {
            return Err(Error::AlreadyExists(Record::Room(new.id)));
        };
        let (room, member) = (new.room(), new.owner_member());
        let keys = new.owner_key.map(|key| (room.epoch, key)).into_iter().collect();
        let members = BTreeMap::from([(new.owner.clone(), MemberState { member, keys })]);
        slot.insert(RoomState { room: room.clone(), members });
        self.rooms_of.entry(new.owner).or_default().insert(new.id);
        Ok(room)
    }

    pub(super) fn room(&self, id: &RoomId) -> Result<Room, Error> {
        Ok(self.find(id)?.room.clone())
    }

    pub(super) fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: &Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        let Some(ids) = self.rooms_of.get(endpoint) else { return Ok(Vec::new()) };
        ids.range((start(page), Bound::Unbounded))
            .take(page.limit())
            .map(|id| self.room(id))
            .collect()
    }

    pub(super) fn delete_room(&mut self, id: &RoomId) -> Result<(), Error> {
        let gone = self.rooms.remove(id).ok_or_else(|| no_room(id))?;
        for endpoint in gone.members.keys() {
            self.unindex(endpoint, id);
        }
        Ok(())
    }

    pub(super) fn add_member(&mut self, id: &RoomId, new: NewMember) -> Result<Member, Error> {
        let state = self.find_mut(id)?;
        match (state.room.encrypted, &new.key) {
            (true, None) => return Err(Conflict::KeyMissing.into()),
            (false, Some(_)) => return Err(Conflict::RoomUnencrypted.into()),
            _ => {}
        }
        let epoch = state.room.epoch;
        let btree_map::Entry::Vacant(slot) = state.members.entry(new.endpoint.clone()) else {
            let (room, endpoint) = (id.clone(), new.endpoint);
            return Err(Error::AlreadyExists(Record::Member { room, endpoint }));
        };
        if new.key.as_ref().is_some_and(|(sealed_for, _)| *sealed_for != epoch) {
            return Err(Error::StaleEpoch { current: epoch });
        }
        let member = Member {
            room: id.clone(),
            endpoint: new.endpoint.clone(),
            role: Role::Member,
            joined_epoch: epoch,
            added_at: new.added_at,
        };
        slot.insert(MemberState { member: member.clone(), keys: new.key.into_iter().collect() });
        self.rooms_of.entry(new.endpoint).or_default().insert(id.clone());
        Ok(member)
    }

    pub(super) fn member(&self, id: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        let found = self.find(id)?.members.get(endpoint).ok_or_else(|| no_member(id, endpoint))?;
        Ok(found.member.clone())
    }

    pub(super) fn members(
        &self,
        id: &RoomId,
        page: &Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        let members = self.find(id)?.members.range((start(page), Bound::Unbounded));
        Ok(members.take(page.limit()).map(|(_, state)| state.member.clone()).collect())
    }

    pub(super) fn remove_member(
        &mut self,
        id: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        let state = self.find_mut(id)?;
        if *endpoint == state.room.owner {
            return Err(Conflict::OwnerStays.into());
        }
        state.members.remove(endpoint).ok_or_else(|| no_member(id, endpoint))?;
        state.room.rekey_due = state.room.encrypted;
        self.unindex(endpoint, id);
        Ok(())
    }

    pub(super) fn rekey(&mut self, id: &RoomId, rekey: &Rekey) -> Result<Room, Error> {
        let state = self.find_mut(id)?;
        if !state.room.encrypted {
            return Err(Conflict::RoomUnencrypted.into());
        }
        if rekey.from() != state.room.epoch {
            return Err(Error::StaleEpoch { current: state.room.epoch });
        }
        if let Some(stranger) = rekey.remove().iter().find(|e| !state.members.contains_key(*e)) {
            return Err(no_member(id, stranger));
        }
        if rekey.remove().contains(&state.room.owner) {
            return Err(Conflict::OwnerStays.into());
        }
        let next = state.room.epoch.next().ok_or(Conflict::LastEpoch)?;
        let remaining = state.members.keys().filter(|e| !rekey.remove().contains(*e));
        let missing = remaining.filter(|e| !rekey.keys().contains_key(*e));
        let extra = rekey.keys().keys().filter(|e| !state.members.contains_key(*e));
        if let Some(mismatch) = Conflict::keys_mismatch(missing, extra) {
            return Err(mismatch.into());
        }

        for endpoint in rekey.remove() {
            state.members.remove(endpoint);
        }
        for (member, ciphertext) in state.members.values_mut().zip(rekey.keys().values()) {
            member.keys.insert(next, ciphertext.clone());
        }
        state.room.epoch = next;
        state.room.rekey_due = false;
        let room = state.room.clone();
        for endpoint in rekey.remove() {
            self.unindex(endpoint, id);
        }
        Ok(room)
    }

    /// The endpoint's key for `epoch`; `None` stands for the room's current epoch.
    pub(super) fn key(
        &self,
        id: &RoomId,
        endpoint: &EndpointId,
        epoch: Option<Epoch>,
    ) -> Result<SealedKey, Error> {
        let state = self.find(id)?;
        let at = epoch.unwrap_or(state.room.epoch);
        let found = state.members.get(endpoint).and_then(|member| member.keys.get(&at));
        let (room, endpoint) = (id.clone(), endpoint.clone());
        match found {
            Some(ciphertext) => {
                Ok(SealedKey { room, epoch: at, endpoint, ciphertext: ciphertext.clone() })
            }
            None => Err(Error::NotFound(Record::Key { room, endpoint, epoch })),
        }
    }

    pub(super) fn bootstrap_admin(&mut self, new: NewUser) -> Result<User, Error> {
        if self.has_admin() {
            return Err(Conflict::AdminExists.into());
        }
        self.add_user(&NewUser { admin: true, ..new })
    }

    pub(super) fn add_user(&mut self, new: &NewUser) -> Result<User, Error> {
        let btree_map::Entry::Vacant(slot) = self.users.entry(new.key) else {
            return Err(Error::AlreadyExists(Record::User(new.key)));
        };
        let user = slot.insert(new.user()).clone();
        self.active_admins += usize::from(user.admin);
        Ok(user)
    }

    pub(super) fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.users.get(key).cloned().ok_or(Error::NotFound(Record::User(*key)))
    }

    pub(super) fn users(&self, page: &Page<UserKey>) -> Vec<User> {
        let users = self.users.range((start(page), Bound::Unbounded));
        users.take(page.limit()).map(|(_, user)| user.clone()).collect()
    }

    pub(super) fn revoke_user(&mut self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        let user = self.users.get_mut(key).ok_or(Error::NotFound(Record::User(*key)))?;
        if user.revoked {
            return Ok(());
        }
        if user.admin {
            if self.active_admins == 1 {
                return Err(Conflict::LastAdmin.into());
            }
            self.active_admins -= 1;
        }
        user.revoked = true;
        user.revoked_at = Some(at);
        Ok(())
    }

    pub(super) fn standing(&self, key: &UserKey) -> Option<Standing> {
        self.users.get(key).map(|user| Standing { admin: user.admin, revoked: user.revoked })
    }

    pub(super) fn has_admin(&self) -> bool {
        self.active_admins > 0
    }

    fn find(&self, id: &RoomId) -> Result<&RoomState, Error> {
        self.rooms.get(id).ok_or_else(|| no_room(id))
    }

    fn find_mut(&mut self, id: &RoomId) -> Result<&mut RoomState, Error> {
        self.rooms.get_mut(id).ok_or_else(|| no_room(id))
    }

    fn unindex(&mut self, endpoint: &EndpointId, room: &RoomId) {
        if let btree_map::Entry::Occupied(mut rooms) = self.rooms_of.entry(endpoint.clone()) {
            rooms.get_mut().remove(room);
            if rooms.get().is_empty() {
                rooms.remove();
            }
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn forget(&mut self, users: bool, rooms: bool, keys: bool) {
        if users {
            self.users.clear();
            self.active_admins = 0;
        }
        if rooms {
            self.rooms.clear();
            self.rooms_of.clear();
        }
        if keys {
            let members = self.rooms.values_mut().flat_map(|room| room.members.values_mut());
            members.for_each(|member| member.keys.clear());
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn plant_epoch(&mut self, id: &RoomId, epoch: Epoch) -> Result<(), Error> {
        let state = self.find_mut(id)?;
        let current = std::mem::replace(&mut state.room.epoch, epoch);
        for member in state.members.values_mut() {
            if let Some(ciphertext) = member.keys.get(&current).cloned() {
                member.keys.insert(epoch, ciphertext);
            }
        }
        Ok(())
    }
}

fn start<Id>(page: &Page<Id>) -> Bound<&Id> {
    page.after().map_or(Bound::Unbounded, Bound::Excluded)
}

fn no_room(id: &RoomId) -> Error {
    Error::NotFound(Record::Room(id.clone()))
}

fn no_member(room: &RoomId, endpoint: &EndpointId) -> Error {
    Error::NotFound(Record::Member { room: room.clone(), endpoint: endpoint.clone() })
}
