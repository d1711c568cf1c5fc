//! What happens after a while in which nothing did.

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
    the_first_call_after_a_rest_sees_what_was_written_meanwhile:
        "LIN-1" "AUTH-3" "AUTH-5", needs Clients;
    a_dropped_write_that_was_undone_does_not_come_back: "ERR-2" "TIME-2" "LIN-1";
    a_failed_write_that_was_undone_does_not_come_back: "ERR-2" "LIN-1", needs Faults;
}

/// Longer than what is kept "for a second or two" is kept.
const REST: Duration = Duration::from_secs(4);

/// What there is before, and what is done while nobody asks.
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

/// Each of them is the first call of a client of its own.
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

async fn the_first_call_after_a_rest_sees_what_was_written_meanwhile(cx: Cx) -> Verdict {
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
    // And where the write is what is long ago.
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

/// A write, how to see that it took effect, and how to undo it.
struct Undone {
    write: Op,
    undo: Op,
    /// What is answered of it once it is undone.
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

/// Undoes what took effect of these, and waits: what was undone was done once, and is not done again.
async fn stay_undone(cx: &Cx, store: &Client, cut_off: Vec<Undone>) -> Verdict {
    // One may be on its way, and take effect at any moment; until it has, there is nothing to undo.
    let deadline = tokio::time::Instant::now() + cx.bound();
    let store = store.unrecorded();
    let (mut waiting, mut done) = (cut_off, Vec::new());
    while !waiting.is_empty() && tokio::time::Instant::now() < deadline {
        let mut left = Vec::new();
        for write in waiting {
            let seen = write.gone.0.apply(&*store).await;
            // A store that failed a moment ago may fail once more.
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
                format!("{:?} to take effect once, and not after its undoing", write.write);
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
            // A store may need a moment until it is whole again.
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
