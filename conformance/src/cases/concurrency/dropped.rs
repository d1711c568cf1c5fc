//! Callers who stop waiting: what they asked for is done once or not at all, and the store goes on.

use std::task::Poll;

use futures::future::join_all;
use membership::{Ciphertext, Rekey, RoomId, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::judge::{agree, looks_like, race, views};
use crate::make::{
    admin, at, at_epoch, encrypted, endpoint, epoch, joins_at, rekey, room, sealed, stale, user,
    user_number,
};
use crate::model::{Answer, Model, Op};
use crate::scene::crew;
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, fails, holds, same};

declare! { "concurrency";
    a_dropped_creation_is_done_once_or_not_at_all: "TIME-2" "ERR-2";
    a_dropped_deletion_is_done_once_or_not_at_all: "TIME-2" "ERR-2";
    a_dropped_add_is_done_once_or_not_at_all: "TIME-2" "ERR-2";
    a_dropped_removal_is_done_once_or_not_at_all: "TIME-2" "ERR-2";
    a_dropped_rekey_is_done_once_or_not_at_all: "TIME-2" "ERR-2";
    a_dropped_bootstrap_is_done_once_or_not_at_all: "TIME-2" "ERR-2";
    a_dropped_new_user_is_done_once_or_not_at_all: "TIME-2" "ERR-2";
    a_dropped_revocation_is_done_once_or_not_at_all: "TIME-2" "ERR-2";
    of_many_rekeys_half_of_them_dropped_at_most_one_wins: "TIME-2" "KEY-7";
    dropped_reads_hurt_nobody: "TIME-2";
}

