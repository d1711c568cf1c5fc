//! Faults: decisions deny, calls fail in time, and the store works again once the fault ends.

use std::time::{Duration, Instant};

use membership::{Decision, DenyReason, Error, NewUser, Page, Store, UserKey};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, joins_at, plain, rekey, room, user, user_key, user_number,
};
use crate::model::{Answer, Op};
use crate::observe::Scope;
use crate::race::joined;
use crate::target::Fault;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, denies_as_failed, fails, holds, same};

declare! { "fail_closed";
    a_decision_during_a_fault_denies_or_is_right: "AUTH-2" "TIME-1", needs Faults;
    has_admin_during_a_fault_fails_or_is_right: "AUTH-5" "TIME-1", needs Faults;
    nobody_gains_access_during_or_after_a_fault: "AUTH-2" "AUTH-3", needs Faults;
    a_read_during_a_fault_fails_or_is_right: "ERR-1" "TIME-1", needs Faults;
    a_write_acknowledged_during_a_fault_takes_effect: "ERR-2" "TIME-1", needs Faults;
    rekeys_and_deletions_during_a_fault_end_within_their_bound: "TIME-1" "ERR-2", needs Faults;
    an_open_client_works_again_once_a_fault_ends: "AUTH-2" "LIN-1", needs Faults;
    a_write_of_unknown_outcome_takes_effect_once_or_not_at_all: "ERR-2" "LIN-1", needs Faults;
    a_fault_leaves_no_call_in_flight_hanging: "TIME-1" "ERR-2", needs Faults;
    a_decision_made_as_a_fault_begins_denies_or_is_right: "AUTH-2" "TIME-1", needs Faults;
    close_during_a_fault_ends_within_its_bound: "CLOSE-1" "TIME-1", needs Faults;
    a_closed_client_reports_closed_during_a_fault: "ERR-4" "CLOSE-2", needs Faults;
}

const ADMIN: UserKey = UserKey::from_bytes([0xad; 32]);
const USER: UserKey = UserKey::from_bytes([0x05; 32]);
const REVOKED: UserKey = UserKey::from_bytes([0xee; 32]);
const UNKNOWN: UserKey = UserKey::from_bytes([0x99; 32]);

async fn set_up(store: &Client) -> Verdict {
    store.bootstrap_admin(admin(ADMIN)).await?;
    store.add_user(user(USER)).await?;
    store.add_user(admin(REVOKED)).await?;
    store.revoke_user(&REVOKED, at(3)).await?;
    store.create_room(encrypted("e", "ann")).await?;
    store.add_member(&room("e"), joins_at("bob", 1)).await?;
    store.create_room(plain("p", "ann")).await?;
    Ok(())
}

fn scope() -> Scope {
    Scope::new(&["e", "p"], &["ann", "bob"]).with_users(&[ADMIN, USER, REVOKED, UNKNOWN])
}

/// The decisions on the four keys, with the answers of a store that works.
fn decisions() -> Vec<(Op, Decision)> {
    use Decision::{Allow, Deny};
    vec![
        (Op::IsAuthorized(ADMIN), Allow),
        (Op::IsAdmin(ADMIN), Allow),
        (Op::IsAuthorized(USER), Allow),
        (Op::IsAdmin(USER), Deny(DenyReason::NotAdmin)),
        (Op::IsAuthorized(REVOKED), Deny(DenyReason::Revoked)),
        (Op::IsAdmin(REVOKED), Deny(DenyReason::Revoked)),
        (Op::IsAuthorized(UNKNOWN), Deny(DenyReason::Unknown)),
        (Op::IsAdmin(UNKNOWN), Deny(DenyReason::Unknown)),
    ]
}

/// Adds the fault's name to a failure.
fn under<T>(fault: &Fault, verdict: Verdict<T>) -> Verdict<T> {
    verdict.map_err(|failure| {
        let expected = format!("{} (fault: {})", failure.expected, fault.name);
        Failure { expected, ..failure }
    })
}

