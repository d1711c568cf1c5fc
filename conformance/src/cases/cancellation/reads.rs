//! Dropped reads and closes, which must not affect other calls.

use futures::future::join_all;
use membership::{Decision, DenyReason, Error, Page, Store};

use super::{cut, each_poll, never_ends};
use crate::case::declare;
use crate::context::Cx;
use crate::judge::{agree, looks_like, views};
use crate::make::{admin, encrypted, endpoint, joins_at, rekey, room, user_number};
use crate::model::{Model, Op};
use crate::race::clients;
use crate::verdict::{Verdict, fails, same};

declare! { "cancellation";
    a_client_keeps_working_after_a_dropped_read: "TIME-2";
    a_dropped_read_does_not_disturb_a_concurrent_write: "TIME-2" "LIN-1";
    a_dropped_close_can_be_repeated: "TIME-2" "CLOSE-1", needs Clients;
}

/// Every read of what [`set_up`] made.
fn all_reads() -> Vec<Op> {
    let mut all = views(&[room("r")], &["ann", "bob"].map(endpoint), &[user_number(1)], 3);
    all.push(Op::Members(room("r"), Page::first()));
    all
}

fn set_up() -> [Op; 3] {
    [
        Op::AddUser(admin(user_number(1))),
        Op::CreateRoom(encrypted("r", "ann")),
        Op::AddMember(room("r"), joins_at("bob", 1)),
    ]
}

async fn a_client_keeps_working_after_a_dropped_read(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut model = Model::new();
    for op in set_up() {
        agree(&store, &mut model, &op).await?;
    }
    let raw = store.unrecorded();
    for polls in each_poll(&cx) {
        let mut ended = true;
        for read in all_reads() {
            let store = store.unrecorded();
            ended &= cut(async move { read.apply(&*store).await }, polls).await.is_some();
        }
        cx.within_slow_bound(looks_like(&*raw, &model, &all_reads())).await??;
        if ended {
            return Ok(());
        }
    }
    Err(never_ends())
}

/// Drops reads of every kind during a rekey, which must take effect once.
async fn a_dropped_read_does_not_disturb_a_concurrent_write(cx: Cx) -> Verdict {
    let clients = clients(&cx, 2).await?;
    let [store, other] = clients.as_slice() else { return Ok(()) };
    let mut model = Model::new();
    for op in set_up() {
        agree(store, &mut model, &op).await?;
    }
    let mut from = 0;
    for polls in each_poll(&cx) {
        from += 1;
        let write = Op::Rekey(room("r"), rekey(from, [], ["ann", "bob"]));
        let reads = all_reads().into_iter().map(|read| {
            let store = store.unrecorded();
            cut(async move { read.apply(&*store).await }, polls)
        });
        let written = cx.within_slow_bound(agree(other, &mut model, &write));
        let (ended, written) = futures::join!(join_all(reads), written);
        written??;
        cx.within_slow_bound(looks_like(&*store.unrecorded(), &model, &all_reads())).await??;
        if ended.iter().all(Option::is_some) {
            return Ok(());
        }
    }
    Err(never_ends())
}

/// A dropped close may have closed the client or not. A second close succeeds either way.
async fn a_dropped_close_can_be_repeated(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut model = Model::new();
    for op in set_up() {
        agree(&store, &mut model, &op).await?;
    }
    for polls in each_poll(&cx) {
        let client = cx.open().await?;
        let (closing, busy) = (client.clone(), client.unrecorded());
        let (closed, _) = futures::join!(
            cut(async move { closing.close().await }, polls),
            cut(async move { busy.room(&room("r")).await }, polls)
        );
        same(cx.within_bound(client.close()).await?, Ok(()))?;
        fails(cx.within_bound(client.room(&room("r"))).await?, &Error::Closed)?;
        let decision = cx.within_bound(client.is_authorized(&user_number(1))).await?;
        same(decision, Decision::Deny(DenyReason::Failed(Error::Closed)))?;
        cx.within_slow_bound(looks_like(&*store.unrecorded(), &model, &all_reads())).await??;
        if closed.is_some() {
            return Ok(());
        }
    }
    Err(never_ends())
}
