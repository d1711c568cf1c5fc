//! The random choice of a client's next call.

use std::collections::BTreeSet;
use std::sync::Arc;

use membership::{EndpointId, Epoch, NewMember, NewRoom, NewUser, Page, Rekey, RoomId, UserKey};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::scene::{Choices, Scene, Told, key_of};
use crate::make::{at, label, page};
use crate::model::Op;

/// Which calls a history is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Calls on rooms, members and keys, each on one room.
    Rooms,
    /// Calls on rooms and members, and `rooms_of`, which reads several rooms.
    Lists,
    /// Users and decisions.
    Users,
    /// All calls.
    All,
}

/// Draws one client's calls from a seed, so that they fit what the [`Scene`] knows.
#[derive(Debug)]
pub struct Caller {
    rng: ChaCha8Rng,
    mix: Mix,
    scene: Arc<Scene>,
}

/// A kind of call. A mix gives each kind a weight.
#[derive(Clone, Copy)]
enum Kind {
    Delete,
    Add,
    Remove,
    Rekey,
    Room,
    Member,
    Members,
    Key,
    Latest,
    RoomsOf,
    AddUser,
    AddAdmin,
    Bootstrap,
    Revoke,
    RevokeAgain,
    Authorized,
    AuthorizedRevoked,
    Admin,
    User,
    Users,
    HasAdmin,
}

use Kind::{
    Add, AddAdmin, AddUser, Admin, Authorized, AuthorizedRevoked, Bootstrap, Delete, HasAdmin, Key,
    Latest, Member, Members, Rekey as NextEpoch, Remove, Revoke, RevokeAgain, Room, RoomsOf, User,
    Users,
};

const ROOMS: &[(Kind, u32)] = &[
    (Delete, 1),
    (Add, 6),
    (Remove, 4),
    (NextEpoch, 9),
    (Room, 4),
    (Member, 4),
    (Members, 4),
    (Key, 3),
    (Latest, 8),
];
const LISTS: &[(Kind, u32)] =
    &[(Delete, 3), (Add, 8), (Remove, 6), (NextEpoch, 3), (Members, 4), (RoomsOf, 10)];
const USERS: &[(Kind, u32)] = &[
    (AddUser, 5),
    (Revoke, 4),
    (RevokeAgain, 1),
    (Authorized, 8),
    (AuthorizedRevoked, 4),
    (Admin, 2),
    (User, 2),
    (Users, 2),
];
/// Calls about admins, made in the first round of names only. These calls all touch one object, the
/// admins, and in every round they would join the parts of all rounds into one long part.
const ADMINS: &[(Kind, u32)] = &[(AddAdmin, 4), (Bootstrap, 1), (HasAdmin, 3)];

impl Caller {
    /// Creates a client of `scene`. Each client of one seed needs a `stream` of its own.
    #[must_use]
    pub fn new(seed: u64, stream: u64, mix: Mix, scene: &Arc<Scene>) -> Self {
        let seed = seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { rng: ChaCha8Rng::seed_from_u64(seed), mix, scene: Arc::clone(scene) }
    }

    /// Draws the next call.
    pub fn next_call(&mut self) -> Op {
        let choices = self.scene.next_choices();
        let mut kinds: Vec<(Kind, u32)> = Vec::new();
        if matches!(self.mix, Mix::Rooms | Mix::All) {
            kinds.extend(ROOMS);
        }
        if self.mix == Mix::Lists {
            kinds.extend(LISTS);
        }
        if self.mix == Mix::All {
            kinds.push((RoomsOf, 3));
        }
        if matches!(self.mix, Mix::Users | Mix::All) {
            kinds.extend(USERS);
            if choices.round == 0 {
                kinds.extend(ADMINS);
            }
        }
        let mut left = self.rng.random_range(0..kinds.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in kinds {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return self.call(kind, &choices),
            }
        }
        Op::HasAdmin
    }

    /// Draws a number below `below`, to pace the calls.
    pub fn number(&mut self, below: u32) -> u32 {
        self.rng.random_range(0..below.max(1))
    }

    fn call(&mut self, kind: Kind, choices: &Choices) -> Op {
        let op = self.room_call(kind, choices).or_else(|| self.user_call(kind, choices));
        op.unwrap_or(Op::HasAdmin)
    }

