//! Rooms from creation to deletion: every call, and every read after it, must answer as the model.

mod script;

use membership::{Page, Room, RoomId, Store};
use rand::RngExt;

use crate::case::declare;
use crate::context::Cx;
use crate::judge::{agree, looks_like, views};
use crate::make::{encrypted, endpoint, joins, joins_at, page, plain, rekey, room};
use crate::model::{Model, Op};
use crate::scene::rooms_of;
use crate::transcript::Client;
use crate::verdict::{Verdict, same};
use script::{encrypted_life, unencrypted_life};

declare! { "life";
    an_encrypted_room_agrees_with_the_model_all_its_life:
        "ROOM-1" "MEM-1" "MEM-3" "MEM-5" "KEY-3" "KEY-5" "ROOM-4" "ROOM-5";
    an_unencrypted_room_agrees_with_the_model_all_its_life:
        "ROOM-1" "MEM-1" "MEM-3" "KEY-10" "ROOM-4" "ROOM-5";
    interleaved_calls_on_several_rooms_do_not_affect_each_other: "LIST-4" "KEY-2" "KEY-4";
    several_clients_in_turn_agree_with_the_model: "LIN-1", needs Clients;
    a_store_reopened_before_each_call_agrees_with_the_model: "DUR-1", needs Reopen;
    a_room_created_and_deleted_many_times_agrees_with_the_model: "ROOM-5" "ROOM-4";
    a_room_made_again_unencrypted_agrees_with_the_model: "ROOM-5" "KEY-10";
    rooms_of_lists_exactly_the_rooms_that_an_endpoint_is_in: "LIST-4" "LIST-1";
    deleting_a_room_leaves_its_members_other_rooms_alone: "ROOM-4" "LIST-4";
}

/// The endpoints in the scripts, and one that is in none of them.
const WHO: [&str; 6] = ["ann", "bob", "cid", "dee", "eve", "nobody"];
/// The epoch after the last one that a script reaches.
const LAST: u64 = 6;

fn every_view(rooms: &[RoomId]) -> Vec<Op> {
    views(rooms, &WHO.map(endpoint), &[], LAST)
}

async fn lives(store: &Client, script: &[Op], rooms: &[RoomId]) -> Verdict {
    let (mut model, views) = (Model::new(), every_view(rooms));
    for op in script {
        agree(store, &mut model, op).await?;
        looks_like(&*store.unrecorded(), &model, &views).await?;
    }
    Ok(())
}

async fn an_encrypted_room_agrees_with_the_model_all_its_life(cx: Cx) -> Verdict {
    lives(&cx.open().await?, &encrypted_life("r"), &[room("r")]).await
}

async fn an_unencrypted_room_agrees_with_the_model_all_its_life(cx: Cx) -> Verdict {
    lives(&cx.open().await?, &unencrypted_life("p"), &[room("p")]).await
}

/// The scripts of several rooms, interleaved in an order drawn from the case's seed; and the rooms.
fn interleaved(cx: &Cx) -> (Vec<Op>, Vec<RoomId>) {
    let ids = ["r", "r2", "r 2", "p", "R"];
    let mut lives =
        ids.map(|id| if id == "p" { unencrypted_life(id) } else { encrypted_life(id) }.into_iter());
    let (mut rng, mut script) = (cx.rng(1), Vec::new());
    let steps: usize = lives.iter().map(ExactSizeIterator::len).sum();
    while script.len() < steps {
        let drawn = rng.random_range(0..lives.len());
        script.extend(lives.get_mut(drawn).and_then(Iterator::next));
    }
    (script, ids.map(room).into())
}

async fn interleaved_calls_on_several_rooms_do_not_affect_each_other(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let (script, rooms) = interleaved(&cx);
    let (mut model, views) = (Model::new(), every_view(&rooms));
    for (step, op) in script.iter().enumerate() {
        agree(&store, &mut model, op).await?;
        if step % 8 == 0 {
            looks_like(&*store.unrecorded(), &model, &views).await?;
        }
    }
    looks_like(&*store.unrecorded(), &model, &views).await
}

async fn several_clients_in_turn_agree_with_the_model(cx: Cx) -> Verdict {
    let clients = [cx.open().await?, cx.open().await?, cx.open().await?];
    let (script, rooms) = interleaved(&cx);
    let (mut model, views) = (Model::new(), every_view(&rooms));
    for (step, (op, client)) in script.iter().zip(clients.iter().cycle()).enumerate() {
        agree(client, &mut model, op).await?;
        if step % 16 == 0 {
            for client in &clients {
                looks_like(&*client.unrecorded(), &model, &views).await?;
            }
        }
    }
    Ok(())
}

