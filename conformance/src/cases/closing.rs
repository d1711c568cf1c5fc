//! Closing or dropping a client, and the calls during and after that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use membership::{Decision, Epoch, Error, Page, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, joins, joins_at, page, plain, rekey, room, user, user_key,
};
use crate::model::Op;
use crate::observe::Scope;
use crate::race::{clients, joined, together};
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, fails, holds, same};

declare! { "closing";
    close_is_idempotent: "CLOSE-1";
    concurrent_closes_all_return: "CLOSE-1";
    close_ends_every_call_in_flight: "CLOSE-1";
    a_call_refused_as_closed_changes_nothing: "CLOSE-1" "ERR-2", needs Clients;
    close_loses_no_acknowledged_write: "CLOSE-1" "LIN-1", needs Clients;
    no_call_succeeds_once_close_has_returned: "CLOSE-2";
    every_method_of_a_closed_client_fails_as_closed: "CLOSE-2";
    a_closed_client_denies_everybody: "CLOSE-2" "AUTH-2";
    has_admin_on_a_closed_client_is_an_error: "CLOSE-2" "AUTH-5";
    closed_comes_before_every_other_error: "ERR-4" "CLOSE-2";
    other_clients_go_on_after_one_is_closed: "CLOSE-2", needs Clients;
    a_client_can_be_opened_after_another_was_closed: "CLOSE-2", needs Clients;
    a_dropped_client_loses_no_acknowledged_write: "CLOSE-3", needs Clients;
    dropping_a_client_with_calls_in_flight_leaves_other_clients_working: "CLOSE-3", needs Clients;
    many_clients_can_be_dropped_without_close: "CLOSE-3", needs Clients;
    every_acknowledged_write_has_taken_effect_when_close_returns: "CLOSE-1", needs Clients;
    a_close_ends_no_call_of_another_client: "CLOSE-2", needs Clients;
    a_client_opened_after_a_close_sees_later_writes: "CLOSE-2" "LIN-1" "AUTH-3", needs Clients;
}

/// Makes an encrypted and an unencrypted room, an admin and a user.
async fn set_up(store: &Client) -> Verdict {
    store.create_room(encrypted("e", "ann")).await?;
    store.add_member(&room("e"), joins_at("bob", 1)).await?;
    store.create_room(plain("p", "ann")).await?;
    store.bootstrap_admin(admin(user_key(1))).await?;
    store.add_user(user(user_key(2))).await?;
    Ok(())
}

fn scope() -> Scope {
    let users = [1, 2, 3].map(user_key);
    Scope::new(&["e", "p", "new"], &["ann", "bob", "eve"]).with_users(&users)
}

/// Every method but `close`. After [`set_up`] each call but the bootstrap would succeed by itself.
pub(super) fn calls_that_work() -> Vec<Op> {
    let (e, p, ann, bob) = (room("e"), room("p"), endpoint("ann"), endpoint("bob"));
    vec![
        Op::CreateRoom(plain("new", "eve")),
        Op::Room(e.clone()),
        Op::RoomsOf(ann.clone(), Page::first()),
        Op::DeleteRoom(p.clone()),
        Op::AddMember(p, joins("eve")),
        Op::Member(e.clone(), ann.clone()),
        Op::Members(e.clone(), Page::first()),
        Op::RemoveMember(e.clone(), bob.clone()),
        Op::Rekey(e.clone(), rekey(1, [], ["ann", "bob"])),
        Op::Key(e.clone(), ann, Epoch::FIRST),
        Op::LatestKey(e, bob),
        Op::BootstrapAdmin(admin(user_key(3))),
        Op::AddUser(user(user_key(3))),
        Op::User(user_key(1)),
        Op::Users(Page::first()),
        Op::RevokeUser(user_key(2), at(9)),
        Op::IsAuthorized(user_key(2)),
        Op::IsAdmin(user_key(1)),
        Op::HasAdmin,
    ]
}