/// Runs `case` once for each fault of the target, each on its own store after [`set_up`].
///
/// The case injects the fault. The fault ends here, after the case.
async fn each_fault<Ran>(cx: &Cx, case: impl Fn(Cx, Client, Fault) -> Ran) -> Verdict
where
    Ran: Future<Output = Verdict>,
{
    let target = cx.target().clone();
    let faults = target.faults();
    holds(!faults.is_empty(), "a target that claims faults to have one", &faults.len())?;
    // All faults are tested at the same time, because the cases mostly wait for deadlines.
    let each = faults.iter().map(|fault| under_one(cx, fault, &case));
    futures::future::join_all(each).await.into_iter().collect()
}

async fn under_one<Ran>(cx: &Cx, fault: &Fault, case: impl Fn(Cx, Client, Fault) -> Ran) -> Verdict
where
    Ran: Future<Output = Verdict>,
{
    let cx = cx.another().await?;
    let store = cx.open().await?;
    set_up(&store).await?;
    let verdict = case(cx.clone(), store, *fault).await;
    cx.instance().heal().await?;
    cx.close_all().await;
    under(fault, verdict)
}

/// Makes the calls at the same time. Each must end within its bound.
async fn at_once(cx: &Cx, store: &Client, calls: Vec<Op>) -> Verdict<Vec<(Op, Answer)>> {
    let answers = calls.into_iter().map(|call| async move {
        let slow = matches!(call, Op::Rekey(..) | Op::DeleteRoom(_));
        let answer = if slow {
            cx.within_slow_bound(call.apply(store)).await
        } else {
            cx.within_bound(call.apply(store)).await
        };
        Ok((call, answer?))
    });
    futures::future::join_all(answers).await.into_iter().collect()
}

/// Whether the error is one of a fault: `Timeout`, `Unavailable` or `Corrupt`.
fn failed(error: &Error) -> bool {
    error.outcome_unknown() || matches!(error, Error::Corrupt(_))
}

async fn a_decision_during_a_fault_denies_or_is_right(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        cx.instance().inject(&fault).await?;
        let (calls, right): (Vec<_>, Vec<_>) = decisions().into_iter().unzip();
        for ((_, answer), right) in at_once(&cx, &store, calls).await?.into_iter().zip(right) {
            let Answer::Decision(decision) = answer else { continue };
            if fault.stops_reads {
                denies_as_failed(&decision)?;
            } else {
                same(decision, right)?;
            }
        }
        Ok(())
    })
    .await
}

async fn has_admin_during_a_fault_fails_or_is_right(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        cx.instance().inject(&fault).await?;
        match cx.within_bound(store.has_admin()).await? {
            Err(error) if fault.stops_reads => holds(failed(&error), "an error of a fault", &error),
            other if fault.stops_reads => Err(Failure::answer("an error", &other)),
            other => same(other, Ok(true)),
        }
    })
    .await
}

async fn nobody_gains_access_during_or_after_a_fault(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        cx.instance().inject(&fault).await?;
        // Writes that would let somebody in. Each must fail: with an error of the fault, or because
        // the key is known or an admin exists.
        let tries = vec![
            Op::AddUser(admin(REVOKED)),
            Op::BootstrapAdmin(admin(REVOKED)),
            Op::BootstrapAdmin(admin(UNKNOWN)),
            Op::AddUser(admin(USER)),
        ];
        for (_, answer) in at_once(&cx, &store, tries).await? {
            holds(answer.error().is_some(), "an error", &answer)?;
        }
        let asked = decisions().into_iter().filter(|(_, right)| *right != Decision::Allow);
        let asked = asked.map(|(call, _)| call).collect();
        for (_, answer) in at_once(&cx, &store, asked).await? {
            let let_in = answer == Answer::Decision(Decision::Allow);
            holds(!let_in, "a denial, during any fault", &answer)?;
        }
        cx.instance().heal().await?;
        for (call, right) in decisions() {
            same(call.apply(&store).await, Answer::Decision(right))?;
        }
        Ok(())
    })
    .await
}

