//! Makes rooms with members, for the beginning of a case.

use membership::{EndpointId, Page, Room, RoomId, Store};

use crate::make::{self, encrypted, joins, joins_at, plain, room};
use crate::verdict::{Failure, Verdict};

/// Makes an encrypted room at epoch 1. The first of `who` owns the room, the others are members,
/// and each has the key that [`key_of`](crate::make::key_of) gives.
pub(crate) async fn crew(store: &dyn Store, id: &str, who: &[&str]) -> Verdict<Room> {
    let (owner, others) = owner_and_others(who)?;
    let made = store.create_room(encrypted(id, owner)).await?;
    for other in others {
        store.add_member(&room(id), joins_at(other, 1)).await?;
    }
    Ok(made)
}

/// Makes an unencrypted room. The first of `who` owns the room, the others are members.
pub(crate) async fn open_crew(store: &dyn Store, id: &str, who: &[&str]) -> Verdict<Room> {
    let (owner, others) = owner_and_others(who)?;
    let made = store.create_room(plain(id, owner)).await?;
    for other in others {
        store.add_member(&room(id), joins(other)).await?;
    }
    Ok(made)
}

/// Rekeys a room of these members from epoch `from` up to epoch `to`. The keys are those of
/// [`key_of`](crate::make::key_of).
pub(crate) async fn advance(
    store: &dyn Store,
    id: &str,
    who: &[&str],
    from: u64,
    to: u64,
) -> Verdict {
    for at in from..to {
        store.rekey(&room(id), make::rekey(at, [], who.iter().copied())).await?;
    }
    Ok(())
}

/// The endpoints of all members of a room, page by page.
pub(crate) async fn endpoints_of(store: &dyn Store, id: &RoomId) -> Verdict<Vec<EndpointId>> {
    let mut all: Vec<EndpointId> = Vec::new();
    loop {
        let after = all.last().cloned().map_or_else(Page::first, Page::after_id);
        let page = store.members(id, after).await?;
        if page.is_empty() {
            return Ok(all);
        }
        let grown = all.last().is_none_or(|last| page.iter().all(|m| m.endpoint > *last));
        if !grown {
            return Err(Failure::answer("members after the last ones", &page));
        }
        all.extend(page.into_iter().map(|member| member.endpoint));
    }
}

/// The ids of the rooms of which an endpoint is a member, at most one page.
pub(crate) async fn rooms_of(store: &dyn Store, who: &str) -> Verdict<Vec<RoomId>> {
    let rooms = store.rooms_of(&make::endpoint(who), Page::first()).await?;
    Ok(rooms.into_iter().map(|room| room.id).collect())
}

fn owner_and_others<'a>(who: &'a [&'a str]) -> Verdict<(&'a str, &'a [&'a str])> {
    let (owner, others) =
        who.split_first().ok_or_else(|| Failure::new("a crew with an owner", "nobody"))?;
    Ok((owner, others))
}
