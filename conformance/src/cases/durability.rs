//! Data that must still be there when a store is opened again.

use membership::{Conflict, Decision, DenyReason, Error, Store};
use rand::RngExt;

use crate::case::declare;
use crate::child::script::Script;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, joins, joins_at, no_key, plain, rekey, room, user, user_exists,
    user_key,
};
use crate::observe::Scope;
use crate::target::Stored;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, fails, holds, same};

declare! { "durability";
    everything_is_there_after_close_and_reopening: "DUR-1", needs Reopen;
    everything_is_there_after_a_drop_without_close: "DUR-1" "CLOSE-3", needs Reopen;
    an_empty_store_reopens_empty: "DUR-1", needs Reopen;
    each_write_survives_a_drop_right_after_its_answer: "DUR-1", needs Reopen;
    a_store_reopened_many_times_keeps_everything: "DUR-1", needs Reopen;
    the_result_of_random_calls_survives_reopening: "DUR-1", needs Reopen;
    a_used_bootstrap_stays_a_conflict_after_reopening: "USER-1" "DUR-1", needs Reopen;
    a_revocation_stays_after_reopening: "AUTH-3" "USER-3" "DUR-1", needs Reopen;
    the_last_admin_cannot_be_revoked_after_reopening: "USER-4" "DUR-1", needs Reopen;
    a_room_made_again_shows_nothing_of_the_former_one_after_reopening:
        "ROOM-5" "DUR-1", needs Reopen;
    a_removed_member_stays_without_keys_after_reopening: "MEM-3" "MEM-5" "DUR-1", needs Reopen;
    a_refused_write_leaves_no_trace_after_reopening: "ERR-2" "DUR-1", needs Reopen;
    data_of_a_newer_version_are_refused: "DUR-3", needs Reopen Corruption;
    a_call_interrupted_by_a_drop_takes_effect_entirely_or_not_at_all:
        "DUR-2" "CLOSE-3", needs Reopen;
    opening_missing_data_that_must_exist_fails_and_makes_nothing: "DUR-4" "USER-1", needs Existing;
    opening_data_that_must_exist_finds_them: "DUR-4" "DUR-1", needs Existing Clients;
}

/// Makes records of every kind and state.
async fn set_up(store: &Client) -> Verdict {
    store.create_room(encrypted("e", "ann")).await?;
    store.add_member(&room("e"), joins_at("bob", 1)).await?;
    store.add_member(&room("e"), joins_at("cat", 1)).await?;
    store.rekey(&room("e"), rekey(1, ["bob"], ["ann", "cat"])).await?;
    store.add_member(&room("e"), joins_at("bob", 2)).await?;
    store.add_member(&room("e"), joins_at("eve", 2)).await?;
    store.remove_member(&room("e"), &endpoint("eve")).await?;
    store.create_room(plain("p \u{1f980} .*>", "bob")).await?;
    store.add_member(&room("p \u{1f980} .*>"), joins("ann")).await?;
    store.create_room(plain("gone", "ann")).await?;
    store.delete_room(&room("gone")).await?;
    store.bootstrap_admin(admin(user_key(1))).await?;
    store.add_user(admin(user_key(2))).await?;
    store.add_user(user(user_key(3))).await?;
    store.add_user(user(user_key(4))).await?;
    store.revoke_user(&user_key(2), at(-7)).await?;
    store.revoke_user(&user_key(4), at(i64::MAX)).await?;
    Ok(())
}

fn scope() -> Scope {
    let users: Vec<_> = (1..=5).map(user_key).collect();
    let rooms = ["e", "p \u{1f980} .*>", "gone", "new"];
    Scope::new(&rooms, &["ann", "bob", "cat", "eve"]).with_users(&users)
}

/// Closes the client, and opens another one on the same data.
async fn reopen(cx: &Cx, store: Client) -> Verdict<Client> {
    store.close().await?;
    drop(store);
    cx.open().await
}

async fn everything_is_there_after_close_and_reopening(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let before = scope().observe(&store).await?;
    let store = reopen(&cx, store).await?;
    scope().observe(&store).await?.unchanged_since(&before)?;
    let made = store.create_room(plain("new", "ann")).await?;
    same(store.room(&room("new")).await?, made)
}

async fn everything_is_there_after_a_drop_without_close(cx: Cx) -> Verdict {
    let store = cx.open_unheld().await?;
    set_up(&store).await?;
    let before = scope().observe(&store).await?;
    drop(store);
    let store = cx.open().await?;
    scope().observe(&store).await?.unchanged_since(&before)
}