async fn a_read_during_a_fault_fails_or_is_right(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        let (e, ann) = (room("e"), endpoint("ann"));
        let calls = vec![
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
        ];
        let right = at_once(&cx, &store, calls.clone()).await?;
        cx.instance().inject(&fault).await?;
        for ((call, answer), (_, right)) in
            at_once(&cx, &store, calls).await?.into_iter().zip(right)
        {
            if fault.stops_reads {
                let error = answer.error().is_some_and(failed);
                holds(error, &format!("{call:?} to fail"), &answer)?;
            } else {
                same(answer, right)?;
            }
        }
        Ok(())
    })
    .await
}

/// A write of every kind with an ordinary bound, but no bootstrap. All are valid after [`set_up`].
fn writes() -> Vec<Op> {
    vec![
        Op::CreateRoom(plain("new", "eve")),
        Op::AddMember(room("e"), joins_at("eve", 1)),
        Op::RemoveMember(room("e"), endpoint("bob")),
        Op::AddUser(user(UNKNOWN)),
        Op::RevokeUser(USER, at(9)),
    ]
}

async fn a_write_acknowledged_during_a_fault_takes_effect(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        cx.instance().inject(&fault).await?;
        let answers = at_once(&cx, &store, writes()).await?;
        for (call, answer) in &answers {
            match answer.error() {
                Some(error) => holds(failed(error), "success, Timeout or Unavailable", error)?,
                None if fault.stops_writes => {
                    let expected = format!("{call:?} not to be acknowledged");
                    return Err(Failure::answer(expected, &answer));
                }
                None => {}
            }
        }
        cx.instance().heal().await?;
        for (call, answer) in answers {
            let outcome = took_effect(&store, &call).await?;
            if answer.error().is_none() {
                holds(outcome, &format!("the acknowledged {call:?} to be there"), &outcome)?;
            }
        }
        Ok(())
    })
    .await
}

/// Whether one of [`writes`] took effect. Fails if it took effect only in part.
///
/// A write of unknown outcome may take effect between two of the reads (LIN-1). Then the first
/// reads do not show it, the later ones do, and all of them show it when they are repeated.
async fn took_effect(store: &Client, call: &Op) -> Verdict<bool> {
    let seen = traces(store, call).await?;
    let whole = match (seen.first(), seen.last()) {
        (Some(true), _) => seen.iter().all(|one| *one),
        (_, Some(true)) if seen.is_sorted() => traces(store, call).await?.iter().all(|one| *one),
        _ => seen.iter().all(|one| !one),
    };
    holds(whole, &format!("{call:?} entirely, or not at all"), &seen)?;
    Ok(seen.last().copied().unwrap_or_default())
}

/// For each read that one of [`writes`] changes: whether the answer shows the write.
async fn traces(store: &Client, call: &Op) -> Verdict<Vec<bool>> {
    let (e, eve, bob) = (room("e"), endpoint("eve"), endpoint("bob"));
    Ok(match call {
        Op::CreateRoom(new) => {
            let found = store.room(&new.id).await;
            let rooms = store.rooms_of(&new.owner, Page::first()).await?;
            let member = store.member(&new.id, &new.owner).await;
            let listed = rooms.iter().any(|room| room.id == new.id);
            if let Ok(found) = &found {
                same(found, &new.room())?;
            }
            vec![found.is_ok(), listed, member.is_ok()]
        }
        Op::AddMember(..) => {
            let rooms = store.rooms_of(&eve, Page::first()).await?;
            let listed = rooms.iter().any(|room| room.id == e);
            let member = store.member(&e, &eve).await.is_ok();
            vec![listed, member, store.latest_key(&e, &eve).await.is_ok()]
        }
        Op::RemoveMember(..) => {
            let rooms = store.rooms_of(&bob, Page::first()).await?;
            let listed = rooms.iter().any(|room| room.id == e);
            let member = store.member(&e, &bob).await.is_ok();
            let key = store.latest_key(&e, &bob).await.is_ok();
            vec![!listed, !member, !key, store.room(&e).await?.rekey_due]
        }
        Op::AddUser(new) => match store.user(&new.key).await {
            Ok(found) => same(found, new.user()).map(|()| vec![true])?,
            missed => {
                fails(missed, &crate::make::no_user(new.key))?;
                vec![false]
            }
        },
        Op::RevokeUser(key, when) => {
            let found = store.user(key).await?;
            holds(found.revoked_at.is_none_or(|at| at == *when), "the requested time", &found)?;
            let denied = !store.is_authorized(key).await.is_allowed();
            same(found.revoked, found.revoked_at.is_some())?;
            vec![found.revoked, denied]
        }
        _ => Vec::new(),
    })
}

