//! Dropped writes, alone and beside a concurrent write on the same record.

use std::time::{Duration, Instant};

use futures::future::join_all;
use membership::{NewRoom, RoomId};

use super::{cut, each_poll, never_ends};
use crate::case::declare;
use crate::context::Cx;
use crate::judge::{agree, looks_like, views};
use crate::make::{
    admin, at, encrypted, endpoint, joins_at, rekey, room, user, user_key, user_number,
};
use crate::model::{Answer, Model, Op};
use crate::race::{clients, joined};
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict};

declare! { "cancellation";
    a_dropped_room_creation_takes_effect_once_or_not_at_all: "TIME-2" "ERR-2" "ROOM-1";
    a_dropped_room_deletion_takes_effect_once_or_not_at_all: "TIME-2" "ERR-2" "ROOM-4";
    a_dropped_member_addition_takes_effect_once_or_not_at_all: "TIME-2" "ERR-2" "MEM-1";
    a_dropped_member_removal_takes_effect_once_or_not_at_all: "TIME-2" "ERR-2" "MEM-3";
    a_dropped_rekey_takes_effect_once_or_not_at_all: "TIME-2" "ERR-2" "KEY-5";
    a_dropped_bootstrap_takes_effect_once_or_not_at_all: "TIME-2" "ERR-2" "USER-1";
    a_dropped_user_addition_takes_effect_once_or_not_at_all: "TIME-2" "ERR-2" "USER-2";
    a_dropped_revocation_takes_effect_once_or_not_at_all: "TIME-2" "ERR-2" "USER-3";
    a_dropped_room_creation_and_a_concurrent_creation_are_linearizable: "TIME-2" "LIN-1" "ROOM-2";
    a_dropped_room_deletion_and_a_concurrent_rekey_are_linearizable: "TIME-2" "LIN-1" "ROOM-5";
    a_dropped_member_addition_and_a_concurrent_rekey_are_linearizable: "TIME-2" "LIN-1" "KEY-8";
    a_dropped_member_removal_and_a_concurrent_rekey_are_linearizable: "TIME-2" "LIN-1" "KEY-8";
    a_dropped_rekey_and_a_concurrent_member_addition_are_linearizable: "TIME-2" "LIN-1" "KEY-6";
    a_dropped_rekey_and_a_concurrent_rekey_are_linearizable: "TIME-2" "LIN-1" "KEY-7";
    a_dropped_bootstrap_and_a_concurrent_bootstrap_are_linearizable: "TIME-2" "LIN-1" "USER-1";
    a_dropped_user_addition_and_a_concurrent_addition_are_linearizable: "TIME-2" "LIN-1" "USER-2";
    a_dropped_revocation_and_a_concurrent_revocation_are_linearizable: "TIME-2" "LIN-1" "USER-4";
}

/// How long a case watches for undone writes that wrongly take effect again.
const LEFT_OVERS: Duration = Duration::from_millis(50);

/// A write to drop, with the calls around it.
///
/// Each function takes the number of polls, which gives each try its own room and users.
pub(super) struct Script {
    /// The calls that the write presupposes.
    pub(super) before: fn(u64) -> Vec<Op>,
    pub(super) call: fn(u64) -> Op,
    /// The calls that undo the write, if any can.
    undo: fn(u64) -> Vec<Op>,
    /// The reads that show whether the write took effect.
    pub(super) views: fn(u64) -> Vec<Op>,
}

/// A possible state, and whether the dropped call has taken effect in it.
pub(super) type May = (Model, bool);

/// The state after these calls in this order; `None` if one of them would have another answer.
fn leads_to(model: &Model, calls: &[(&Op, Option<&Answer>)]) -> Option<Model> {
    let mut after = model.clone();
    let as_told = calls.iter().all(|(op, told)| {
        let answer = after.apply(op);
        told.is_none_or(|told| answer == *told)
    });
    as_told.then_some(after)
}

