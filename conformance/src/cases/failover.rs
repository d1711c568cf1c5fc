//! Servers that are lost and come back: one, the majority, or all.

use std::time::{Duration, Instant};

use membership::{Decision, DenyReason, Error, NewUser, Page, Store, UserKey};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, joins_at, plain, rekey, room, user, user_exists, user_number,
};
use crate::model::{Answer, Op};
use crate::observe::{Observed, Scope};
use crate::race::joined;
use crate::replicated::{
    at_once, each, heal_and_work, in_time, keep_asking, lead_all, servers, unanswered, works,
};
use crate::scene::crew;
use crate::target::Harm;
use crate::transcript::Client;
use crate::verdict::{Verdict, denies_as_failed, fails, holds, same, unknown};

declare! { "failover";
    every_call_works_again_when_one_server_is_lost: "FAULT-1" "TIME-1", needs Replicas;
    every_call_fails_and_every_decision_denies_without_a_majority:
        "AUTH-2" "AUTH-5" "FAULT-1" "TIME-1", needs Replicas;
    every_call_works_again_when_the_majority_is_back: "FAULT-1" "LIN-1", needs Replicas;
    a_write_without_a_majority_takes_effect_once_or_not_at_all:
        "ERR-2" "FAULT-1" "LIN-1", needs Replicas;
    calls_in_flight_when_the_majority_is_lost_end_in_time:
        "TIME-1" "ERR-2" "FAULT-1", needs Replicas;
    stopping_all_servers_loses_no_acknowledged_write: "DUR-1" "FAULT-1", needs Replicas;
    killing_all_servers_loses_no_acknowledged_write: "DUR-1" "FAULT-1", needs Replicas Synced;
    a_server_that_comes_back_gives_no_stale_answer: "AUTH-3" "LIN-1" "FAULT-1", needs Replicas;
}

const ADMIN: UserKey = UserKey::from_bytes([0xad; 32]);
const USER: UserKey = UserKey::from_bytes([0x05; 32]);
const REVOKED: UserKey = UserKey::from_bytes([0xee; 32]);
const UNKNOWN: UserKey = UserKey::from_bytes([0x99; 32]);

/// The ways in which the majority of the servers is lost.
const LOST: [Harm; 4] = [Harm::Kill, Harm::Pause, Harm::Isolate, Harm::Blackhole];

pub(super) async fn set_up(store: &Client) -> Verdict {
    store.bootstrap_admin(admin(ADMIN)).await?;
    store.add_user(user(USER)).await?;
    store.add_user(admin(REVOKED)).await?;
    store.revoke_user(&REVOKED, at(3)).await?;
    crew(store, "e", &["ann", "bob"]).await?;
    store.create_room(plain("p", "ann")).await?;
    Ok(())
}

fn scope() -> Scope {
    Scope::new(&["e", "p", "none"], &["ann", "bob"]).with_users(&[ADMIN, USER, REVOKED, UNKNOWN])
}

/// Harms the majority of the servers.
async fn harm_most(cx: &Cx, harm: Harm) -> Verdict {
    let servers = servers(cx)?;
    for server in 0..=servers.count() / 2 {
        servers.harm(server, harm).await?;
    }
    Ok(())
}

async fn every_call_works_again_when_one_server_is_lost(cx: Cx) -> Verdict {
    let ways = [Harm::Stop, Harm::Kill, Harm::Pause, Harm::Isolate, Harm::Blackhole];
    each(&cx, &ways, |cx, harm| async move {
        let store = cx.open().await?;
        set_up(&store).await?;
        let servers = servers(&cx)?;
        // `store` loses its server, which leads every part. `other` uses a server that stays.
        let lost = servers.connected().await?;
        lead_all(&cx, lost).await?;
        let before = scope().observe(&store).await?;
        servers.harm(lost, harm).await?;
        let other = cx.open_at((lost + 1) % servers.count()).await?;
        let deadline = Instant::now() + servers.failover();
        let (one, two) = (store.unrecorded(), other.unrecorded());
        let (one, two) = futures::join!(
            works(&cx, &*one, 1_000, deadline),
            works(&cx, &*two, 2_000_000, deadline)
        );
        one?;
        two?;
        // Some of the new clients try the lost server first.
        for _ in 0..6 {
            let new = cx.open().await?;
            same(new.is_authorized(&USER).await, Decision::Allow)?;
        }
        heal_and_work(&cx, &*store.unrecorded(), 3_000_000).await?;
        only_users_were_added(&store, &before).await
    })
    .await
}

