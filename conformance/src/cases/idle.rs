//! Rests of some seconds: the first call afterwards is right, and undone writes do not come back.

use std::time::Duration;

use futures::future::BoxFuture;
use membership::{Decision, DenyReason, Error, Page, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, joins, joins_at, no_member, no_room, plain, rekey, room, user,
    user_key, user_number,
};
use crate::model::{Model, Op};
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, holds, same};

declare! { "idle";
    the_first_call_after_an_idle_time_sees_all_earlier_writes:
        "LIN-1" "AUTH-3" "AUTH-5", needs Clients;
    a_dropped_write_that_was_undone_does_not_come_back: "ERR-2" "TIME-2" "LIN-1";
    a_failed_write_that_was_undone_does_not_come_back: "ERR-2" "LIN-1", needs Faults;
}

/// The length of a rest: longer than a store may cache something "for a second or two".
const REST: Duration = Duration::from_secs(4);

/// The calls before the clients rest, and the writes that their first calls afterwards must see.
fn story() -> (Vec<Op>, Vec<Op>) {
    let (ops, ann) = (room("ops"), endpoint("ann"));
    let before = vec![
        Op::BootstrapAdmin(admin(user_key(1))),
        Op::AddUser(user(user_key(2))),
        Op::AddUser(admin(user_key(3))),
        Op::CreateRoom(encrypted("ops", "ann")),
        Op::AddMember(ops.clone(), joins_at("bob", 1)),
        Op::CreateRoom(plain("old", "ann")),
    ];
    let meanwhile = vec![
        Op::RevokeUser(user_key(2), at(3)),
        Op::RevokeUser(user_key(3), at(3)),
        Op::AddUser(user(user_key(4))),
        Op::Rekey(ops.clone(), rekey(1, ["bob"], ["ann"])),
        Op::AddMember(ops, joins_at("cat", 2)),
        Op::DeleteRoom(room("old")),
        Op::CreateRoom(plain("new", ann.as_str())),
    ];
    (before, meanwhile)
}

/// Reads, each of which is the first call of its own client after the rest.
fn questions() -> Vec<Op> {
    let (ops, bob) = (room("ops"), endpoint("bob"));
    vec![
        Op::IsAuthorized(user_key(2)),
        Op::IsAuthorized(user_key(4)),
        Op::IsAdmin(user_key(3)),
        Op::User(user_key(2)),
        Op::Users(Page::first()),
        Op::Room(ops.clone()),
        Op::Room(room("old")),
        Op::Member(ops.clone(), bob.clone()),
        Op::Members(ops.clone(), Page::first()),
        Op::LatestKey(ops.clone(), bob.clone()),
        Op::LatestKey(ops, endpoint("cat")),
        Op::RoomsOf(endpoint("ann"), Page::first()),
        Op::RoomsOf(bob, Page::first()),
    ]
}

async fn the_first_call_after_an_idle_time_sees_all_earlier_writes(cx: Cx) -> Verdict {
    let writer = cx.open().await?;
    let (mut model, (before, meanwhile)) = (Model::new(), story());
    for call in before {
        same(call.apply(&writer).await, model.apply(&call))?;
    }
    let mut clients = Vec::new();
    for question in questions() {
        let client = cx.open().await?;
        for known in questions() {
            same(known.apply(&*client.unrecorded()).await, model.apply(&known))?;
        }
        clients.push((client, question));
    }
    tokio::time::sleep(REST).await;
    for call in meanwhile {
        same(call.apply(&writer).await, model.apply(&call))?;
    }
    for (client, question) in &clients {
        same(question.apply(client).await, model.apply(question))?;
    }
    // Now the clients rest after the write, so that the write is long ago when they ask.
    for (user, (client, _)) in (100..).map(user_number).zip(&clients) {
        writer.unrecorded().add_user(crate::make::user(user)).await?;
        same(client.unrecorded().is_authorized(&user).await, Decision::Allow)?;
        writer.unrecorded().revoke_user(&user, at(3)).await?;
    }
    tokio::time::sleep(REST).await;
    for (user, (client, _)) in (100..).map(user_number).zip(&clients) {
        same(client.is_authorized(&user).await, Decision::Deny(DenyReason::Revoked))?;
    }
    Ok(())
}

