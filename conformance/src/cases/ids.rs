//! Ids are opaque: no id is special, and different ids stay apart.

pub(super) mod apart;
pub(super) mod each;
pub(super) mod hashes;
mod odd;

use std::sync::Arc;

use membership::{Ciphertext, Epoch, Member, NewMember, NewRoom, Role, Room, Store};

use crate::make::{at, endpoint, room, sealed};
use crate::together::together;
use crate::verdict::{Verdict, same};

/// The sealed key of this number. Every number's key differs.
fn numbered(number: usize) -> Ciphertext {
    sealed(number.to_be_bytes())
}

fn moment(number: usize) -> membership::Timestamp {
    at(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Makes a room of `owner` for each id, every second one encrypted. Returns them in byte order.
///
/// Each room has its own creation time and key, which show a mix-up.
async fn rooms_for(store: &Arc<dyn Store>, ids: &[String], owner: &str) -> Verdict<Vec<Room>> {
    let news = ids.iter().enumerate().map(|(number, id)| {
        let (id, owner, when) = (room(id), endpoint(owner), moment(number));
        match number % 2 {
            0 => NewRoom::encrypted(id, owner, when, numbered(number)),
            _ => NewRoom::unencrypted(id, owner, when),
        }
    });
    let creating = news.map(|new| {
        let (store, expected) = (Arc::clone(store), new.room());
        async move {
            same(&store.create_room(new).await?, &expected)?;
            Ok(expected)
        }
    });
    let mut rooms = together(creating).await?;
    rooms.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(rooms)
}

/// Adds an endpoint for each of `ids` to the encrypted room `id`. Returns them in byte order.
///
/// Each member has its own time and key, which show a mix-up.
async fn members_for(store: &Arc<dyn Store>, id: &str, ids: &[String]) -> Verdict<Vec<Member>> {
    let adding = ids.iter().enumerate().map(|(number, who)| {
        let (store, r, who) = (Arc::clone(store), room(id), endpoint(who));
        async move {
            let new = NewMember::sealed(who, moment(number), Epoch::FIRST, numbered(number));
            Ok(store.add_member(&r, new).await?)
        }
    });
    let mut members = together(adding).await?;
    for (number, (member, who)) in members.iter().zip(ids).enumerate() {
        let (r, who, added_at) = (room(id), endpoint(who), moment(number));
        let (role, joined_epoch) = (Role::Member, Epoch::FIRST);
        same(member, &Member { room: r, endpoint: who, role, joined_epoch, added_at })?;
    }
    members.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    Ok(members)
}