async fn an_empty_store_reopens_empty(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let before = scope().observe(&store).await?;
    let store = reopen(&cx, store).await?;
    scope().observe(&store).await?.unchanged_since(&before)?;
    same(store.has_admin().await?, false)
}

async fn each_write_survives_a_drop_right_after_its_answer(cx: Cx) -> Verdict {
    let mut model = Script::beginning();
    let store = cx.open().await?;
    Script::first_call().apply(&store).await;
    store.close().await?;
    let script = Script::new(cx.seed(), 0, usize::try_from(cx.rounds(40).max(12)).unwrap_or(40));
    for (number, call) in (1..).zip(script.calls()) {
        // The client is dropped without close, right after the answer.
        let store = cx.open_unheld().await?;
        let (answer, right) = (call.apply(&store).await, model.apply(call));
        same(answer, right)?;
        drop(store);
        let store = cx.open_unheld().await?;
        same(script.verify(&*store.unrecorded(), number).await?, number)?;
        store.close().await?;
    }
    Ok(())
}

async fn a_store_reopened_many_times_keeps_everything(cx: Cx) -> Verdict {
    let mut store = cx.open().await?;
    set_up(&store).await?;
    let before = scope().observe(&store).await?;
    for number in 0..usize::try_from(cx.rounds(30).max(10)).unwrap_or(30) {
        store.create_room(plain(&format!("round {number}"), "zoe")).await?;
        store = reopen(&cx, store).await?;
        let rooms = store.rooms_of(&endpoint("zoe"), membership::Page::first()).await?;
        same(rooms.len(), number + 1)?;
    }
    scope().observe(&store).await?.unchanged_since(&before)
}

async fn the_result_of_random_calls_survives_reopening(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    Script::first_call().apply(&store).await;
    let scripts: Vec<_> =
        (0..Script::TASKS).map(|task| Script::new(cx.seed(), task, 200)).collect();
    for script in &scripts {
        let mut model = Script::beginning();
        for call in script.calls() {
            same(call.apply(&*store.unrecorded()).await, model.apply(call))?;
        }
    }
    let store = reopen(&cx, store).await?;
    for script in &scripts {
        same(script.verify(&*store.unrecorded(), 200).await?, 200)?;
    }
    Ok(())
}

async fn a_used_bootstrap_stays_a_conflict_after_reopening(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(user_key(1))).await?;
    store.add_user(admin(user_key(2))).await?;
    store.revoke_user(&user_key(1), at(3)).await?;
    let store = reopen(&cx, store).await?;
    let over = Conflict::AdminExists.into();
    scope().refuses(&store, store.bootstrap_admin(admin(user_key(3))), &over).await?;
    same(store.has_admin().await?, true)
}

async fn a_revocation_stays_after_reopening(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(user(user_key(3))).await?;
    store.revoke_user(&user_key(3), at(3)).await?;
    let store = reopen(&cx, store).await?;
    let denied = Decision::Deny(DenyReason::Revoked);
    same(store.is_authorized(&user_key(3)).await, denied.clone())?;
    fails(store.add_user(user(user_key(3))).await, &user_exists(user_key(3)))?;
    same(store.is_authorized(&user_key(3)).await, denied)
}

async fn the_last_admin_cannot_be_revoked_after_reopening(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(user_key(1))).await?;
    store.add_user(admin(user_key(2))).await?;
    store.revoke_user(&user_key(1), at(3)).await?;
    let store = reopen(&cx, store).await?;
    let last = Conflict::LastAdmin.into();
    scope().refuses(&store, store.revoke_user(&user_key(2), at(4)), &last).await
}

async fn a_room_made_again_shows_nothing_of_the_former_one_after_reopening(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(encrypted("e", "ann")).await?;
    store.add_member(&room("e"), joins_at("bob", 1)).await?;
    store.rekey(&room("e"), rekey(1, [], ["ann", "bob"])).await?;
    store.delete_room(&room("e")).await?;
    let store = reopen(&cx, store).await?;
    let made = store.create_room(encrypted("e", "cat")).await?;
    let store = reopen(&cx, store).await?;
    same(store.room(&room("e")).await?, made)?;
    for who in ["ann", "bob"] {
        fails(store.latest_key(&room("e"), &endpoint(who)).await, &no_key("e", who, None))?;
        same(store.rooms_of(&endpoint(who), membership::Page::first()).await?, vec![])?;
    }
    Ok(())
}