async fn rekeys_and_deletions_during_a_fault_end_within_their_bound(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        cx.instance().inject(&fault).await?;
        let rekey = Op::Rekey(room("e"), rekey(1, ["bob"], ["ann"]));
        let calls = vec![rekey, Op::DeleteRoom(room("p"))];
        for (call, answer) in at_once(&cx, &store, calls).await? {
            match answer.error() {
                Some(error) => holds(failed(error), "success, Timeout or Unavailable", error)?,
                None => {
                    let expected = format!("{call:?} not to be acknowledged");
                    holds(!fault.stops_writes, &expected, &answer)?;
                }
            }
        }
        Ok(())
    })
    .await
}

async fn an_open_client_works_again_once_a_fault_ends(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        let before = scope().observe(&store).await?;
        for round in 0..2 {
            cx.instance().inject(&fault).await?;
            let _while_broken = cx.within_bound(store.is_authorized(&USER)).await?;
            cx.instance().heal().await?;
            // The client recovers by itself, without being opened again.
            scope().observe(&store).await?.unchanged_since(&before)?;
            let new = plain(&format!("after {round}"), "eve");
            same(cx.within_bound(store.create_room(new.clone())).await??, new.room())?;
            same(store.room(&new.id).await?, new.room())?;
        }
        Ok(())
    })
    .await
}

async fn a_write_of_unknown_outcome_takes_effect_once_or_not_at_all(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        cx.instance().inject(&fault).await?;
        let new = |number| NewUser { added_at: at(7), ..user(user_number(number)) };
        let calls = (0..16).map(|number| Op::AddUser(new(number))).collect();
        let answers = at_once(&cx, &store, calls).await?;
        cx.instance().heal().await?;
        for (number, (_, answer)) in (0..).zip(answers) {
            let key = user_number(number);
            // The call is repeated until it is answered. If the outcome of the first call was
            // unknown, either call may have added the user; the record must be the same.
            match answered(&cx, &store, &Op::AddUser(new(number))).await? {
                Answer::User(Ok(_)) => {
                    let failed = answer.error().is_some();
                    holds(failed, "AlreadyExists for an acknowledged user", &answer)?;
                }
                Answer::User(again) => fails(again, &crate::make::user_exists(key))?,
                other => holds(false, "an answer about a user", &other)?,
            }
            same(
                answered(&cx, &store, &Op::User(key)).await?,
                Answer::User(Ok(new(number).user())),
            )?;
        }
        let listed = store.users(Page::first()).await?;
        same(listed.len(), 16 + 3)
    })
    .await
}

/// Makes a call after the fault has ended, and repeats it while its outcome is unknown.
///
/// A store may need a moment to recover. Each call must end within its bound.
async fn answered(cx: &Cx, store: &Client, call: &Op) -> Verdict<Answer> {
    let deadline = Instant::now() + 5 * cx.bound();
    loop {
        let answer = cx.within_bound(call.apply(store)).await?;
        let unknown = answer.error().is_some_and(Error::outcome_unknown);
        if !unknown || Instant::now() > deadline {
            return Ok(answer);
        }
    }
}