/// Calls for which an open client returns an error or a denial after [`set_up`].
fn calls_that_fail() -> Vec<Op> {
    let (e, p, none, eve) = (room("e"), room("p"), room("none"), endpoint("eve"));
    vec![
        Op::CreateRoom(plain("e", "eve")),
        Op::Room(none.clone()),
        Op::DeleteRoom(none.clone()),
        Op::AddMember(none.clone(), joins("eve")),
        Op::AddMember(e.clone(), joins("eve")),
        Op::AddMember(e.clone(), joins_at("bob", 1)),
        Op::AddMember(e.clone(), joins_at("eve", 7)),
        Op::Member(e.clone(), eve.clone()),
        Op::Members(none.clone(), page(None, 1)),
        Op::RemoveMember(e.clone(), eve.clone()),
        Op::RemoveMember(e.clone(), endpoint("ann")),
        Op::Rekey(none, rekey(1, [], ["ann"])),
        Op::Rekey(p.clone(), rekey(1, [], ["ann"])),
        Op::Rekey(e.clone(), rekey(7, [], ["ann"])),
        Op::Rekey(e.clone(), rekey(1, [], ["ann"])),
        Op::Key(p, endpoint("ann"), Epoch::FIRST),
        Op::LatestKey(e, eve),
        Op::BootstrapAdmin(admin(user_key(1))),
        Op::AddUser(user(user_key(1))),
        Op::User(user_key(7)),
        Op::RevokeUser(user_key(7), at(9)),
        Op::RevokeUser(user_key(1), at(9)),
        Op::IsAuthorized(user_key(7)),
        Op::IsAdmin(user_key(2)),
    ]
}

/// The longest time that counts as at once; long enough for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// The call must be answered at once with `Closed`, or with the denial of a failure by `Closed`.
async fn is_closed(store: &Client, call: &Op) -> Verdict {
    let began = Instant::now();
    let answer = call.apply(store).await;
    let took = began.elapsed();
    holds(took < AT_ONCE, "an answer at once", &format!("{call:?} took {took:?}"))?;
    let expected = call.fails_with(Error::Closed);
    holds(Some(&answer) == expected.as_ref(), &expected.show(), &answer)
}

async fn close_is_idempotent(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    for _ in 0..3 {
        store.close().await?;
        fails(store.room(&room("e")).await, &Error::Closed)?;
    }
    Ok(())
}

async fn concurrent_closes_all_return(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let racers = vec![store.clone(); 16];
    let racers = racers.into_iter().map(|store| async move {
        store.close().await?;
        // The client must be closed, whichever of the calls closed it.
        Ok::<_, Error>(store.room(&room("e")).await)
    });
    for after in together(racers).await {
        fails(after?, &Error::Closed)?;
    }
    Ok(())
}

/// The rooms that one caller asked for, by number.
struct Work {
    /// The rooms whose creation was acknowledged.
    acknowledged: Vec<u64>,
    /// The room whose creation failed with `Closed`.
    refused: u64,
}

/// Makes rooms until the client is closed.
async fn works(store: Client, caller: u64) -> Verdict<Work> {
    let store = store.unrecorded();
    let mut acknowledged = Vec::new();
    for number in 0.. {
        match store.create_room(plain(&format!("{caller}-{number}"), "ann")).await {
            Ok(_) => acknowledged.push(number),
            Err(Error::Closed) => return Ok(Work { acknowledged, refused: number }),
            // `close` ended the call at its deadline (CLOSE-1): the outcome is unknown.
            Err(error) if error.outcome_unknown() => {}
            Err(other) => return Err(Failure::answer("success, or Closed", &other)),
        }
        // Otherwise a store whose calls never wait would keep the other tasks from running.
        tokio::task::yield_now().await;
    }
    Ok(Work { acknowledged, refused: u64::MAX })
}

/// Closes a client while 64 callers use it. Every caller must end.
async fn closed_at_work(cx: &Cx, store: &Client) -> Verdict<Vec<Work>> {
    let load: Vec<_> = (0..64).map(|number| tokio::spawn(works(store.clone(), number))).collect();
    // Closes once the last caller has made its first room, so that every caller is at work.
    let (asked, last) = (store.unrecorded(), room("63-0"));
    cx.until("the last caller's first room", || async { asked.room(&last).await.is_ok() }).await?;
    store.close().await?;
    let mut done = Vec::new();
    for task in load {
        done.push(joined(task).await?);
    }
    Ok(done)
}

async fn close_ends_every_call_in_flight(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let done = closed_at_work(&cx, &store).await?;
    same(done.len(), 64)
}

async fn a_call_refused_as_closed_changes_nothing(cx: Cx) -> Verdict {
    let (store, other) = (cx.open().await?, cx.open().await?);
    for (caller, work) in closed_at_work(&cx, &store).await?.iter().enumerate() {
        let id = room(&format!("{caller}-{}", work.refused));
        let found = other.unrecorded().room(&id).await;
        holds(found.is_err(), "no room from a call that failed with Closed", &found)?;
    }
    Ok(())
}