/// Drops `call` after `polls` polls, beside a concurrent call if there is one.
///
/// Returns the answer of `call`, if it ended by itself, and the states that are possible now. Fails
/// if no state is.
async fn dropped(
    cx: &Cx,
    [store, other]: [&Client; 2],
    model: &Model,
    (call, beside): (&Op, Option<Op>),
    polls: u64,
) -> Verdict<(Option<Answer>, Vec<May>)> {
    let (client, op) = (store.clone(), call.clone());
    let cut = cut(async move { op.apply(&client).await }, polls);
    let (answer, beside) = match beside {
        Some(op) => {
            let (client, made) = (other.clone(), op.clone());
            let beside = tokio::spawn(async move { made.apply(&client).await });
            let (answer, told) = futures::join!(cut, cx.within_slow_bound(joined(beside)));
            (answer, Some((op, told?)))
        }
        None => (cut.await, None),
    };
    let called = (call, answer.as_ref());
    let mut orders = match &beside {
        Some((op, told)) => {
            let beside = (op, Some(told));
            vec![(vec![called, beside], true), (vec![beside, called], true)]
        }
        None => vec![(vec![called], true)],
    };
    if answer.is_none() {
        orders.push((beside.iter().map(|(op, told)| (op, Some(told))).collect(), false));
    }
    let mut may: Vec<May> = Vec::new();
    for (order, done) in orders {
        if let Some(after) = leads_to(model, &order)
            && may.iter().all(|(known, _)| *known != after)
        {
            may.push((after, done));
        }
    }
    if may.is_empty() {
        let told = (answer.map(|answer| answer.show()), beside.map(|(_, told)| told.show()));
        return Err(Failure::new("answers that some order explains", format!("{told:?}")));
    }
    Ok((answer, may))
}

/// The states of `may` that agree with the store's answers. Fails if none does.
///
/// The dropped call may take effect between two reads, so that the answers agree with no state. The
/// call takes effect only once, so in that case all answers are read a second time.
pub(super) async fn seen(store: &Client, may: Vec<May>, views: &[Op]) -> Verdict<Vec<May>> {
    let raw = store.unrecorded();
    let mut last = Vec::new();
    for _ in 0..2 {
        last = join_all(views.iter().map(|view| view.apply(&*raw))).await;
        let fits = |model: &Model| {
            let mut model = model.clone();
            views.iter().zip(&last).all(|(view, answer)| model.apply(view) == *answer)
        };
        let left: Vec<_> = may.iter().filter(|(model, _)| fits(model)).cloned().collect();
        if !left.is_empty() {
            return Ok(left);
        }
    }
    // The failure shows the first difference from the state with the fewest differences.
    let mut nearest: Option<(usize, String, String)> = None;
    for (model, _) in &may {
        let mut model = model.clone();
        let answers = views.iter().zip(&last);
        let differ = answers.filter_map(|(view, got)| {
            let expected = model.apply(view);
            (expected != *got).then(|| (format!("of {view:?}: {}", expected.show()), got.show()))
        });
        let differ: Vec<_> = differ.collect();
        let count = differ.len();
        if let Some((expected, got)) = differ.into_iter().next()
            && nearest.as_ref().is_none_or(|(least, ..)| count < *least)
        {
            nearest = Some((count, expected, got));
        }
    }
    let (_, expected, got) =
        nearest.unwrap_or_else(|| (0, "a state that some order explains".into(), "none".into()));
    Err(Failure::new(expected, got))
}