async fn a_store_reopened_before_each_call_agrees_with_the_model(cx: Cx) -> Verdict {
    let (mut model, views) = (Model::new(), every_view(&[room("r")]));
    for op in encrypted_life("r") {
        let store = cx.open().await?;
        looks_like(&*store.unrecorded(), &model, &views).await?;
        agree(&store, &mut model, &op).await?;
        store.close().await?;
    }
    let store = cx.open().await?;
    looks_like(&*store.unrecorded(), &model, &views).await
}

async fn a_room_created_and_deleted_many_times_agrees_with_the_model(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let (mut model, views) = (Model::new(), every_view(&[room("r")]));
    let pairs = [("ann", "bob"), ("bob", "cid"), ("cid", "ann")];
    // The members change each time, so that a key left over from the former room is noticed.
    for (owner, other) in pairs.into_iter().cycle().take(12) {
        for op in [
            Op::CreateRoom(encrypted("r", owner)),
            Op::AddMember(room("r"), joins_at(other, 1)),
            Op::Rekey(room("r"), rekey(1, [], [owner, other])),
            Op::RemoveMember(room("r"), endpoint(other)),
        ] {
            agree(&store, &mut model, &op).await?;
        }
        looks_like(&*store.unrecorded(), &model, &views).await?;
        agree(&store, &mut model, &Op::DeleteRoom(room("r"))).await?;
        looks_like(&*store.unrecorded(), &model, &views).await?;
    }
    Ok(())
}

async fn a_room_made_again_unencrypted_agrees_with_the_model(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let r = room("r");
    let script = [
        Op::CreateRoom(encrypted("r", "ann")),
        Op::AddMember(r.clone(), joins_at("bob", 1)),
        Op::Rekey(r.clone(), rekey(1, [], ["ann", "bob"])),
        Op::RemoveMember(r.clone(), endpoint("bob")),
        Op::DeleteRoom(r.clone()),
        Op::CreateRoom(plain("r", "bob")),
        Op::AddMember(r.clone(), joins("ann")),
        Op::AddMember(r.clone(), joins_at("cid", 0)),
        Op::Rekey(r.clone(), rekey(0, [], ["ann", "bob"])),
        Op::RemoveMember(r.clone(), endpoint("ann")),
        Op::DeleteRoom(r.clone()),
        Op::CreateRoom(encrypted("r", "ann")),
        Op::AddMember(r.clone(), joins("bob")),
        Op::Rekey(r.clone(), rekey(1, [], ["ann"])),
    ];
    lives(&store, &script, &[r]).await
}

async fn rooms_of_lists_exactly_the_rooms_that_an_endpoint_is_in(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut expected = Vec::new();
    for number in 0..60 {
        // The order of creation is not byte order: "room10" comes before "room9".
        let id = format!("room{number}");
        let owner = if number % 3 == 0 { "bob" } else { "ann" };
        let encrypt = number % 2 == 0;
        let made = store
            .create_room(if encrypt { encrypted(&id, owner) } else { plain(&id, owner) })
            .await?;
        if owner == "ann" {
            store
                .add_member(&made.id, if encrypt { joins_at("bob", 1) } else { joins("bob") })
                .await?;
        }
        expected.push(made);
    }
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    same(store.rooms_of(&endpoint("bob"), Page::first()).await?, expected.clone())?;

    let mut walked = Vec::new();
    loop {
        let after = walked.last().map(|room: &Room| room.id.clone());
        let found = store.rooms_of(&endpoint("bob"), page(after, 7)).await?;
        if found.is_empty() {
            break;
        }
        walked.extend(found);
    }
    same(walked, expected.clone())?;

    // bob leaves every room that he does not own, some by a rekey and the others by a removal.
    for room in expected.iter().filter(|room| room.owner == endpoint("ann")) {
        if room.encrypted && room.id.as_str().ends_with('4') {
            store.rekey(&room.id, rekey(1, ["bob"], ["ann"])).await?;
        } else {
            store.remove_member(&room.id, &endpoint("bob")).await?;
        }
    }
    expected.retain(|room| room.owner == endpoint("bob"));
    same(store.rooms_of(&endpoint("bob"), Page::first()).await?, expected)
}

async fn deleting_a_room_leaves_its_members_other_rooms_alone(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ids = ["a", "ab", "abc", "b"];
    let (mut model, rooms) = (Model::new(), ids.map(room));
    let views = every_view(&rooms);
    for id in ids {
        agree(&store, &mut model, &Op::CreateRoom(encrypted(id, "ann"))).await?;
        agree(&store, &mut model, &Op::AddMember(room(id), joins_at("bob", 1))).await?;
    }
    for id in ["ab", "a"] {
        agree(&store, &mut model, &Op::DeleteRoom(room(id))).await?;
        looks_like(&*store.unrecorded(), &model, &views).await?;
    }
    same(rooms_of(&store, "bob").await?, vec![room("abc"), room("b")])
}