/// The records of [`set_up`] must be unchanged. There may be more users.
async fn only_users_were_added(store: &Client, before: &Observed) -> Verdict {
    scope().observe(store).await?.unchanged_but("users()", before)
}

/// Every read, of records that exist and of some that do not.
pub(super) fn reads() -> Vec<Op> {
    let (e, ann) = (room("e"), endpoint("ann"));
    vec![
        Op::Room(e.clone()),
        Op::Room(room("none")),
        Op::RoomsOf(ann.clone(), Page::first()),
        Op::Member(e.clone(), ann.clone()),
        Op::Member(e.clone(), endpoint("eve")),
        Op::Members(e.clone(), Page::first()),
        Op::Key(e.clone(), ann.clone(), membership::Epoch::FIRST),
        Op::LatestKey(e, ann),
        Op::User(USER),
        Op::User(UNKNOWN),
        Op::Users(Page::first()),
        Op::HasAdmin,
    ]
}

/// Writes of every kind: some valid, others that a working store refuses.
fn writes() -> Vec<Op> {
    vec![
        Op::CreateRoom(plain("new", "eve")),
        Op::CreateRoom(plain("p", "eve")),
        Op::AddMember(room("e"), joins_at("eve", 1)),
        Op::AddMember(room("e"), joins_at("bob", 1)),
        Op::RemoveMember(room("e"), endpoint("bob")),
        Op::AddUser(user(UNKNOWN)),
        Op::AddUser(user(USER)),
        Op::BootstrapAdmin(admin(UNKNOWN)),
        Op::RevokeUser(USER, at(9)),
        Op::Rekey(room("e"), rekey(1, [], ["ann", "bob"])),
        Op::DeleteRoom(room("p")),
    ]
}

pub(super) fn decisions() -> Vec<Op> {
    let of = |key| [Op::IsAuthorized(key), Op::IsAdmin(key)];
    [ADMIN, USER, REVOKED, UNKNOWN].into_iter().flat_map(of).collect()
}

async fn every_call_fails_and_every_decision_denies_without_a_majority(cx: Cx) -> Verdict {
    each(&cx, &LOST, |cx, harm| async move {
        let store = cx.open().await?;
        set_up(&store).await?;
        harm_most(&cx, harm).await?;
        // By the second time, the client has had time to notice the loss and to try other servers.
        for _ in 0..2 {
            for answer in at_once(&cx, &store, &decisions()).await? {
                let Answer::Decision(decision) = answer else { continue };
                denies_as_failed(&decision)?;
            }
            let calls = reads();
            let answers = at_once(&cx, &store, &calls).await?;
            for (call, answer) in calls.iter().zip(answers) {
                let expected = format!("{call:?} -> Timeout or Unavailable");
                holds(unanswered(&answer), &expected, &answer)?;
            }
        }
        let calls = writes();
        for (call, answer) in calls.iter().zip(at_once(&cx, &store, &calls).await?) {
            let expected = format!("{call:?} -> Timeout or Unavailable");
            holds(unanswered(&answer), &expected, &answer)?;
        }
        Ok(())
    })
    .await
}

async fn every_call_works_again_when_the_majority_is_back(cx: Cx) -> Verdict {
    each(&cx, &LOST, |cx, harm| async move {
        let store = cx.open().await?;
        set_up(&store).await?;
        let before = scope().observe(&store).await?;
        harm_most(&cx, harm).await?;
        denies_as_failed(&cx.within_bound(store.is_authorized(&USER)).await?)?;
        heal_and_work(&cx, &*store.unrecorded(), 1_000).await?;
        only_users_were_added(&store, &before).await
    })
    .await
}

