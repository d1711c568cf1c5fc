//! Concurrent additions, removals and rekeys in one room.

use membership::{Ciphertext, Epoch, NewMember, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::judge::{agree, at_once, looks_like, race, views};
use crate::make::{
    at, encrypted, endpoint, epoch, joins, joins_at, member_exists, no_member, plain, rekey, room,
    sealed,
};
use crate::model::{Model, Op};
use crate::scene::{crew, endpoints_of};
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, fails, same};

use super::clients;
use super::orders::judged;

declare! { "concurrency";
    an_add_racing_a_rekey_is_before_or_after_it: "KEY-8" "KEY-1";
    an_add_racing_a_rekey_through_two_clients_is_before_or_after_it: "KEY-8" "LIN-1", needs Clients;
    a_removal_racing_a_rekey_is_before_or_after_it: "KEY-8" "KEY-1";
    a_removal_racing_a_rekey_that_removes_the_same_member_is_linearizable: "KEY-8" "MEM-3";
    a_removal_racing_an_add_of_the_same_endpoint_is_linearizable: "MEM-2" "MEM-3";
    one_of_many_concurrent_removals_of_a_member_succeeds: "MEM-3";
    one_of_many_concurrent_adds_of_an_endpoint_succeeds: "MEM-2" "KEY-1";
    concurrent_adds_of_different_endpoints_all_succeed: "MEM-1" "LIN-1" "LIST-4";
    concurrent_adds_to_many_rooms_are_all_in_the_reverse_index: "LIST-4";
}

/// Makes `ops` at once in a new room of ann, bob and cid, in many rounds.
async fn raced(cx: &Cx, clients: &[Client], ops: impl Fn() -> Vec<Op>) -> Verdict {
    let who = ["ann", "bob", "cid", "dee"].map(endpoint);
    let views = views(&[room("r")], &who, &[], 3);
    let Some(client) = clients.first() else { return Ok(()) };
    for _ in 0..cx.rounds(40) {
        let mut model = Model::new();
        for op in [
            Op::CreateRoom(encrypted("r", "ann")),
            Op::AddMember(room("r"), joins_at("bob", 1)),
            Op::AddMember(room("r"), joins_at("cid", 1)),
        ] {
            agree(client, &mut model, &op).await?;
        }
        judged(clients, &[model], &ops(), &views).await?;
        client.delete_room(&room("r")).await?;
    }
    Ok(())
}

fn rekey_of(remove: &[&'static str], keys: &[&'static str]) -> Op {
    Op::Rekey(room("r"), rekey(1, remove.iter().copied(), keys.iter().copied()))
}

fn add_dee(at: u64) -> Op {
    Op::AddMember(room("r"), joins_at("dee", at))
}

fn remove(who: &str) -> Op {
    Op::RemoveMember(room("r"), endpoint(who))
}

async fn an_add_racing_a_rekey_is_before_or_after_it(cx: Cx) -> Verdict {
    let clients = [cx.open().await?];
    let everyone = ["ann", "bob", "cid"];
    raced(&cx, &clients, || vec![rekey_of(&[], &everyone), add_dee(1)]).await?;
    let with_dee = ["ann", "bob", "cid", "dee"];
    let both = || vec![rekey_of(&[], &with_dee), rekey_of(&[], &everyone), add_dee(1), add_dee(2)];
    raced(&cx, &clients, both).await
}

async fn an_add_racing_a_rekey_through_two_clients_is_before_or_after_it(cx: Cx) -> Verdict {
    let clients = clients(&cx, 2).await?;
    raced(&cx, &clients, || vec![rekey_of(&[], &["ann", "bob", "cid"]), add_dee(1)]).await
}

async fn a_removal_racing_a_rekey_is_before_or_after_it(cx: Cx) -> Verdict {
    let clients = [cx.open().await?];
    raced(&cx, &clients, || vec![rekey_of(&[], &["ann", "bob", "cid"]), remove("bob")]).await?;
    raced(&cx, &clients, || vec![rekey_of(&["cid"], &["ann", "bob"]), remove("bob")]).await
}

async fn a_removal_racing_a_rekey_that_removes_the_same_member_is_linearizable(cx: Cx) -> Verdict {
    let clients = [cx.open().await?];
    raced(&cx, &clients, || vec![rekey_of(&["bob"], &["ann", "cid"]), remove("bob")]).await
}

