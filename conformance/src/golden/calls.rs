//! Short constructors for the calls of scenarios.

use membership::{NewMember, NewRoom, NewUser, Page, Rekey, UserKey};

use crate::make;
use crate::model::Op;

pub(super) fn create(new: NewRoom) -> Op {
    Op::CreateRoom(new)
}

pub(super) fn room(id: &str) -> Op {
    Op::Room(make::room(id))
}

pub(super) fn rooms_of(who: &str) -> Op {
    Op::RoomsOf(make::endpoint(who), Page::first())
}

pub(super) fn rooms_page(who: &str, after: Option<&str>, limit: usize) -> Op {
    Op::RoomsOf(make::endpoint(who), make::page(after.map(make::room), limit))
}

pub(super) fn delete(id: &str) -> Op {
    Op::DeleteRoom(make::room(id))
}

pub(super) fn add(id: &str, new: NewMember) -> Op {
    Op::AddMember(make::room(id), new)
}

pub(super) fn member(id: &str, who: &str) -> Op {
    Op::Member(make::room(id), make::endpoint(who))
}

pub(super) fn members(id: &str) -> Op {
    Op::Members(make::room(id), Page::first())
}

pub(super) fn members_page(id: &str, after: Option<&str>, limit: usize) -> Op {
    Op::Members(make::room(id), make::page(after.map(make::endpoint), limit))
}

pub(super) fn remove(id: &str, who: &str) -> Op {
    Op::RemoveMember(make::room(id), make::endpoint(who))
}

pub(super) fn rekey(id: &str, rekey: Rekey) -> Op {
    Op::Rekey(make::room(id), rekey)
}

pub(super) fn key(id: &str, who: &str, epoch: u64) -> Op {
    Op::Key(make::room(id), make::endpoint(who), make::epoch(epoch))
}

pub(super) fn latest(id: &str, who: &str) -> Op {
    Op::LatestKey(make::room(id), make::endpoint(who))
}

pub(super) fn bootstrap(new: NewUser) -> Op {
    Op::BootstrapAdmin(new)
}

pub(super) fn enroll(new: NewUser) -> Op {
    Op::AddUser(new)
}

pub(super) fn users(after: Option<UserKey>, limit: usize) -> Op {
    Op::Users(make::page(after, limit))
}

pub(super) fn revoke(key: UserKey, millis: i64) -> Op {
    Op::RevokeUser(key, make::at(millis))
}

/// Every read about one user.
pub(super) fn standing(key: UserKey) -> [Op; 3] {
    [Op::User(key), Op::IsAuthorized(key), Op::IsAdmin(key)]
}

/// Every read about one endpoint in a room whose epochs go up to `epoch`.
pub(super) fn all_of(id: &str, who: &str, epoch: u64) -> Vec<Op> {
    let mut calls = vec![member(id, who), rooms_of(who), latest(id, who)];
    calls.extend((0..=epoch + 1).map(|epoch| key(id, who, epoch)));
    calls
}
