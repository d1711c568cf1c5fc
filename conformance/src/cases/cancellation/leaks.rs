//! Leaks: dropped calls, closed clients and dropped clients leave no task, file or connection.
//!
//! Tasks are counted on a runtime that only the store under test uses. The target counts files and
//! connections, since it can tell which are the store's.

use std::time::{Duration, Instant};

use membership::Store;

use super::{cut_here, each_poll, never_ends};
use crate::case::declare;
use crate::context::Cx;
use crate::judge::views;
use crate::make::{admin, at, encrypted, endpoint, joins_at, rekey, room, user, user_number};
use crate::model::Op;
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict};

declare! { "cancellation";
    a_dropped_call_leaves_no_task_file_or_connection: "TIME-2";
    a_closed_client_leaves_no_task_file_or_connection: "CLOSE-1";
    a_dropped_client_leaves_no_task_file_or_connection: "CLOSE-3";
}

/// Runs `case` on a runtime of its own, so that every task on the runtime is the store's.
async fn apart<F>(cx: &Cx, case: impl FnOnce(Cx) -> F + Send + 'static) -> Verdict
where
    F: Future<Output = Verdict>,
{
    let cx = cx.clone();
    let alone = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new("a runtime", error.to_string()))?;
        let verdict = runtime.block_on(case(cx));
        // The shutdown does not wait for the store's tasks: a task that blocks its thread would
        // keep the case from ending.
        runtime.shutdown_background();
        verdict
    };
    match tokio::task::spawn_blocking(alone).await {
        Ok(verdict) => verdict,
        Err(error) => Err(Failure::new("no panic", error.to_string())),
    }
}

/// The resources that a store holds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Held {
    /// Tasks on this runtime.
    tasks: usize,
    /// Files or connections, as the target counts them; `None` if it cannot.
    outside: Option<usize>,
}

impl Show for Held {
    fn show(&self) -> String {
        let outside = self.outside.map(|held| format!(", {held} files or connections"));
        format!("{} tasks{}", self.tasks, outside.unwrap_or_default())
    }
}

async fn held(cx: &Cx) -> Verdict<Held> {
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    Ok(Held { tasks, outside: cx.instance().held().await? })
}

/// Waits until the store holds at most `most`. Fails after twice the bound of a call.
async fn settles_at(cx: &Cx, most: Held) -> Verdict {
    let until = Instant::now() + cx.bound() * 2;
    loop {
        let now = held(cx).await?;
        if now.tasks <= most.tasks && now.outside <= most.outside {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Failure::answer(format!("{} at most", most.show()), &now));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Calls of every kind but `close`, which are made in this order.
fn every_call(number: u64) -> Vec<Op> {
    let id = format!("r{number}");
    let (key, r) = (user_number(number), room(&id));
    let mut calls = vec![
        Op::AddUser(user(key)),
        Op::CreateRoom(encrypted(&id, "ann")),
        Op::AddMember(r.clone(), joins_at("bob", 1)),
        Op::AddMember(r.clone(), joins_at("cat", 1)),
        Op::RemoveMember(r.clone(), endpoint("cat")),
        Op::Rekey(r.clone(), rekey(1, ["bob"], ["ann"])),
        Op::BootstrapAdmin(admin(key)),
    ];
    calls.extend(views(std::slice::from_ref(&r), &[endpoint("ann")], &[key], 2));
    calls.extend([Op::RevokeUser(key, at(7)), Op::DeleteRoom(r)]);
    calls
}

async fn a_dropped_call_leaves_no_task_file_or_connection(cx: Cx) -> Verdict {
    apart(&cx, |cx| async move {
        let store = cx.open_unheld().await?.unrecorded();
        for call in every_call(1_000_000) {
            cx.within_slow_bound(call.apply(&*store)).await?;
        }
        // Tasks that the calls started in the background may still run, and must not be counted.
        let before = rest(&cx).await?;
        for polls in each_poll(&cx) {
            let mut ended = true;
            for call in every_call(polls) {
                if cut_here(call.apply(&*store), polls).await.is_none() {
                    ended = false;
                    // The next calls need what this call made.
                    cx.within_slow_bound(call.apply(&*store)).await?;
                }
            }
            if ended {
                return settles_at(&cx, before).await;
            }
        }
        Err(never_ends())
    })
    .await
}

/// Waits until the store's resources have not changed for 100 ms, and returns them.
async fn rest(cx: &Cx) -> Verdict<Held> {
    let until = Instant::now() + cx.bound();
    let (mut last, mut since) = (held(cx).await?, Instant::now());
    while since.elapsed() < Duration::from_millis(100) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = held(cx).await?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

/// The resources that a store without clients may hold: none. `outside` says whether the target can
/// count files and connections.
const fn none(outside: Option<usize>) -> Held {
    Held { tasks: 0, outside: if outside.is_some() { Some(0) } else { None } }
}

/// Opens a client that has made every call, and has dropped every call once.
async fn in_use(cx: &Cx) -> Verdict<Client> {
    let store = cx.open_unheld().await?;
    let raw = store.unrecorded();
    for call in every_call(1) {
        cx.within_slow_bound(call.apply(&*raw)).await?;
    }
    for call in every_call(2) {
        cut_here(call.apply(&*raw), 1).await;
    }
    Ok(store)
}

async fn a_closed_client_leaves_no_task_file_or_connection(cx: Cx) -> Verdict {
    apart(&cx, |cx| async move {
        let store = in_use(&cx).await?;
        cx.within_bound(store.close()).await??;
        settles_at(&cx, none(cx.instance().held().await?)).await?;
        drop(store);
        Ok(())
    })
    .await
}

async fn a_dropped_client_leaves_no_task_file_or_connection(cx: Cx) -> Verdict {
    apart(&cx, |cx| async move {
        drop(in_use(&cx).await?);
        settles_at(&cx, none(cx.instance().held().await?)).await
    })
    .await
}