async fn a_removal_racing_an_add_of_the_same_endpoint_is_linearizable(cx: Cx) -> Verdict {
    let clients = [cx.open().await?];
    let add = || Op::AddMember(room("r"), joins_at("bob", 1));
    raced(&cx, &clients, || vec![remove("bob"), add(), remove("bob"), add()]).await
}

async fn one_of_many_concurrent_removals_of_a_member_succeeds(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let r = room("r");
    crew(&store, "r", &["ann", "bob"]).await?;
    for _ in 0..cx.rounds(10) {
        let ops = vec![remove("bob"); 16];
        let answers = at_once(std::slice::from_ref(&store), &ops).await?;
        let done = answers.iter().filter(|answer| answer.error().is_none()).count();
        same(done, 1)?;
        for error in answers.iter().filter_map(|answer| answer.error()) {
            fails::<()>(Err(error.clone()), &no_member("r", "bob"))?;
        }
        same(endpoints_of(&store, &r).await?, vec![endpoint("ann")])?;
        same(store.room(&r).await?.rekey_due, true)?;
        store.add_member(&r, joins_at("bob", 1)).await?;
    }
    Ok(())
}

async fn one_of_many_concurrent_adds_of_an_endpoint_succeeds(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let (r, bob) = (room("r"), endpoint("bob"));
    crew(&store, "r", &["ann"]).await?;
    let key = |number: usize| -> Ciphertext { sealed(format!("from caller {number}")) };
    for _ in 0..cx.rounds(10) {
        let calls = (0..16).zip(1000..).map(|(number, millis)| {
            let new = NewMember::sealed(bob.clone(), at(millis), Epoch::FIRST, key(number));
            let (store, r) = (store.clone(), r.clone());
            async move { store.add_member(&r, new).await }
        });
        let results = race(calls).await?;
        let mut winners = Vec::new();
        for (number, result) in results.into_iter().enumerate() {
            match result {
                Ok(member) => winners.push((number, member)),
                refused => fails(refused, &member_exists("r", "bob"))?,
            }
        }
        let [(winner, member)] = winners.as_slice() else {
            return Err(Failure::answer("one winner", &winners));
        };
        same(store.member(&r, &bob).await?, member.clone())?;
        same(store.latest_key(&r, &bob).await?.ciphertext, key(*winner))?;
        store.remove_member(&r, &bob).await?;
    }
    Ok(())
}

async fn concurrent_adds_of_different_endpoints_all_succeed(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let names: Vec<_> = (10..42).map(|number| format!("e{number}")).collect();
    let mut who: Vec<_> = names.iter().map(|name| endpoint(name)).collect();
    who.insert(0, endpoint("ann"));
    let mut model = Model::new();
    for (id, create) in [("p", plain("p", "ann")), ("r", encrypted("r", "ann"))] {
        agree(&store, &mut model, &Op::CreateRoom(create)).await?;
        let new = |name: &String| if id == "p" { joins(name) } else { joins_at(name, 1) };
        let ops: Vec<_> = names.iter().map(|name| Op::AddMember(room(id), new(name))).collect();
        let answers = at_once(std::slice::from_ref(&store), &ops).await?;
        // Any order of these calls gives the same answers.
        for (op, answer) in ops.iter().zip(answers) {
            same(answer, model.apply(op))?;
        }
        same(endpoints_of(&store, &room(id)).await?, who.clone())?;
    }
    let views = views(&[room("p"), room("r")], &who, &[], 2);
    looks_like(&*store.unrecorded(), &model, &views).await?;
    same(store.room(&room("r")).await?.epoch, epoch(1))
}

async fn concurrent_adds_to_many_rooms_are_all_in_the_reverse_index(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ids: Vec<_> = (10..34).map(|number| format!("r{number}")).collect();
    let mut model = Model::new();
    let views = views(&[], &[endpoint("ann"), endpoint("bob")], &[], 0);
    let steps: [fn(&String) -> Op; 4] = [
        |id| Op::CreateRoom(encrypted(id, "ann")),
        |id| Op::AddMember(room(id), joins_at("bob", 1)),
        |id| Op::RemoveMember(room(id), endpoint("bob")),
        |id| Op::DeleteRoom(room(id)),
    ];
    for step in steps {
        let ops: Vec<_> = ids.iter().map(step).collect();
        let answers = at_once(std::slice::from_ref(&store), &ops).await?;
        for (op, answer) in ops.iter().zip(answers) {
            same(answer, model.apply(op))?;
        }
        looks_like(&*store.unrecorded(), &model, &views).await?;
    }
    Ok(())
}
