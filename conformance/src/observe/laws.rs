//! Laws between the answers about one state of a store.

use membership::{
    Decision, DenyReason, EndpointId, Epoch, Error, Member, Role, Room, RoomId, SealedKey, User,
    UserKey,
};

use crate::show::Show;
use crate::verdict::{Failure, Verdict, holds, same};

/// LIST-1: a listing ascends, so it has no record twice.
#[track_caller]
pub(super) fn ascend<T: Show, Id: Ord>(listed: &Vec<T>, id: impl Fn(&T) -> Id) -> Verdict {
    let ascends = listed.is_sorted_by(|a, b| id(a) < id(b));
    holds(ascends, "records in byte order of their ids, each once", listed)
}

/// LIST-3, MEM-4, KEY-10: a room and the list of its members exist together; one member is the
/// owner.
#[track_caller]
pub(super) fn room_and_members(
    id: &RoomId,
    room: &Result<Room, Error>,
    members: &Result<Vec<Member>, Error>,
) -> Verdict {
    let (room, members) = match (room, members) {
        (Ok(room), Ok(members)) => (room, members),
        (Err(missed), Err(also)) => return same(also, missed),
        (Ok(_), Err(error)) => return Err(Failure::answer("the members of the room", &error)),
        (Err(error), Ok(members)) => return Err(Failure::answer(error.show(), &members)),
    };
    same(&room.id, id)?;
    let epoch_fits = room.encrypted == (room.epoch >= Epoch::FIRST);
    holds(epoch_fits, "epoch 0 exactly in an unencrypted room", room)?;
    holds(room.encrypted || !room.rekey_due, "no rekey due in an unencrypted room", room)?;
    ascend(members, |member| member.endpoint.clone())?;
    let own = members.iter().all(|member| member.room == *id);
    holds(own, "members of this room alone", members)?;
    let owners: Vec<_> = members.iter().filter(|member| member.role == Role::Owner).collect();
    let owner = matches!(owners.as_slice(), [one] if one.endpoint == room.owner);
    holds(owner, "exactly one owner, the room's", members)
}

/// LIST-4: `rooms_of`, `members` and `member` agree.
#[track_caller]
pub(super) fn membership(
    listed: &Result<Vec<Member>, Error>,
    room: &Result<Room, Error>,
    endpoint: &EndpointId,
    member: &Result<Member, Error>,
    rooms: &[Room],
    id: &RoomId,
) -> Verdict {
    let in_list = listed.iter().flatten().find(|member| member.endpoint == *endpoint);
    same(member.as_ref().ok(), in_list)?;
    let in_index = rooms.iter().find(|room| room.id == *id);
    let expected = in_list.and(room.as_ref().ok());
    if in_index == expected {
        return Ok(());
    }
    let expected = format!("rooms_of({endpoint:?}) to give for {id:?}: {}", expected.show());
    Err(Failure::answer(expected, &in_index))
}

/// KEY-1, KEY-3, KEY-10: exactly the members of an encrypted room have a key at its epoch.
#[track_caller]
pub(super) fn latest_key(
    room: &Result<Room, Error>,
    member: &Result<Member, Error>,
    latest: &Result<SealedKey, Error>,
) -> Verdict {
    match (room, member, latest) {
        (Ok(room), Ok(member), Ok(key)) if room.encrypted => {
            same((&key.endpoint, key.epoch), (&member.endpoint, room.epoch))
        }
        (Ok(room), Ok(_), Err(error)) if room.encrypted => {
            Err(Failure::answer("a key of each member at the current epoch", &error))
        }
        (_, _, Ok(key)) => Err(Failure::answer("no key for an endpoint that is no member", &key)),
        (_, _, Err(_)) => Ok(()),
    }
}

/// KEY-1, KEY-2, KEY-3: only members have keys, none of a future epoch; `key` and `latest_key`
/// agree at the current epoch.
#[track_caller]
pub(super) fn key(
    room: &Result<Room, Error>,
    member: &Result<Member, Error>,
    latest: &Result<SealedKey, Error>,
    epoch: Epoch,
    key: &Result<SealedKey, Error>,
) -> Verdict {
    let today = room.as_ref().map_or(Epoch::ZERO, |room| room.epoch);
    if let Ok(key) = key {
        holds(member.is_ok(), "no key for an endpoint that is no member", key)?;
        holds(key.epoch == epoch && epoch <= today, "the key of the epoch asked for", key)?;
    }
    if room.is_ok() && epoch == today {
        same(key.as_ref().ok(), latest.as_ref().ok())?;
    }
    Ok(())
}

/// AUTH-5: there is an admin exactly when one of the users is an active admin.
#[track_caller]
pub(super) fn has_admin(users: &[User], has_admin: bool) -> Verdict {
    same(has_admin, users.iter().any(|user| user.admin && !user.revoked))
}

/// AUTH-1, USER-5: the look-up, the listing and the decisions agree.
#[track_caller]
pub(super) fn user(
    users: &[User],
    key: &UserKey,
    user: &Result<User, Error>,
    authorized: &Decision,
    admin: &Decision,
) -> Verdict {
    let found = users.iter().find(|user| user.key == *key);
    same(user.as_ref().ok(), found)?;
    let (may, may_as_admin) = match found {
        None => (Err(DenyReason::Unknown), Err(DenyReason::Unknown)),
        Some(User { revoked: true, .. }) => (Err(DenyReason::Revoked), Err(DenyReason::Revoked)),
        Some(User { admin: false, .. }) => (Ok(()), Err(DenyReason::NotAdmin)),
        Some(_) => (Ok(()), Ok(())),
    };
    let decision = |may: Result<(), DenyReason>| match may {
        Ok(()) => Decision::Allow,
        Err(reason) => Decision::Deny(reason),
    };
    same(authorized, &decision(may))?;
    same(admin, &decision(may_as_admin))
}