async fn a_removed_member_stays_without_keys_after_reopening(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(encrypted("e", "ann")).await?;
    store.add_member(&room("e"), joins_at("bob", 1)).await?;
    store.remove_member(&room("e"), &endpoint("bob")).await?;
    let store = reopen(&cx, store).await?;
    same(store.room(&room("e")).await?.rekey_due, true)?;
    let bob = endpoint("bob");
    fails(store.latest_key(&room("e"), &bob).await, &no_key("e", "bob", None))?;
    store.rekey(&room("e"), rekey(1, [], ["ann"])).await?;
    store.add_member(&room("e"), joins_at("bob", 2)).await?;
    let store = reopen(&cx, store).await?;
    let first = store.key(&room("e"), &bob, membership::Epoch::FIRST).await;
    fails(first, &no_key("e", "bob", 1))
}

async fn a_refused_write_leaves_no_trace_after_reopening(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let before = scope().observe(&store).await?;
    let refusals: [Result<(), Error>; 5] = [
        store.create_room(encrypted("e", "zoe")).await.map(|_| ()),
        store.add_member(&room("e"), joins_at("eve", 1)).await.map(|_| ()),
        store.rekey(&room("e"), rekey(2, ["bob"], ["ann"])).await.map(|_| ()),
        store.remove_member(&room("e"), &endpoint("ann")).await,
        store.revoke_user(&user_key(1), at(5)).await,
    ];
    same(refusals.iter().filter(|refusal| refusal.is_err()).count(), refusals.len())?;
    let store = reopen(&cx, store).await?;
    scope().observe(&store).await?.unchanged_since(&before)
}

async fn data_of_a_newer_version_are_refused(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    store.close().await?;
    drop(store);
    cx.instance().corrupt(&Stored::Version).await?;
    // Opening is tried twice: the first refusal must not change the version to one that the store
    // accepts.
    for _ in 0..2 {
        let opened = cx.instance().open().await.map(|_| ());
        let refused = matches!(&opened, Err(Error::Corrupt(_) | Error::Invalid(_)));
        holds(refused, "Corrupt or Invalid", &opened)?;
    }
    Ok(())
}

async fn a_call_interrupted_by_a_drop_takes_effect_entirely_or_not_at_all(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    Script::first_call().apply(&store).await;
    store.close().await?;
    for round in 0..cx.rounds(10) {
        let seed = cx.seed() ^ (round << 32);
        let store = cx.open_unheld().await?.unrecorded();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let tasks: Vec<_> = (0..Script::TASKS)
            .map(|task| {
                let (store, told) = (store.clone(), told.clone());
                tokio::spawn(async move {
                    for call in Script::new(seed, task, 100).calls() {
                        call.apply(&*store).await;
                        let _ = told.send(task);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        drop((store, told));
        let mut acknowledged = [0; 4];
        let mut wait_for = cx.rng(round).random_range(1..150);
        while let Some(task) = heard.recv().await {
            if let Some(count) = usize::try_from(task).ok().and_then(|t| acknowledged.get_mut(t)) {
                *count += 1;
            }
            wait_for -= 1;
            if wait_for == 0 {
                // Ends all tasks at once. The last one drops the client.
                tasks.iter().for_each(tokio::task::JoinHandle::abort);
            }
        }
        for task in tasks {
            let _ended = task.await;
        }
        let store = cx.open().await?;
        for (task, count) in (0..).zip(acknowledged) {
            Script::new(seed, task, 100).verify(&*store.unrecorded(), count).await?;
        }
        store.close().await?;
    }
    Ok(())
}

async fn opening_missing_data_that_must_exist_fails_and_makes_nothing(cx: Cx) -> Verdict {
    // Opening is tried more than once: a failed attempt must not make data that the next one finds.
    for _ in 0..3 {
        match cx.instance().open_existing().await {
            Err(Error::Invalid(_)) => {}
            Err(other) => return Err(Failure::answer("Invalid", &other)),
            Ok(store) => {
                store.close().await?;
                return Err(Failure::new("Invalid: there are no data", "a client"));
            }
        }
    }
    let store = cx.open().await?;
    same(store.has_admin().await, Ok(false))?;
    store.bootstrap_admin(admin(user_key(1))).await?;
    Ok(())
}

async fn opening_data_that_must_exist_finds_them(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let before = scope().observe(&store).await?;
    let other = cx.open_existing().await?;
    scope().observe(&other).await?.unchanged_since(&before)?;
    store.close().await?;
    other.add_user(user(user_key(5))).await?;
    other.close().await?;
    let last = cx.open_existing().await?;
    same(last.is_authorized(&user_key(5)).await, Decision::Allow)
}