    fn room_call(&mut self, kind: Kind, choices: &Choices) -> Option<Op> {
        let (id, told) = self.one_of(&choices.rooms)?;
        let who = self.one_of(&choices.endpoints)?;
        let changes = matches!(kind, Delete | Add | Remove | NextEpoch);
        // Otherwise most writes would fail, since the room does not exist.
        if changes && told.is_none() && self.often(70) {
            return Some(self.create(id, who, choices));
        }
        Some(match kind {
            Delete if self.often(30) => self.create(id, who, choices),
            Delete => Op::DeleteRoom(id),
            Add => self.add(id, who, told.as_ref(), choices),
            Remove => Op::RemoveMember(id, self.mostly_a_member(who, told.as_ref())),
            NextEpoch => self.rekey(id, &who, told.as_ref(), choices)?,
            Room => Op::Room(id),
            Member => Op::Member(id, self.mostly_a_member(who, told.as_ref())),
            Members => Op::Members(id, Page::first()),
            Key => {
                let current = told.map_or(1, |told| told.epoch.get());
                let back = u64::from(self.number(3));
                let epoch = Epoch::new((current + 1).saturating_sub(back)).ok()?;
                Op::Key(id, who, epoch)
            }
            Latest => Op::LatestKey(id, self.mostly_a_member(who, told.as_ref())),
            RoomsOf => Op::RoomsOf(who, Page::first()),
            _ => return None,
        })
    }

    fn create(&mut self, id: RoomId, owner: EndpointId, choices: &Choices) -> Op {
        let time = at(choices.stamp);
        Op::CreateRoom(if self.often(85) {
            let key = key_of(&owner, Epoch::FIRST, choices.stamp);
            NewRoom::encrypted(id, owner, time, key)
        } else {
            NewRoom::unencrypted(id, owner, time)
        })
    }

    fn add(&mut self, id: RoomId, who: EndpointId, told: Option<&Told>, choices: &Choices) -> Op {
        let sealed = told.is_none_or(|told| told.encrypted) != self.often(2);
        let epoch = told.map_or(Epoch::FIRST, |told| told.epoch).max(Epoch::FIRST);
        let new = if sealed {
            let key = key_of(&who, epoch, choices.stamp);
            NewMember::sealed(who, at(choices.stamp), epoch, key)
        } else {
            NewMember::unsealed(who, at(choices.stamp))
        };
        Op::AddMember(id, new)
    }

    /// A rekey with keys for exactly the known members that remain; seldom with one key too many.
    fn rekey(
        &mut self,
        id: RoomId,
        who: &EndpointId,
        told: Option<&Told>,
        choices: &Choices,
    ) -> Option<Op> {
        let epoch = told.map_or(Epoch::FIRST, |told| told.epoch);
        let mut stay = told.map(|told| told.members.clone()).unwrap_or_default();
        let mut remove = BTreeSet::new();
        let owns = told.is_some_and(|told| told.owner == *who);
        if self.often(25) && !owns && stay.remove(who) {
            remove.insert(who.clone());
        } else if self.often(3) {
            stay.insert(who.clone());
        }
        let next = epoch.next()?;
        let keys = stay.into_iter().map(|who| (who.clone(), key_of(&who, next, choices.stamp)));
        Rekey::new(epoch, remove, keys).ok().map(|rekey| Op::Rekey(id, rekey))
    }

    fn user_call(&mut self, kind: Kind, choices: &Choices) -> Option<Op> {
        let key = self.one_of(&choices.users)?;
        let revoked = self.one_of(&choices.revoked).unwrap_or(key);
        let new = |admin: bool, key: UserKey| {
            let text = format!("user {}", choices.stamp);
            NewUser { key, label: label(&text), admin, added_at: at(choices.stamp) }
        };
        Some(match kind {
            AddUser if self.often(10) => Op::AddUser(new(false, revoked)),
            AddUser => Op::AddUser(new(false, key)),
            AddAdmin => Op::AddUser(new(true, key)),
            Bootstrap => Op::BootstrapAdmin(new(true, key)),
            Revoke => Op::RevokeUser(key, at(choices.stamp)),
            RevokeAgain => Op::RevokeUser(revoked, at(choices.stamp)),
            Authorized => Op::IsAuthorized(key),
            AuthorizedRevoked => Op::IsAuthorized(revoked),
            Admin => Op::IsAdmin(key),
            User => Op::User(key),
            Users => Op::Users(page(Some(choices.before_users), 3)),
            _ => Op::HasAdmin,
        })
    }

    fn mostly_a_member(&mut self, who: EndpointId, told: Option<&Told>) -> EndpointId {
        let members: Vec<_> = told.map_or_else(Vec::new, |told| told.members.iter().collect());
        if self.often(75) { self.one_of(&members).cloned().unwrap_or(who) } else { who }
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let place = self.rng.random_range(0..of.len().max(1));
        of.get(place).cloned()
    }

    /// Whether an event with this probability happens, in percent.
    fn often(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }
}