/// Adds users and asks for decisions until `until`. Returns the additions with their answers.
///
/// Each call must end within its bound.
async fn busy(cx: Cx, store: Client, caller: u64, until: Instant) -> Verdict<Vec<(Op, Answer)>> {
    let mut made = Vec::new();
    for number in 0.. {
        if Instant::now() > until && number > 1 {
            break;
        }
        if number % 2 == 0 {
            let call = Op::AddUser(user(user_number(caller * 1_000_000 + number)));
            let answer = cx.within_bound(call.apply(&*store.unrecorded())).await?;
            if let Some(error) = answer.error() {
                holds(failed(error), "success, Timeout or Unavailable", error)?;
            }
            made.push((call, answer));
        } else {
            let decision = cx.within_bound(store.unrecorded().is_authorized(&USER)).await?;
            if decision != Decision::Allow {
                denies_as_failed(&decision)?;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(made)
}

async fn a_fault_leaves_no_call_in_flight_hanging(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        let until = Instant::now() + Duration::from_millis(200);
        let callers: Vec<_> = (1..=64)
            .map(|caller| tokio::spawn(busy(cx.clone(), store.clone(), caller, until)))
            .collect();
        // The fault begins once the last caller has added a user, so that every caller is at work.
        let (asked, last) = (store.unrecorded(), user_number(64_000_000));
        cx.until("the last caller's first user", || async { asked.user(&last).await.is_ok() })
            .await?;
        cx.instance().inject(&fault).await?;
        let mut made = Vec::new();
        for caller in callers {
            made.extend(joined(caller).await?);
        }
        cx.instance().heal().await?;
        for (call, answer) in made {
            if answer.error().is_none() {
                let there = took_effect(&store, &call).await?;
                holds(there, &format!("the acknowledged {call:?} to be there"), &there)?;
            }
        }
        Ok(())
    })
    .await
}

async fn a_decision_made_as_a_fault_begins_denies_or_is_right(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        for _ in 0..cx.rounds(5) {
            let askers: Vec<_> = (0..64)
                .map(|number| {
                    let (cx, store) = (cx.clone(), store.unrecorded());
                    tokio::spawn(async move {
                        let all = decisions();
                        let Some((call, right)) = all.get(number % all.len()) else {
                            return Verdict::Ok(());
                        };
                        for _ in 0..20 {
                            let answer = cx.within_bound(call.apply(&*store)).await?;
                            let Answer::Decision(decision) = answer else { continue };
                            if decision != *right {
                                denies_as_failed(&decision)?;
                                break;
                            }
                            tokio::task::yield_now().await;
                        }
                        Ok(())
                    })
                })
                .collect();
            cx.instance().inject(&fault).await?;
            for asker in askers {
                joined(asker).await?;
            }
            cx.instance().heal().await?;
        }
        Ok(())
    })
    .await
}

async fn close_during_a_fault_ends_within_its_bound(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        cx.instance().inject(&fault).await?;
        let in_flight: Vec<_> = (0..16)
            .map(|number| {
                let store = store.unrecorded();
                tokio::spawn(async move { store.add_user(user(user_number(number))).await })
            })
            .collect();
        // `close` may fail during a fault, but must not hang.
        let _closed = cx.within_bound(store.close()).await?;
        for call in in_flight {
            let Err(error) = cx.within_bound(joined(call)).await? else { continue };
            let known = failed(&error) || error == Error::Closed;
            holds(known, "success, Timeout, Unavailable or Closed", &error)?;
        }
        fails(store.room(&room("e")).await, &Error::Closed)
    })
    .await
}

async fn a_closed_client_reports_closed_during_a_fault(cx: Cx) -> Verdict {
    each_fault(&cx, |cx, store, fault| async move {
        store.close().await?;
        cx.instance().inject(&fault).await?;
        fails(cx.within_bound(store.room(&room("e"))).await?, &Error::Closed)?;
        fails(cx.within_bound(store.add_user(user(user_key(7)))).await?, &Error::Closed)?;
        fails(cx.within_bound(store.has_admin()).await?, &Error::Closed)?;
        let decision = cx.within_bound(store.is_authorized(&USER)).await?;
        same(decision, Decision::from(Error::Closed))
    })
    .await
}