/// Drops the call of `script` at each poll, beside a concurrent call if there is one.
///
/// Reads the store after each drop. Then repeats the call: its answer must fit a state in which the
/// dropped call took effect, or one in which it did not.
async fn each(cx: &Cx, script: &Script, beside: Option<fn(u64) -> Op>) -> Verdict {
    let clients = clients(cx, 2).await?;
    let [store, other] = clients.as_slice() else { return Ok(()) };
    let mut model = Model::new();
    agree(store, &mut model, &Op::AddUser(user(user_key(0xff)))).await?;
    let mut undone = Vec::new();
    for polls in each_poll(cx) {
        let (call, views) = ((script.call)(polls), (script.views)(polls));
        for op in (script.before)(polls) {
            agree(store, &mut model, &op).await?;
        }
        let both = (&call, beside.map(|beside| beside(polls)));
        let (answer, may) = dropped(cx, [store, other], &model, both, polls).await?;
        let mut may = cx.within_slow_bound(seen(other, may, &views)).await??;
        let surely = may.iter().all(|(_, done)| *done);
        // A dropped call that has not taken effect may still do so before the next call.
        if answer.is_none() {
            let late = may.iter().filter(|(_, done)| !done).map(|(model, _)| {
                let mut late = model.clone();
                late.apply(&call);
                (late, true)
            });
            let late: Vec<_> = late.collect();
            may.extend(late);
        }
        let again = cx.within_slow_bound(call.apply(store)).await?;
        let told: Vec<_> = may.iter().map(|(model, _)| model.clone().apply(&call).show()).collect();
        may.retain_mut(|(model, _)| model.apply(&call) == again);
        if may.is_empty() {
            return Err(Failure::answer(told.join(" or "), &again));
        }
        let left = cx.within_slow_bound(seen(other, may, &views)).await??;
        if let Some((after, _)) = left.into_iter().next() {
            model = after;
        }
        if surely && beside.is_none() {
            for op in (script.undo)(polls) {
                agree(other, &mut model, &op).await?;
            }
            undone.push(polls);
        }
        if answer.is_some() {
            // The writes that were seen and then undone must not take effect again. They would if a
            // background task of a dropped call repeated one.
            let until = Instant::now() + LEFT_OVERS;
            loop {
                let over = Instant::now() > until;
                for polls in &undone {
                    looks_like(&*store.unrecorded(), &model, &(script.views)(*polls)).await?;
                }
                if over || undone.is_empty() {
                    return Ok(());
                }
                tokio::task::yield_now().await;
            }
        }
    }
    Err(never_ends())
}

fn id(polls: u64) -> RoomId {
    room(&format!("r{polls}"))
}

fn new(polls: u64) -> NewRoom {
    encrypted(id(polls).as_str(), "ann")
}

fn nothing(_: u64) -> Vec<Op> {
    Vec::new()
}

fn a_room(polls: u64) -> Vec<Op> {
    vec![Op::CreateRoom(new(polls))]
}

fn a_crew(polls: u64) -> Vec<Op> {
    vec![Op::CreateRoom(new(polls)), Op::AddMember(id(polls), joins_at("bob", 1))]
}

fn room_views(polls: u64) -> Vec<Op> {
    views(&[id(polls)], &["ann", "bob", "cat"].map(endpoint), &[], 2)
}

fn user_views(polls: u64) -> Vec<Op> {
    views(&[], &[], &[user_number(polls), user_number(polls + 1_000_000)], 0)
}

pub(super) const CREATION: Script = Script {
    before: nothing,
    call: |n| Op::CreateRoom(new(n)),
    undo: |n| vec![Op::DeleteRoom(id(n))],
    views: room_views,
};
pub(super) const DELETION: Script =
    Script { before: a_crew, call: |n| Op::DeleteRoom(id(n)), undo: a_room, views: room_views };
pub(super) const ADDITION: Script = Script {
    before: a_room,
    call: |n| Op::AddMember(id(n), joins_at("bob", 1)),
    undo: |n| vec![Op::RemoveMember(id(n), endpoint("bob"))],
    views: room_views,
};
pub(super) const REMOVAL: Script = Script {
    before: a_crew,
    call: |n| Op::RemoveMember(id(n), endpoint("bob")),
    undo: |n| vec![Op::AddMember(id(n), joins_at("bob", 1))],
    views: room_views,
};
pub(super) const REKEY: Script = Script {
    before: a_crew,
    call: |n| Op::Rekey(id(n), rekey(1, ["bob"], ["ann"])),
    undo: |n| vec![Op::AddMember(id(n), joins_at("bob", 2))],
    views: room_views,
};
pub(super) const NEW_USER: Script = Script {
    before: nothing,
    call: |n| Op::AddUser(user(user_number(n))),
    undo: nothing,
    views: user_views,
};
pub(super) const REVOCATION: Script = Script {
    before: |n| vec![Op::AddUser(user(user_number(n)))],
    call: |n| Op::RevokeUser(user_number(n), at(7)),
    undo: nothing,
    views: user_views,
};

async fn a_dropped_room_creation_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &CREATION, None).await
}

async fn a_dropped_room_deletion_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &DELETION, None).await
}