async fn close_loses_no_acknowledged_write(cx: Cx) -> Verdict {
    let (store, other) = (cx.open().await?, cx.open().await?);
    for (caller, work) in closed_at_work(&cx, &store).await?.iter().enumerate() {
        for number in &work.acknowledged {
            let new = plain(&format!("{caller}-{number}"), "ann");
            same(other.unrecorded().room(&new.id).await?, new.room())?;
        }
    }
    Ok(())
}

async fn no_call_succeeds_once_close_has_returned(cx: Cx) -> Verdict {
    for round in (0..10).take(usize::try_from(cx.rounds(10)).unwrap_or(usize::MAX)) {
        let cx = cx.another().await?;
        let store = cx.open().await?;
        set_up(&store).await?;
        let racers = (0..16).map(|number| {
            let store = store.clone();
            async move {
                match number % 4 {
                    0 => store.close().await,
                    _ => store.room(&room("e")).await.map(|_| ()),
                }
            }
        });
        for (number, result) in together(racers).await.into_iter().enumerate() {
            match result {
                Err(Error::Closed) if number % 4 != 0 => {}
                other => same(other, Ok(()))?,
            }
        }
        for call in calls_that_work().iter().skip(round) {
            is_closed(&store, call).await?;
        }
        cx.close_all().await;
    }
    Ok(())
}

async fn every_method_of_a_closed_client_fails_as_closed(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    store.close().await?;
    for call in calls_that_work() {
        is_closed(&store, &call).await?;
    }
    Ok(())
}

async fn a_closed_client_denies_everybody(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    same(store.is_authorized(&user_key(2)).await, Decision::Allow)?;
    same(store.is_admin(&user_key(1)).await, Decision::Allow)?;
    store.close().await?;
    let denied = Decision::from(Error::Closed);
    for key in [1, 2, 7].map(user_key) {
        same(store.is_authorized(&key).await, denied.clone())?;
        same(store.is_admin(&key).await, denied.clone())?;
    }
    Ok(())
}

async fn has_admin_on_a_closed_client_is_an_error(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    // There is no admin, but a closed client cannot know that.
    store.close().await?;
    fails(store.has_admin().await, &Error::Closed)
}

async fn closed_comes_before_every_other_error(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    for call in calls_that_fail() {
        let answer = call.apply(&store).await;
        let denied = matches!(answer, crate::model::Answer::Decision(Decision::Deny(_)));
        holds(denied || answer.error().is_some(), "an error while the client is open", &answer)?;
    }
    store.close().await?;
    for call in calls_that_fail() {
        is_closed(&store, &call).await?;
    }
    Ok(())
}

async fn other_clients_go_on_after_one_is_closed(cx: Cx) -> Verdict {
    let clients = clients(&cx, 3).await?;
    let [one, two, three] = clients.as_slice() else { return Ok(()) };
    set_up(one).await?;
    let before = scope().observe(two).await?;
    one.close().await?;
    scope().observe(two).await?.unchanged_since(&before)?;
    // The other clients read and write, and see each other's writes.
    let made = two.create_room(encrypted("new", "eve")).await?;
    same(three.room(&room("new")).await?, made)?;
    three.revoke_user(&user_key(2), at(9)).await?;
    same(two.is_authorized(&user_key(2)).await.is_allowed(), false)?;
    same(two.is_authorized(&user_key(1)).await, Decision::Allow)?;
    is_closed(one, &Op::Room(room("e"))).await
}

async fn a_client_can_be_opened_after_another_was_closed(cx: Cx) -> Verdict {
    let (one, two) = (cx.open().await?, cx.open().await?);
    set_up(&one).await?;
    let before = scope().observe(&one).await?;
    one.close().await?;
    let three = cx.open().await?;
    scope().observe(&three).await?.unchanged_since(&before)?;
    let made = three.create_room(plain("new", "eve")).await?;
    same(two.room(&room("new")).await?, made)
}

async fn a_dropped_client_loses_no_acknowledged_write(cx: Cx) -> Verdict {
    let other = cx.open().await?;
    let dropped = cx.open_unheld().await?;
    set_up(&dropped).await?;
    let before = scope().observe(&dropped).await?;
    drop(dropped);
    scope().observe(&other).await?.unchanged_since(&before)?;
    let made = other.create_room(plain("new", "eve")).await?;
    same(other.room(&room("new")).await?, made)
}