async fn a_write_without_a_majority_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &LOST, |cx, harm| async move {
        let store = cx.open().await?;
        set_up(&store).await?;
        let new = |number| NewUser { added_at: at(7), ..user(user_number(number)) };
        let mut calls: Vec<_> = (0..16).map(|number| Op::AddUser(new(number))).collect();
        calls.extend((0..8).map(|number| Op::CreateRoom(encrypted(&format!("r{number}"), "ann"))));
        calls.push(Op::Rekey(room("e"), rekey(1, [], ["ann", "bob"])));
        harm_most(&cx, harm).await?;
        for (call, answer) in calls.iter().zip(at_once(&cx, &store, &calls).await?) {
            let expected = format!("{call:?} -> Timeout or Unavailable");
            holds(unanswered(&answer), &expected, &answer)?;
        }
        heal_and_work(&cx, &*store.unrecorded(), 1_000_000).await?;
        for call in &calls {
            // The call is repeated. Either the first or the second one must have taken effect.
            let again = call.apply(&store).await;
            let refused =
                matches!(again.error(), Some(Error::AlreadyExists(_) | Error::StaleEpoch { .. }));
            let expected = format!("{call:?} to succeed, or to have taken effect before");
            holds(refused || again.error().is_none(), &expected, &again)?;
        }
        for number in 0..16 {
            same(store.user(&user_number(number)).await?, new(number).user())?;
        }
        same(store.room(&room("e")).await?.epoch.get(), 2)?;
        let rooms: Vec<_> = (0..8).map(|number| format!("r{number}")).collect();
        let rooms: Vec<_> = rooms.iter().map(String::as_str).chain(["e", "p"]).collect();
        Scope::new(&rooms, &["ann", "bob"]).observe(&store).await?;
        Ok(())
    })
    .await
}

/// Adds users and asks for decisions until `until`. Returns the users that were acknowledged.
///
/// Each call must end within its bound.
async fn busy(cx: Cx, store: Client, caller: u64, until: Instant) -> Verdict<Vec<UserKey>> {
    let store = store.unrecorded();
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if Instant::now() > until {
            break;
        }
        let key = user_number(caller * 1_000_000 + number);
        let answer = in_time(&cx, &*store, &Op::AddUser(user(key))).await?;
        if answer.error().is_none() {
            acknowledged.push(key);
        } else {
            holds(unanswered(&answer), "success, Timeout or Unavailable", &answer)?;
        }
        let decision = in_time(&cx, &*store, &Op::IsAuthorized(USER)).await?;
        let right = decision == Answer::Decision(Decision::Allow) || unanswered(&decision);
        holds(right, "Allow, or Deny as failed", &decision)?;
    }
    Ok(acknowledged)
}

async fn calls_in_flight_when_the_majority_is_lost_end_in_time(cx: Cx) -> Verdict {
    each(&cx, &LOST, |cx, harm| async move {
        let store = cx.open().await?;
        set_up(&store).await?;
        let until = Instant::now() + Duration::from_secs(3);
        let callers: Vec<_> = (1..=64)
            .map(|caller| tokio::spawn(busy(cx.clone(), store.clone(), caller, until)))
            .collect();
        // The harm begins once the last caller has added a user, so that every caller is at work.
        let (asked, last) = (store.unrecorded(), user_number(64_000_000));
        cx.until("the last caller's first user", || async { asked.user(&last).await.is_ok() })
            .await?;
        harm_most(&cx, harm).await?;
        let mut acknowledged = Vec::new();
        for caller in callers {
            acknowledged.extend(joined(caller).await?);
        }
        heal_and_work(&cx, &*store.unrecorded(), 100_000_000).await?;
        let known = crate::observe::all_users(&*store.unrecorded()).await?;
        for key in acknowledged {
            let there = known.iter().any(|user| user.key == key);
            holds(there, &format!("the acknowledged user {key} to be there"), &there)?;
        }
        Ok(())
    })
    .await
}

/// Makes many writes and then harms all servers. Every acknowledged write must be there afterwards.
async fn all_lost(cx: &Cx, harm: Harm) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let calls: Vec<_> = (0..200).map(|number| Op::AddUser(user(user_number(number)))).collect();
    for answer in at_once(cx, &*store.unrecorded(), &calls).await? {
        holds(answer.error().is_none(), "a user to be added", &answer)?;
    }
    let calls: Vec<_> =
        (0..50).map(|number| Op::CreateRoom(encrypted(&format!("r{number}"), "ann"))).collect();
    for answer in at_once(cx, &*store.unrecorded(), &calls).await? {
        holds(answer.error().is_none(), "a room to be made", &answer)?;
    }
    let everything = scope();
    let before = everything.observe(&store).await?;
    let servers = servers(cx)?;
    for server in 0..servers.count() {
        servers.harm(server, harm).await?;
    }
    denies_as_failed(&cx.within_bound(store.is_authorized(&USER)).await?)?;
    unknown(&cx.within_bound(store.room(&room("e"))).await?)?;
    servers.heal().await?;
    // The client is not opened again, and nothing is written before it reads.
    let deadline = Instant::now() + servers.failover();
    while unanswered(&in_time(cx, &store, &Op::HasAdmin).await?) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    everything.observe(&store).await?.unchanged_since(&before)?;
    works(cx, &*store.unrecorded(), 1_000_000, deadline).await?;
    Ok(())
}

