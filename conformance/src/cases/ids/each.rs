//! Every id of the list `odd`, in every call.

use std::sync::Arc;

use futures::future::{try_join, try_join_all};
use membership::{Epoch, NewMember, NewRoom, Page, Rekey, Room, SealedKey, Store};
use rand::seq::SliceRandom;

use super::odd;
use super::{members_for, numbered, rooms_for};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{at, encrypted, endpoint, epoch, no_key, no_member, no_room, room, sealed};
use crate::together::together;
use crate::verdict::{Verdict, fails, same};

declare! { "ids";
    each_odd_id_names_its_own_room: "TYPE-1" "ROOM-3" "LIST-1";
    each_odd_id_names_its_own_endpoint: "TYPE-1" "KEY-2" "LIST-1";
    each_odd_id_works_in_every_call: "TYPE-1" "KEY-2" "LIST-4";
    not_found_names_each_odd_id: "TYPE-1" "ERR-1";
    deleting_a_room_with_an_odd_id_deletes_no_other: "TYPE-1" "ROOM-4";
    removing_a_member_with_an_odd_id_removes_no_other: "TYPE-1" "MEM-3" "KEY-9";
}

async fn each_odd_id_names_its_own_room(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let ids = odd::all();
    let rooms = rooms_for(&store, &ids, "owner").await?;
    for expected in &rooms {
        same(&store.room(&expected.id).await?, expected)?;
        let members = store.members(&expected.id, Page::first()).await?;
        let member = (&expected.id, &endpoint("owner"));
        same(members.iter().map(|m| (&m.room, &m.endpoint)).collect::<Vec<_>>(), vec![member])?;
    }
    same(store.rooms_of(&endpoint("owner"), Page::first()).await?, rooms)?;
    for (number, id) in ids.iter().enumerate().step_by(2) {
        let key = store.latest_key(&room(id), &endpoint("owner")).await?;
        same(key.ciphertext, numbered(number))?;
    }
    Ok(())
}

async fn each_odd_id_names_its_own_endpoint(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let r = store.create_room(encrypted("r", "!")).await?;
    let ids = odd::all();
    let members = members_for(&store, "r", &ids).await?;
    for expected in &members {
        same(&store.member(&r.id, &expected.endpoint).await?, expected)?;
        same(store.rooms_of(&expected.endpoint, Page::first()).await?, vec![r.clone()])?;
    }
    let (before, after): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| member.endpoint < endpoint("!"));
    let listed = store.members(&r.id, Page::first()).await?;
    same(listed.iter().take(before.len()).cloned().collect::<Vec<_>>(), before)?;
    same(store.members(&r.id, Page::after_id(endpoint("!"))).await?, after)?;
    for (number, id) in ids.iter().enumerate() {
        let (room, endpoint) = (r.id.clone(), endpoint(id));
        let ciphertext = numbered(number);
        let expected = SealedKey { room, epoch: Epoch::FIRST, endpoint, ciphertext };
        same(&store.key(&r.id, &expected.endpoint, Epoch::FIRST).await?, &expected)?;
        same(store.latest_key(&r.id, &expected.endpoint).await?, expected)?;
    }
    Ok(())
}

/// Makes every call on a room with this id and a member with the same id.
async fn live(store: Arc<dyn Store>, id: String) -> Verdict {
    let (r, who, owner) = (room(&id), endpoint(&id), endpoint("the owner"));
    let (second, third) = (sealed("2"), sealed("3"));
    let new = NewRoom::encrypted(r.clone(), owner.clone(), at(0), sealed("0"));
    let created = store.create_room(new).await?;
    let new = NewMember::sealed(who.clone(), at(1), Epoch::FIRST, sealed("1"));
    let member = store.add_member(&r, new).await?;
    same(&store.member(&r, &who).await?, &member)?;
    let keys = [(owner.clone(), second.clone()), (who.clone(), third.clone())];
    let rekeyed = store.rekey(&r, Rekey::new(Epoch::FIRST, [], keys)?).await?;
    same(&rekeyed, &Room { epoch: epoch(2), ..created })?;
    same(store.room(&r).await?, rekeyed.clone())?;
    same(store.key(&r, &who, Epoch::FIRST).await?.ciphertext, sealed("1"))?;
    same(store.latest_key(&r, &who).await?.ciphertext, third)?;
    same(store.latest_key(&r, &owner).await?.ciphertext, second.clone())?;
    same(store.rooms_of(&who, Page::first()).await?, vec![rekeyed])?;
    same(store.rooms_of(&who, Page::after_id(r.clone())).await?, vec![])?;
    let after = store.members(&r, Page::after_id(who.clone())).await?;
    same(after.iter().any(|m| m.endpoint <= who), false)?;
    store.remove_member(&r, &who).await?;
    fails(store.member(&r, &who).await, &no_member(&id, &id))?;
    fails(store.key(&r, &who, Epoch::FIRST).await, &no_key(&id, &id, 1))?;
    fails(store.latest_key(&r, &who).await, &no_key(&id, &id, None))?;
    same(store.rooms_of(&who, Page::first()).await?, vec![])?;
    let new = NewMember::sealed(who.clone(), at(1), epoch(2), sealed("4"));
    store.add_member(&r, new).await?;
    let rekey = Rekey::new(epoch(2), [who.clone()], [(owner.clone(), second)])?;
    store.rekey(&r, rekey).await?;
    fails(store.member(&r, &who).await, &no_member(&id, &id))?;
    store.delete_room(&r).await?;
    fails(store.room(&r).await, &no_room(&id))?;
    fails(store.latest_key(&r, &owner).await, &no_room(&id))
}