async fn a_dropped_member_addition_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &ADDITION, None).await
}

async fn a_dropped_member_removal_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &REMOVAL, None).await
}

async fn a_dropped_rekey_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &REKEY, None).await
}

async fn a_dropped_user_addition_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &NEW_USER, None).await
}

async fn a_dropped_revocation_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &REVOCATION, None).await
}

async fn a_dropped_room_creation_and_a_concurrent_creation_are_linearizable(cx: Cx) -> Verdict {
    let beside = |n| Op::CreateRoom(encrypted(id(n).as_str(), "bob"));
    each(&cx, &CREATION, Some(beside)).await
}

async fn a_dropped_room_deletion_and_a_concurrent_rekey_are_linearizable(cx: Cx) -> Verdict {
    each(&cx, &DELETION, Some(|n| Op::Rekey(id(n), rekey(1, ["bob"], ["ann"])))).await
}

async fn a_dropped_member_addition_and_a_concurrent_rekey_are_linearizable(cx: Cx) -> Verdict {
    each(&cx, &ADDITION, Some(|n| Op::Rekey(id(n), rekey(1, [], ["ann"])))).await
}

async fn a_dropped_member_removal_and_a_concurrent_rekey_are_linearizable(cx: Cx) -> Verdict {
    each(&cx, &REMOVAL, Some(|n| Op::Rekey(id(n), rekey(1, [], ["ann", "bob"])))).await
}

async fn a_dropped_rekey_and_a_concurrent_member_addition_are_linearizable(cx: Cx) -> Verdict {
    each(&cx, &REKEY, Some(|n| Op::AddMember(id(n), joins_at("cat", 1)))).await
}

async fn a_dropped_rekey_and_a_concurrent_rekey_are_linearizable(cx: Cx) -> Verdict {
    each(&cx, &REKEY, Some(|n| Op::Rekey(id(n), rekey(1, [], ["ann", "bob"])))).await
}

async fn a_dropped_user_addition_and_a_concurrent_addition_are_linearizable(cx: Cx) -> Verdict {
    each(&cx, &NEW_USER, Some(|n| Op::AddUser(admin(user_number(n))))).await
}

/// The two users are the only admins, so at most one revocation succeeds.
async fn a_dropped_revocation_and_a_concurrent_revocation_are_linearizable(cx: Cx) -> Verdict {
    let beside = |n| Op::RevokeUser(user_number(n + 1_000_000), at(8));
    once(&cx, beside_revocations, |n| Op::RevokeUser(user_number(n), at(7)), Some(beside)).await
}

fn beside_revocations(polls: u64) -> Vec<Op> {
    [polls, polls + 1_000_000].map(|number| Op::AddUser(admin(user_number(number)))).to_vec()
}

async fn a_dropped_bootstrap_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    once(&cx, nothing, |n| Op::BootstrapAdmin(admin(user_number(n))), None).await
}

async fn a_dropped_bootstrap_and_a_concurrent_bootstrap_are_linearizable(cx: Cx) -> Verdict {
    let beside = |n| Op::BootstrapAdmin(admin(user_number(n + 1_000_000)));
    once(&cx, nothing, |n| Op::BootstrapAdmin(admin(user_number(n))), Some(beside)).await
}

/// As [`each`], on a new store for each try: for calls that work only once in a store's life.
async fn once(
    cx: &Cx,
    before: fn(u64) -> Vec<Op>,
    call: fn(u64) -> Op,
    beside: Option<fn(u64) -> Op>,
) -> Verdict {
    for polls in each_poll(cx) {
        let fresh = cx.another().await?;
        let clients = clients(&fresh, 2).await?;
        let [store, other] = clients.as_slice() else { return Ok(()) };
        let mut model = Model::new();
        for op in before(polls) {
            agree(store, &mut model, &op).await?;
        }
        let (op, views) = (call(polls), user_views(polls));
        let both = (&op, beside.map(|beside| beside(polls)));
        let (answer, may) = dropped(cx, [store, other], &model, both, polls).await?;
        cx.within_slow_bound(seen(other, may, &views)).await??;
        fresh.close_all().await;
        if answer.is_some() {
            return Ok(());
        }
    }
    Err(never_ends())
}
