//! What a client of a history asks next.

use std::collections::BTreeSet;
use std::sync::Arc;

use membership::{EndpointId, Epoch, NewMember, NewRoom, NewUser, Page, Rekey, RoomId, UserKey};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::scene::{Now, Scene, Told, key_of};
use crate::make::{at, label, page};
use crate::model::Op;

/// What a history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Rooms, members and keys, one room at a time.
    Rooms,
    /// The same, with the lists that look at several rooms.
    Lists,
    /// Users and decisions.
    Users,
    /// Everything.
    All,
}

/// One client's choice of calls, drawn from a seed and from what all have been told.
#[derive(Debug)]
pub struct Caller {
    rng: ChaCha8Rng,
    mix: Mix,
    scene: Arc<Scene>,
}

/// A kind of call; as often in a mix as it stands there.
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
    AuthorizedGone,
    Admin,
    User,
    Users,
    HasAdmin,
}

use Kind::{
    Add, AddAdmin, AddUser, Admin, Authorized, AuthorizedGone, Bootstrap, Delete, HasAdmin, Key,
    Latest, Member, Members, Rekey as Moves, Remove, Revoke, RevokeAgain, Room, RoomsOf, User,
    Users,
};

const ROOMS: &[(Kind, u32)] = &[
    (Delete, 1),
    (Add, 6),
    (Remove, 4),
    (Moves, 9),
    (Room, 4),
    (Member, 4),
    (Members, 4),
    (Key, 3),
    (Latest, 8),
];
const LISTS: &[(Kind, u32)] =
    &[(Delete, 3), (Add, 8), (Remove, 6), (Moves, 3), (Members, 4), (RoomsOf, 10)];
const USERS: &[(Kind, u32)] = &[
    (AddUser, 5),
    (Revoke, 4),
    (RevokeAgain, 1),
    (Authorized, 8),
    (AuthorizedGone, 4),
    (Admin, 2),
    (User, 2),
    (Users, 2),
];
/// Beside the users, with the first names alone: these calls have to do with all others of their
/// kind, and would make one long history of them all.
const ADMINS: &[(Kind, u32)] = &[(AddAdmin, 4), (Bootstrap, 1), (HasAdmin, 3)];

impl Caller {
    /// A client of `scene`; `stream` tells the clients of one seed apart.
    #[must_use]
    pub fn new(seed: u64, stream: u64, mix: Mix, scene: &Arc<Scene>) -> Self {
        let seed = seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { rng: ChaCha8Rng::seed_from_u64(seed), mix, scene: Arc::clone(scene) }
    }

    /// The next call.
    pub fn next_call(&mut self) -> Op {
        let now = self.scene.now();
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
            if now.generation == 0 {
                kinds.extend(ADMINS);
            }
        }
        let mut left = self.rng.random_range(0..kinds.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in kinds {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return self.call(kind, &now),
            }
        }
        Op::HasAdmin
    }

    /// A number below `below`, for whoever paces the calls.
    pub fn number(&mut self, below: u32) -> u32 {
        self.rng.random_range(0..below.max(1))
    }

    fn call(&mut self, kind: Kind, now: &Now) -> Op {
        self.room_call(kind, now).or_else(|| self.user_call(kind, now)).unwrap_or(Op::HasAdmin)
    }

    fn room_call(&mut self, kind: Kind, now: &Now) -> Option<Op> {
        let (id, told) = self.one_of(&now.rooms)?;
        let who = self.one_of(&now.endpoints)?;
        let changes = matches!(kind, Delete | Add | Remove | Moves);
        // Where there is no room, as far as anybody knows, somebody makes one before long.
        if changes && told.is_none() && self.often(70) {
            return Some(self.create(id, who, now));
        }
        Some(match kind {
            Delete if self.often(30) => self.create(id, who, now),
            Delete => Op::DeleteRoom(id),
            Add => self.add(id, who, told.as_ref(), now),
            Remove => Op::RemoveMember(id, self.mostly_a_member(who, told.as_ref())),
            Moves => self.rekey(id, &who, told.as_ref(), now)?,
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

    fn create(&mut self, id: RoomId, owner: EndpointId, now: &Now) -> Op {
        let time = at(now.stamp);
        Op::CreateRoom(if self.often(85) {
            let key = key_of(&owner, Epoch::FIRST, now.stamp);
            NewRoom::encrypted(id, owner, time, key)
        } else {
            NewRoom::unencrypted(id, owner, time)
        })
    }

    fn add(&mut self, id: RoomId, who: EndpointId, told: Option<&Told>, now: &Now) -> Op {
        let sealed = told.is_none_or(|told| told.encrypted) != self.often(2);
        let epoch = told.map_or(Epoch::FIRST, |told| told.epoch).max(Epoch::FIRST);
        let new = if sealed {
            let key = key_of(&who, epoch, now.stamp);
            NewMember::sealed(who, at(now.stamp), epoch, key)
        } else {
            NewMember::unsealed(who, at(now.stamp))
        };
        Op::AddMember(id, new)
    }

    /// A rekey for exactly those who remain, as far as anybody knows; seldom with one too many.
    fn rekey(
        &mut self,
        id: RoomId,
        who: &EndpointId,
        told: Option<&Told>,
        now: &Now,
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
        let keys = stay.into_iter().map(|who| (who.clone(), key_of(&who, next, now.stamp)));
        Rekey::new(epoch, remove, keys).ok().map(|rekey| Op::Rekey(id, rekey))
    }

    fn user_call(&mut self, kind: Kind, now: &Now) -> Option<Op> {
        let key = self.one_of(&now.users)?;
        let gone = self.one_of(&now.gone).unwrap_or(key);
        let new = |admin: bool, key: UserKey| {
            let text = format!("user {}", now.stamp);
            NewUser { key, label: label(&text), admin, added_at: at(now.stamp) }
        };
        Some(match kind {
            AddUser if self.often(10) => Op::AddUser(new(false, gone)),
            AddUser => Op::AddUser(new(false, key)),
            AddAdmin => Op::AddUser(new(true, key)),
            Bootstrap => Op::BootstrapAdmin(new(true, key)),
            Revoke => Op::RevokeUser(key, at(now.stamp)),
            RevokeAgain => Op::RevokeUser(gone, at(now.stamp)),
            Authorized => Op::IsAuthorized(key),
            AuthorizedGone => Op::IsAuthorized(gone),
            Admin => Op::IsAdmin(key),
            User => Op::User(key),
            Users => Op::Users(page(Some(now.before_users), 3)),
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

    /// So many times of a hundred.
    fn often(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }
}