async fn each_odd_id_works_in_every_call(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    together(odd::all().into_iter().map(|id| live(Arc::clone(&store), id))).await?;
    same(store.rooms_of(&endpoint("the owner"), Page::first()).await?, vec![])
}

async fn not_found_names_each_odd_id(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    client.create_room(encrypted("here", "ann")).await?;
    let (store, here) = (client.unrecorded(), room("here"));
    let missed = |id: String| {
        let (store, here) = (Arc::clone(&store), here.clone());
        async move {
            let (r, who) = (room(&id), endpoint(&id));
            fails(store.room(&r).await, &no_room(&id))?;
            fails(store.members(&r, Page::first()).await, &no_room(&id))?;
            fails(store.member(&r, &who).await, &no_room(&id))?;
            fails(store.member(&here, &who).await, &no_member("here", &id))?;
            fails(store.latest_key(&r, &who).await, &no_room(&id))?;
            fails(store.latest_key(&here, &who).await, &no_key("here", &id, None))?;
            fails(store.key(&here, &who, Epoch::FIRST).await, &no_key("here", &id, 1))?;
            fails(store.remove_member(&here, &who).await, &no_member("here", &id))?;
            fails(store.delete_room(&r).await, &no_room(&id))?;
            same(store.rooms_of(&who, Page::first()).await?, vec![])
        }
    };
    together(odd::all().into_iter().map(missed)).await?;
    same(client.members(&here, Page::first()).await?.len(), 1)
}

async fn deleting_a_room_with_an_odd_id_deletes_no_other(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let mut ids = odd::all();
    let mut left = rooms_for(&store, &ids, "owner").await?;
    ids.shuffle(&mut cx.rng(0));
    for (round, id) in ids.iter().enumerate() {
        let id = room(id);
        // Fails if an earlier deletion has deleted this room, too.
        store.delete_room(&id).await?;
        left.retain(|room| room.id != id);
        if round % 4 == 0 || left.is_empty() {
            same(&store.rooms_of(&endpoint("owner"), Page::first()).await?, &left)?;
        }
    }
    Ok(())
}

async fn removing_a_member_with_an_odd_id_removes_no_other(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let r = store.create_room(encrypted("r", "\u{10ffff}~ the last")).await?.id;
    let mut ids = odd::all();
    let mut left = members_for(&store, "r", &ids).await?;
    let mut keys: Vec<_> =
        ids.iter().enumerate().map(|(number, id)| (endpoint(id), numbered(number))).collect();
    let mut shuffled: Vec<_> = ids.drain(..).map(|id| endpoint(&id)).collect();
    shuffled.shuffle(&mut cx.rng(0));
    for (round, who) in shuffled.iter().enumerate() {
        store.remove_member(&r, who).await?;
        left.retain(|member| member.endpoint != *who);
        keys.retain(|(endpoint, _)| endpoint != who);
        if round % 4 == 0 || left.is_empty() {
            let listed = store.members(&r, Page::first());
            let (listed, rooms) = try_join(listed, store.rooms_of(who, Page::first())).await?;
            same(listed.split_last().map(|(_, listed)| listed.to_vec()), Some(left.clone()))?;
            same(rooms, vec![])?;
        }
        if round % 16 == 0 {
            let first = keys.iter().map(|(endpoint, _)| store.key(&r, endpoint, Epoch::FIRST));
            for (found, (_, key)) in try_join_all(first).await?.iter().zip(&keys) {
                same(&found.ciphertext, key)?;
            }
        }
    }
    Ok(())
}
