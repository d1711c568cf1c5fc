//! Rooms that are made and deleted while concurrent calls use them.

use membership::{NewRoom, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::judge::{agree, at_once, looks_like, race, views};
use crate::make::{
    at, encrypted, endpoint, joins_at, no_room, plain, rekey, room, room_exists, sealed,
};
use crate::model::{Model, Op};
use crate::scene::{crew, rooms_of};
use crate::verdict::{Failure, Verdict, fails, same};

use super::orders::judged;

declare! { "concurrency";
    one_of_many_concurrent_creations_of_a_room_succeeds: "ROOM-2" "ROOM-1";
    one_of_many_concurrent_deletions_of_a_room_succeeds: "ROOM-4";
    a_creation_racing_a_deletion_is_linearizable: "ROOM-5" "LIN-1";
    an_add_racing_a_deletion_leaves_no_trace: "ROOM-5" "ROOM-4";
    a_rekey_racing_a_deletion_leaves_no_trace: "ROOM-5" "ROOM-4";
    a_removal_racing_a_deletion_leaves_no_trace: "ROOM-5" "ROOM-4";
    late_calls_on_a_deleted_room_do_not_affect_its_successor: "ROOM-5" "LIN-1";
}

async fn one_of_many_concurrent_creations_of_a_room_succeeds(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for round in 0..cx.rounds(8) {
        let id = format!("r{round}");
        let owner = |number: usize| endpoint(&format!("owner{number}"));
        let key = |number: usize| sealed(format!("owner's key {number}"));
        // Half of the creations are of an unencrypted room.
        let new = |number: usize| match number % 2 {
            0 => NewRoom::encrypted(room(&id), owner(number), at(1), key(number)),
            _ => NewRoom::unencrypted(room(&id), owner(number), at(1)),
        };
        let calls = (0..16).map(new).map(|new| {
            let store = store.clone();
            async move { store.create_room(new).await }
        });
        let mut winners = Vec::new();
        for (number, result) in race(calls).await?.into_iter().enumerate() {
            match result {
                Ok(room) => winners.push((number, room)),
                refused => fails(refused, &room_exists(&id))?,
            }
        }
        let [(winner, made)] = winners.as_slice() else {
            return Err(Failure::answer("one winner", &winners));
        };
        same(made.clone(), new(*winner).room())?;
        same(store.room(&room(&id)).await?, made.clone())?;
        for number in 0..16 {
            let listed = rooms_of(&store, owner(number).as_str()).await?;
            same(listed.contains(&room(&id)), number == *winner)?;
        }
        if made.encrypted {
            let latest = store.latest_key(&room(&id), &made.owner).await?;
            same(latest.ciphertext, key(*winner))?;
        }
    }
    Ok(())
}

async fn one_of_many_concurrent_deletions_of_a_room_succeeds(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for _ in 0..cx.rounds(8) {
        crew(&store, "r", &["ann", "bob"]).await?;
        let answers =
            at_once(std::slice::from_ref(&store), &vec![Op::DeleteRoom(room("r")); 16]).await?;
        same(answers.iter().filter(|answer| answer.error().is_none()).count(), 1)?;
        for error in answers.iter().filter_map(|answer| answer.error()) {
            fails::<()>(Err(error.clone()), &no_room("r"))?;
        }
        same(rooms_of(&store, "bob").await?, vec![])?;
    }
    Ok(())
}

/// Makes `ops` at once in a room of ann and bob at epoch 2, in many rounds.
///
/// Afterwards the room is made again under its id, and nothing of the former room may be seen.
async fn raced(cx: &Cx, ops: &[Op]) -> Verdict {
    let store = cx.open().await?;
    let r = room("r");
    let who = ["ann", "bob", "cid"].map(endpoint);
    let views = views(std::slice::from_ref(&r), &who, &[], 4);
    let clients = [store.clone()];
    for _ in 0..cx.rounds(25) {
        let mut model = Model::new();
        for op in [
            Op::CreateRoom(encrypted("r", "ann")),
            Op::AddMember(r.clone(), joins_at("bob", 1)),
            Op::Rekey(r.clone(), rekey(1, [], ["ann", "bob"])),
        ] {
            agree(&store, &mut model, &op).await?;
        }
        let after = judged(&clients, &[model], ops, &views).await?;
        // The race may leave a room under the id. That room is deleted, since the id must be free
        // below.
        let mut model = after.into_iter().next().unwrap_or_default();
        if model.epoch_of(&r).is_some() {
            agree(&store, &mut model, &Op::DeleteRoom(r.clone())).await?;
        }
        looks_like(&*store.unrecorded(), &Model::new(), &views).await?;
        agree(&store, &mut model, &Op::CreateRoom(encrypted("r", "cid"))).await?;
        looks_like(&*store.unrecorded(), &model, &views).await?;
        // Keys of the former room's epochs could be seen once the new room reaches them.
        for from in 1..=2 {
            agree(&store, &mut model, &Op::Rekey(r.clone(), rekey(from, [], ["cid"]))).await?;
            looks_like(&*store.unrecorded(), &model, &views).await?;
        }
        agree(&store, &mut model, &Op::DeleteRoom(r.clone())).await?;
    }
    Ok(())
}

async fn a_creation_racing_a_deletion_is_linearizable(cx: Cx) -> Verdict {
    let r = room("r");
    let create = Op::CreateRoom(plain("r", "bob"));
    raced(&cx, &[Op::DeleteRoom(r.clone()), create.clone(), Op::DeleteRoom(r), create]).await
}

async fn an_add_racing_a_deletion_leaves_no_trace(cx: Cx) -> Verdict {
    let r = room("r");
    raced(&cx, &[Op::DeleteRoom(r.clone()), Op::AddMember(r, joins_at("cid", 2))]).await
}

async fn a_rekey_racing_a_deletion_leaves_no_trace(cx: Cx) -> Verdict {
    let r = room("r");
    raced(&cx, &[Op::DeleteRoom(r.clone()), Op::Rekey(r, rekey(2, [], ["ann", "bob"]))]).await
}

async fn a_removal_racing_a_deletion_leaves_no_trace(cx: Cx) -> Verdict {
    let r = room("r");
    let removals = [
        Op::RemoveMember(r.clone(), endpoint("bob")),
        Op::Rekey(r.clone(), rekey(2, ["bob"], ["ann"])),
    ];
    raced(&cx, &[&[Op::DeleteRoom(r)][..], &removals].concat()).await
}

async fn late_calls_on_a_deleted_room_do_not_affect_its_successor(cx: Cx) -> Verdict {
    let r = room("r");
    // The new room is owned by bob and at epoch 1. The late calls are for the former room's epoch
    // 2, so they must fail in the new one.
    let next = Op::CreateRoom(encrypted("r", "bob"));
    let late = [
        Op::Rekey(r.clone(), rekey(2, [], ["ann", "bob"])),
        Op::AddMember(r.clone(), joins_at("cid", 2)),
    ];
    raced(&cx, &[&[Op::DeleteRoom(r), next][..], &late].concat()).await
}