/// Polls the call `times` times at most, letting others run in between, and drops it if it has not
/// ended by then.
async fn dropped<T>(call: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut call = Box::pin(call);
    for _ in 0..times {
        if let Poll::Ready(answer) = futures::poll!(&mut call) {
            return Some(answer);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// The store must look like one of `before` and `after`. It may come from the one to the other at
/// any moment, but only once: in the middle of the first look, and then the second is whole.
async fn is_done_or_not(
    store: &dyn Store,
    before: &Model,
    after: &Model,
    views: &[Op],
) -> Verdict<Model> {
    match looks_like(store, before, views).await {
        Ok(()) => Ok(before.clone()),
        Err(_) => looks_like(store, after, views).await.map(|()| after.clone()),
    }
}

/// Round by round, each with a call of its own: drops it after a few polls, among competitors who
/// write to other rooms; looks at the store; and makes the same call again, which is in order or
/// refused as the first one was not done or done.
async fn drops(
    cx: &Cx,
    setup: &[Op],
    op: impl Fn(u64) -> Op,
    seen: impl Fn(u64) -> Vec<Op>,
) -> Verdict {
    let store = cx.open().await?;
    let mut model = Model::new();
    for op in setup {
        agree(&store, &mut model, op).await?;
    }
    for round in 0..cx.rounds(24) {
        let (op, views) = (op(round), seen(round));
        for op in prepared(&op) {
            agree(&store, &mut model, &op).await?;
        }
        let competitors = busy(&store, round);
        let times = usize::try_from(round % 6).unwrap_or(0) + 1;
        let (answer, ()) = futures::join!(dropped(op.apply(&store), times), competitors);

        let (before, mut after) = (model.clone(), model.clone());
        let full = after.apply(&op);
        model = match answer {
            Some(answer) => {
                same(answer, full)?;
                looks_like(&*store.unrecorded(), &after, &views).await?;
                after
            }
            None => is_done_or_not(&*store.unrecorded(), &before, &after, &views).await?,
        };
        // Later calls work, and after this one nothing is open any more: whenever the first one
        // takes effect now, it finds its work done.
        let again = op.apply(&store).await;
        let (done, once) = after_of(&before, &op);
        let (_, refused) = after_of(&done, &op);
        let expected = format!("{} or {}", once.show(), refused.show());
        holds(again == once || again == refused, &expected, &again)?;
        model = after_of(&model, &op).0;
        looks_like(&*store.unrecorded(), &model, &views).await?;
    }
    Ok(())
}

fn after_of(model: &Model, op: &Op) -> (Model, Answer) {
    let mut after = model.clone();
    let answer = after.apply(op);
    (after, answer)
}

/// What must be there for the call to be in order.
fn prepared(op: &Op) -> Vec<Op> {
    match op {
        Op::AddMember(id, _) => vec![Op::CreateRoom(encrypted(id.as_str(), "ann"))],
        Op::DeleteRoom(id) | Op::Rekey(id, _) | Op::RemoveMember(id, _) => vec![
            Op::CreateRoom(encrypted(id.as_str(), "ann")),
            Op::AddMember(id.clone(), joins_at("bob", 1)),
        ],
        Op::RevokeUser(key, _) => vec![Op::AddUser(user(*key))],
        _ => vec![],
    }
}

/// Writes to a room nobody looks at, so that the call that is dropped is not alone.
async fn busy(store: &Client, round: u64) {
    let calls = (0..4).map(|number| {
        let store = store.unrecorded();
        async move { store.create_room(encrypted(&format!("busy {round} {number}"), "busy")).await }
    });
    // Theirs is no part of the case: they are in rooms of their own.
    join_all(calls).await;
}

fn id(round: u64) -> RoomId {
    room(&format!("r{round}"))
}

fn room_views(round: u64) -> Vec<Op> {
    let who = ["ann", "bob"].map(endpoint);
    views(&[id(round)], &who, &[], 3)
}

async fn a_dropped_creation_is_done_once_or_not_at_all(cx: Cx) -> Verdict {
    drops(&cx, &[], |n| Op::CreateRoom(encrypted(id(n).as_str(), "ann")), room_views).await
}

async fn a_dropped_deletion_is_done_once_or_not_at_all(cx: Cx) -> Verdict {
    drops(&cx, &[], |n| Op::DeleteRoom(id(n)), room_views).await
}

async fn a_dropped_add_is_done_once_or_not_at_all(cx: Cx) -> Verdict {
    drops(&cx, &[], |n| Op::AddMember(id(n), joins_at("bob", 1)), room_views).await
}

async fn a_dropped_removal_is_done_once_or_not_at_all(cx: Cx) -> Verdict {
    drops(&cx, &[], |n| Op::RemoveMember(id(n), endpoint("bob")), room_views).await
}

async fn a_dropped_rekey_is_done_once_or_not_at_all(cx: Cx) -> Verdict {
    drops(&cx, &[], |n| Op::Rekey(id(n), rekey(1, ["bob"], ["ann"])), room_views).await
}

async fn a_dropped_bootstrap_is_done_once_or_not_at_all(cx: Cx) -> Verdict {
    // It works once in a store's life: the first round's is the one that can be done.
    let key = user_number(1);
    let seen = |_| views(&[], &[], &[key], 0);
    drops(&cx, &[], |_| Op::BootstrapAdmin(admin(key)), seen).await
}

async fn a_dropped_new_user_is_done_once_or_not_at_all(cx: Cx) -> Verdict {
    let seen = |n| views(&[], &[], &[user_number(n)], 0);
    drops(&cx, &[], |n| Op::AddUser(admin(user_number(n))), seen).await
}

async fn a_dropped_revocation_is_done_once_or_not_at_all(cx: Cx) -> Verdict {
    let seen = |n| views(&[], &[], &[user_number(n)], 0);
    drops(&cx, &[], |n| Op::RevokeUser(user_number(n), at(7)), seen).await
}

async fn of_many_rekeys_half_of_them_dropped_at_most_one_wins(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let who = ["ann", "bob", "cid"];
    let key = |number: usize, who: &str| -> Ciphertext { sealed(format!("{number} to {who}")) };
    for round in 0..cx.rounds(12) {
        let before = crew(&store, &format!("r{round}"), &who).await?;
        let mut calls = Vec::new();
        for number in 0..16 {
            let keys = who.map(|who| (endpoint(who), key(number, who)));
            let (store, id) = (store.clone(), before.id.clone());
            let rekey = Rekey::new(epoch(1), [], keys)?;
            // Every other one waits for its answer.
            calls.push(async move {
                let call = store.rekey(&id, rekey);
                if number % 2 == 0 { dropped(call, 1 + number % 4).await } else { Some(call.await) }
            });
        }
        let mut winners = Vec::new();
        for (number, result) in race(calls).await?.into_iter().enumerate() {
            match result {
                Some(Ok(moved)) => {
                    same(moved, at_epoch(&before, 2))?;
                    winners.push(number);
                }
                Some(refused) => fails(refused, &stale(2))?,
                None => {}
            }
        }
        holds(winners.len() <= 1, "one winner at most", &winners)?;
        // Those who waited had an answer, so somebody won: perhaps one who was dropped.
        same(store.room(&before.id).await?, at_epoch(&before, 2))?;
        let found = store.latest_key(&before.id, &endpoint("ann")).await?.ciphertext;
        let winner = (0..16).find(|number| key(*number, "ann") == found);
        let winner = winner.ok_or_else(|| Failure::new("a contender's key", found.show()))?;
        let waited = winners.first().copied();
        let told = waited.is_none_or(|told| told == winner);
        holds(told, &format!("keys of contender {winner}, the winner"), &winners)?;
        holds(waited.is_some() || winner % 2 == 0, "a winner that was dropped or told", &winner)?;
        for who in who {
            let latest = store.latest_key(&before.id, &endpoint(who)).await?;
            same(latest.ciphertext, key(winner, who))?;
        }
    }
    Ok(())
}

async fn dropped_reads_hurt_nobody(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut model = Model::new();
    let views = views(&[room("r")], &["ann", "bob"].map(endpoint), &[user_number(1)], 3);
    let writes = [
        Op::AddUser(admin(user_number(1))),
        Op::CreateRoom(encrypted("r", "ann")),
        Op::AddMember(room("r"), joins_at("bob", 1)),
        Op::Rekey(room("r"), rekey(1, [], ["ann", "bob"])),
        Op::Rekey(room("r"), rekey(2, ["bob"], ["ann"])),
    ];
    for write in writes {
        let raw = store.unrecorded();
        for times in 0..4 {
            join_all(views.iter().map(|view| dropped(view.apply(&*raw), times))).await;
        }
        agree(&store, &mut model, &write).await?;
        looks_like(&*raw, &model, &views).await?;
    }
    Ok(())
}