async fn stopping_all_servers_loses_no_acknowledged_write(cx: Cx) -> Verdict {
    all_lost(&cx, Harm::Stop).await
}

async fn killing_all_servers_loses_no_acknowledged_write(cx: Cx) -> Verdict {
    all_lost(&cx, Harm::Kill).await
}

/// A server misses many writes and comes back with stale data.
///
/// Its client asks during the elections, while the server catches up, and afterwards.
async fn a_server_that_comes_back_gives_no_stale_answer(cx: Cx) -> Verdict {
    each(&cx, &[Harm::Kill, Harm::Pause, Harm::Stop], |cx, harm| async move {
        let there = cx.open_at(1).await?;
        let here = cx.open_at(2).await?;
        set_up(&there).await?;
        let keys: Vec<_> = (0..100).map(user_number).collect();
        let add: Vec<_> = keys.iter().map(|key| Op::AddUser(user(*key))).collect();
        at_once(&cx, &*there.unrecorded(), &add).await?;
        lead_all(&cx, 1).await?;
        same(here.is_authorized(&user_number(0)).await, Decision::Allow)?;
        let servers = servers(&cx)?;
        servers.harm(2, harm).await?;
        let deadline = Instant::now() + servers.failover();
        works(&cx, &*there.unrecorded(), 1_000_000, deadline).await?;
        let revoke: Vec<_> = keys.iter().map(|key| Op::RevokeUser(*key, at(3))).collect();
        for answer in at_once(&cx, &*there.unrecorded(), &revoke).await? {
            holds(answer.error().is_none(), "a user to be revoked", &answer)?;
        }
        there.delete_room(&room("p")).await?;
        there.rekey(&room("e"), rekey(1, ["bob"], ["ann"])).await?;
        // Asks until the harm has ended, and for another second.
        let (done, over) = tokio::sync::watch::channel(false);
        let store = here.unrecorded();
        let ask = async {
            let store = &store;
            let questions = move || async move {
                let [first, last] = [0, 99].map(user_number);
                for key in [first, last] {
                    let answer = Op::IsAuthorized(key).apply(&**store).await;
                    let revoked = Answer::Decision(Decision::Deny(DenyReason::Revoked));
                    let right = unanswered(&answer) || answer == revoked;
                    holds(right, "no Allow for a user who was revoked", &answer)?;
                }
                let (e, bob) = (room("e"), endpoint("bob"));
                for call in [Op::Room(room("p")), Op::LatestKey(e, bob)] {
                    let answer = call.apply(&**store).await;
                    holds(answer.error().is_some(), "an error: the record is gone", &answer)?;
                }
                let answer = Op::Room(room("e")).apply(&**store).await;
                match &answer {
                    Answer::Room(Ok(room)) => same(room.epoch.get(), 2),
                    _ => holds(unanswered(&answer), "the room at its new epoch", &answer),
                }
            };
            while !*over.borrow() {
                let soon = Instant::now() + Duration::from_millis(500);
                keep_asking(soon, questions).await?;
            }
            keep_asking(Instant::now() + Duration::from_secs(1), questions).await
        };
        let heal = async {
            let healed = servers.heal().await;
            let _ = done.send(true);
            Verdict::Ok(healed?)
        };
        let (asked, healed) = futures::join!(ask, heal);
        asked?;
        healed?;
        let deadline = Instant::now() + servers.failover();
        works(&cx, &*here.unrecorded(), 2_000_000, deadline).await?;
        same(here.is_authorized(&UNKNOWN).await, Decision::Deny(DenyReason::Unknown))?;
        fails(here.room(&room("p")).await, &crate::make::no_room("p"))?;
        fails(here.add_user(user(USER)).await, &user_exists(USER))
    })
    .await
}