/// A write, and the call that undoes it.
struct Undone {
    write: Op,
    undo: Op,
    /// A read, and its error while the write has not taken effect or is undone.
    gone: (Op, Error),
}

fn undone(number: u64) -> [Undone; 2] {
    let (id, who) = (format!("r{number}"), format!("m{number}"));
    [
        Undone {
            write: Op::CreateRoom(plain(&id, "eve")),
            undo: Op::DeleteRoom(room(&id)),
            gone: (Op::Room(room(&id)), no_room(&id)),
        },
        Undone {
            write: Op::AddMember(room("p"), joins(&who)),
            undo: Op::RemoveMember(room("p"), endpoint(&who)),
            gone: (Op::Member(room("p"), endpoint(&who)), no_member("p", &who)),
        },
    ]
}

/// Undoes the writes that took effect, and waits. No undone write may take effect again.
async fn stay_undone(cx: &Cx, store: &Client, cut_off: Vec<Undone>) -> Verdict {
    // A write in flight may take effect at any moment, and can be undone only then.
    let deadline = tokio::time::Instant::now() + cx.bound();
    let store = store.unrecorded();
    let (mut waiting, mut done) = (cut_off, Vec::new());
    while !waiting.is_empty() && tokio::time::Instant::now() < deadline {
        let mut left = Vec::new();
        for write in waiting {
            let seen = write.gone.0.apply(&*store).await;
            // After a fault the store may fail once more.
            let unknown = seen.error().is_some_and(Error::outcome_unknown);
            if unknown || seen.error() == Some(&write.gone.1) {
                left.push(write);
                continue;
            }
            holds(seen.error().is_none(), &format!("{:?} to be answered", write.gone.0), &seen)?;
            let undo = write.undo.apply(&*store).await;
            if undo.error().is_none() {
                done.push(write);
            } else if undo.error().is_some_and(Error::outcome_unknown) {
                left.push(write);
            } else {
                return Err(Failure::answer(format!("{:?} to succeed", write.undo), &undo));
            }
        }
        waiting = left;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let until = tokio::time::Instant::now() + REST;
    while tokio::time::Instant::now() < until {
        for write in &done {
            let answer = write.gone.0.apply(&*store).await;
            let expected =
                format!("{:?} not to take effect again after it was undone", write.write);
            let unknown = answer.error().is_some_and(Error::outcome_unknown);
            holds(unknown || answer.error() == Some(&write.gone.1), &expected, &answer)?;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn a_dropped_write_that_was_undone_does_not_come_back(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(plain("p", "ann")).await?;
    let mut cut_off = Vec::new();
    for polls in 1..=cx.rounds(24) {
        for write in undone(polls) {
            let (call, client) = (write.write.clone(), store.unrecorded());
            let answer = super::cancellation::cut(async move { call.apply(&*client).await }, polls);
            if let Some(answer) = answer.await {
                holds(answer.error().is_none(), &format!("{:?} to succeed", write.write), &answer)?;
            }
            cut_off.push(write);
        }
    }
    stay_undone(&cx, &store, cut_off).await
}

async fn a_failed_write_that_was_undone_does_not_come_back(cx: Cx) -> Verdict {
    let target = cx.target().clone();
    let each = target.faults().iter().map(|fault| {
        let cx = cx.clone();
        let tried: BoxFuture<'_, Verdict> = Box::pin(async move {
            let cx = cx.another().await?;
            let store = cx.open().await?;
            store.create_room(plain("p", "ann")).await?;
            cx.instance().inject(fault).await?;
            let writes: Vec<_> = (0..8).flat_map(undone).collect();
            let answers = writes.iter().map(|write| write.write.apply(&store));
            futures::future::join_all(answers).await;
            cx.instance().heal().await?;
            // The store may need a moment to recover.
            let asked = store.unrecorded();
            cx.until("a read once the store is healed", || async {
                asked.room(&room("p")).await.is_ok()
            })
            .await?;
            let verdict = stay_undone(&cx, &store, writes).await;
            cx.close_all().await;
            verdict.map_err(|failure| {
                let expected = format!("{} (fault: {})", failure.expected, fault.name);
                Failure { expected, ..failure }
            })
        });
        tried
    });
    futures::future::join_all(each).await.into_iter().collect()
}