async fn dropping_a_client_with_calls_in_flight_leaves_other_clients_working(cx: Cx) -> Verdict {
    let other = cx.open().await?;
    for round in 0..5 {
        let dropped = cx.open_unheld().await?;
        let id = format!("round {round}");
        dropped.create_room(plain(&id, "ann")).await?;
        let load: Vec<_> =
            (0..16).map(|n| tokio::spawn(works(dropped.clone(), round * 100 + n))).collect();
        drop(dropped);
        for task in &load {
            task.abort();
        }
        // The client is dropped, unclosed, with the last of these tasks.
        for task in load {
            let _ended = task.await;
        }
        same(other.room(&room(&id)).await?, plain(&id, "ann").room())?;
        let next = plain(&format!("after {round}"), "ann");
        same(other.create_room(next.clone()).await?, next.room())?;
    }
    Ok(())
}

async fn many_clients_can_be_dropped_without_close(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let clients = usize::try_from(cx.rounds(100)).unwrap_or(100);
    for number in 0..clients {
        let dropped = cx.open_unheld().await?;
        same(dropped.unrecorded().is_authorized(&user_key(2)).await, Decision::Allow)?;
        dropped.unrecorded().create_room(plain(&format!("{number}"), "eve")).await?;
    }
    same(store.rooms_of(&endpoint("eve"), Page::first()).await?.len(), clients)
}

/// A call that `close` neither waits for nor ends could take effect, and succeed, after `close`.
async fn every_acknowledged_write_has_taken_effect_when_close_returns(cx: Cx) -> Verdict {
    let other = cx.open().await?.unrecorded();
    for round in 0..cx.rounds(5).min(5) {
        let store = cx.open().await?;
        let first = 1_000 * (round + 1);
        let load: Vec<_> =
            (first..first + 64).map(|caller| tokio::spawn(works(store.clone(), caller))).collect();
        let (asked, last) = (store.unrecorded(), room(&format!("{}-0", first + 63)));
        cx.until("the last caller's first room", || async { asked.room(&last).await.is_ok() })
            .await?;
        store.close().await?;
        let there = crate::observe::rooms_of(&*other, &endpoint("ann")).await?;
        let there: BTreeSet<_> = there.into_iter().map(|room| room.id).collect();
        for (caller, task) in (first..).zip(load) {
            for number in joined(task).await?.acknowledged {
                let id = room(&format!("{caller}-{number}"));
                let expected = format!("the acknowledged {id:?} to be there when close returned");
                holds(there.contains(&id), &expected, &false)?;
            }
        }
    }
    Ok(())
}

async fn a_close_ends_no_call_of_another_client(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for round in 0..cx.rounds(8) {
        let closes = cx.open().await?;
        closes.create_room(plain(&format!("of a client {round}"), "ann")).await?;
        let over = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = (0..16)
            .map(|caller| {
                let (store, over) = (store.unrecorded(), Arc::clone(&over));
                tokio::spawn(async move {
                    let mut number = 0;
                    while number == 0 || !over.load(Ordering::SeqCst) {
                        let id = format!("{round}-{caller}-{number}");
                        store.create_room(plain(&id, "bob")).await?;
                        number += 1;
                        tokio::task::yield_now().await;
                    }
                    Ok::<_, Error>(())
                })
            })
            .collect();
        let (asked, last) = (store.unrecorded(), room(&format!("{round}-15-0")));
        let begun =
            cx.until("the last caller's first room", || async { asked.room(&last).await.is_ok() });
        let ended = match begun.await {
            Ok(()) => closes.close().await.map_err(Failure::from),
            failed => failed,
        };
        over.store(true, Ordering::SeqCst);
        for task in load {
            // Every call of this client succeeds, though another client was closed meanwhile.
            joined(task).await?;
        }
        ended?;
    }
    Ok(())
}

async fn a_client_opened_after_a_close_sees_later_writes(cx: Cx) -> Verdict {
    let (one, two) = (cx.open().await?, cx.open().await?);
    set_up(&one).await?;
    two.close().await?;
    let three = cx.open().await?;
    // Has the new client read everything once, so that whatever it caches would be stale below.
    let before = scope().observe(&three).await?;
    scope().observe(&one).await?.unchanged_since(&before)?;
    one.revoke_user(&user_key(2), at(9)).await?;
    one.add_user(user(user_key(3))).await?;
    one.rekey(&room("e"), rekey(1, ["bob"], ["ann"])).await?;
    one.delete_room(&room("p")).await?;
    one.create_room(plain("new", "eve")).await?;
    let after = scope().observe(&one).await?;
    scope().observe(&three).await?.unchanged_since(&after)?;
    same(three.is_authorized(&user_key(2)).await.is_allowed(), false)?;
    three.revoke_user(&user_key(3), at(9)).await?;
    same(one.is_authorized(&user_key(3)).await.is_allowed(), false)
}
