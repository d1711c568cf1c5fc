//! Helpers of the cases that harm a store's servers.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use membership::{Conflict, Decision, DenyReason, Epoch, Error, Page, Store};
use tokio::task::JoinSet;

use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, joins_at, member_of, no_key, no_member, no_room, page, rekey,
    revoked, room, sealed_key, user, user_number,
};
use crate::model::{Answer, Op};
use crate::show::Show;
use crate::target::Replicas;
use crate::verdict::{Failure, Verdict};

/// The servers of a case that needs [`Need::Replicas`](crate::Need::Replicas).
pub(crate) fn servers(cx: &Cx) -> Verdict<&dyn Replicas> {
    Ok(cx.instance().replicas()?)
}

/// Runs `case` for each of `ways` at the same time, each on a store of its own. A failure names the
/// way.
pub(crate) async fn each<Way, Ran>(cx: &Cx, ways: &[Way], case: impl Fn(Cx, Way) -> Ran) -> Verdict
where
    Way: Copy + Debug + Send + 'static,
    Ran: Future<Output = Verdict> + Send + 'static,
{
    // A set, so that the first failure ends the others.
    let mut running = JoinSet::new();
    for way in ways {
        let cx = cx.another().await?;
        let (way, ran) = (*way, case(cx.clone(), *way));
        running.spawn(async move {
            let verdict = ran.await;
            cx.close_all().await;
            verdict.map_err(|failure| Failure {
                expected: format!("{} ({way:?})", failure.expected),
                ..failure
            })
        });
    }
    while let Some(ended) = running.join_next().await {
        match ended.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(verdict) => verdict?,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => {}
        }
    }
    Ok(())
}

/// Makes one server the leader of every part of the data.
pub(crate) async fn lead_all(cx: &Cx, server: usize) -> Verdict {
    let servers = servers(cx)?;
    for part in servers.parts() {
        servers.lead(server, part).await?;
    }
    Ok(())
}

/// Every call but `close`, each with its right answer, which is a success or a known error. Another
/// `number` uses other rooms, endpoints and users. An admin must exist already.
fn every_call(number: u64) -> Vec<(Op, Answer)> {
    let (id, ann, bob) =
        (format!("every {number}"), format!("ann {number}"), format!("bob {number}"));
    let (id, ann, bob) = (id.as_str(), ann.as_str(), bob.as_str());
    let new = encrypted(id, ann);
    let (made, owner) = (new.room(), new.owner_member());
    let rekeyed = crate::make::at_epoch(&made, 2);
    let due = membership::Room { rekey_due: true, ..rekeyed.clone() };
    let key = user_number(number);
    let before = number.checked_sub(1).map(user_number);
    let known = user(key).user();
    let gone = revoked(&known, at(3));
    vec![
        (Op::CreateRoom(new), Answer::Room(Ok(made.clone()))),
        (Op::Room(room(id)), Answer::Room(Ok(made))),
        (Op::AddMember(room(id), joins_at(bob, 1)), Answer::Member(Ok(member_of(id, bob, 1)))),
        (Op::Member(room(id), endpoint(bob)), Answer::Member(Ok(member_of(id, bob, 1)))),
        (
            Op::Members(room(id), Page::first()),
            Answer::Members(Ok(vec![owner, member_of(id, bob, 1)])),
        ),
        (Op::Rekey(room(id), rekey(1, [], [ann, bob])), Answer::Room(Ok(rekeyed.clone()))),
        (Op::RoomsOf(endpoint(bob), Page::first()), Answer::Rooms(Ok(vec![rekeyed]))),
        (Op::Key(room(id), endpoint(bob), Epoch::FIRST), Answer::Key(Ok(sealed_key(id, bob, 1)))),
        (Op::LatestKey(room(id), endpoint(bob)), Answer::Key(Ok(sealed_key(id, bob, 2)))),
        (Op::RemoveMember(room(id), endpoint(bob)), Answer::Done(Ok(()))),
        (Op::LatestKey(room(id), endpoint(bob)), Answer::Key(Err(no_key(id, bob, None)))),
        (Op::Member(room(id), endpoint(bob)), Answer::Member(Err(no_member(id, bob)))),
        (Op::Room(room(id)), Answer::Room(Ok(due))),
        (Op::DeleteRoom(room(id)), Answer::Done(Ok(()))),
        (Op::Room(room(id)), Answer::Room(Err(no_room(id)))),
        (Op::RoomsOf(endpoint(ann), Page::first()), Answer::Rooms(Ok(vec![]))),
        (Op::AddUser(user(key)), Answer::User(Ok(known.clone()))),
        (Op::User(key), Answer::User(Ok(known.clone()))),
        (Op::IsAuthorized(key), Answer::Decision(Decision::Allow)),
        (Op::IsAdmin(key), Answer::Decision(Decision::Deny(DenyReason::NotAdmin))),
        (Op::RevokeUser(key, at(3)), Answer::Done(Ok(()))),
        (Op::IsAuthorized(key), Answer::Decision(Decision::Deny(DenyReason::Revoked))),
        (Op::Users(page(before, 1)), Answer::Users(Ok(vec![gone]))),
        (
            Op::BootstrapAdmin(admin(user_number(u64::MAX))),
            Answer::User(Err(Conflict::AdminExists.into())),
        ),
        (Op::HasAdmin, Answer::Bool(Ok(true))),
    ]
}

/// Makes every call again and again until all succeed in one pass. Returns how long it took.
///
/// Each pass uses new ids, from `number` on. Calls may fail until `deadline`. A wrong answer, or a
/// call past its bound, fails the case at any time.
pub(crate) async fn works(
    cx: &Cx,
    store: &dyn Store,
    number: u64,
    deadline: Instant,
) -> Verdict<Duration> {
    let began = Instant::now();
    for number in number.. {
        let Some((call, answer)) = failing(cx, store, number).await? else { break };
        if Instant::now() > deadline {
            let expected = format!("every call to work again after {:?}", began.elapsed());
            return Err(Failure::new(expected, format!("{call:?} -> {}", answer.show())));
        }
        // Otherwise calls that fail at once would be repeated as fast as the processor can.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(began.elapsed())
}

/// Ends all harm. Then every call of the open client must work again within the failover time.
///
/// Calls go on until every server is well. A server that was cut off may stay behind in a part of
/// the data for as long as nobody writes to that part.
pub(crate) async fn heal_and_work(cx: &Cx, store: &dyn Store, number: u64) -> Verdict {
    let servers = servers(cx)?;
    // The failover time counts twice: once for the servers to come back, and once for their
    // election.
    let deadline = Instant::now() + servers.failover() * 2;
    let over = AtomicBool::new(false);
    let heal = async {
        let healed = servers.heal().await;
        over.store(true, Ordering::SeqCst);
        Verdict::Ok(healed?)
    };
    let work = async {
        for pass in 0.. {
            let last = over.load(Ordering::SeqCst);
            works(cx, store, number + pass * PASS, deadline).await?;
            if last {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Verdict::Ok(())
    };
    let (healed, worked) = futures::join!(heal, work);
    healed.and(worked)
}

/// More ids than [`works`] uses.
const PASS: u64 = 10_000;

/// The first of [`every_call`] that gets no answer. A wrong answer fails the case.
async fn failing(cx: &Cx, store: &dyn Store, number: u64) -> Verdict<Option<(Op, Answer)>> {
    for (call, right) in every_call(number) {
        let answer = in_time(cx, store, &call).await?;
        if unanswered(&answer) {
            return Ok(Some((call, answer)));
        }
        if answer != right {
            return Err(Failure::new(
                format!("{call:?} -> {}, or a failure", right.show()),
                answer.show(),
            ));
        }
    }
    Ok(None)
}

/// Makes a call, which must end within its bound (clause TIME-1).
pub(crate) async fn in_time(cx: &Cx, store: &dyn Store, call: &Op) -> Verdict<Answer> {
    let slow = matches!(call, Op::Rekey(..) | Op::DeleteRoom(_));
    let answer = call.apply(store);
    let answered =
        if slow { cx.within_slow_bound(answer).await } else { cx.within_bound(answer).await };
    answered.map_err(|failure| Failure {
        expected: format!("{call:?}: {}", failure.expected),
        ..failure
    })
}

/// Makes these calls at the same time; each must end within its bound.
pub(crate) async fn at_once(cx: &Cx, store: &dyn Store, calls: &[Op]) -> Verdict<Vec<Answer>> {
    let answers = calls.iter().map(|call| in_time(cx, store, call));
    futures::future::join_all(answers).await.into_iter().collect()
}

/// Whether the call ended in `Timeout` or `Unavailable`.
pub(crate) fn unanswered(answer: &Answer) -> bool {
    answer.error().is_some_and(Error::outcome_unknown)
}

/// Repeats a write until its effect is sure: the store acknowledges it, or refuses it because an
/// earlier try took effect.
pub(crate) async fn achieve(store: &dyn Store, call: &Op, deadline: Instant) -> Verdict {
    loop {
        let answer = call.apply(store).await;
        if !unanswered(&answer) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let expected = format!("{call:?} to be acknowledged by most servers");
            return Err(Failure::answer(expected, &answer));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Calls `ask` at once, and then four times a second until `until`. Does not wait for an answer
/// before it asks again. Ends with the first failure, or when every question is answered.
pub(crate) async fn keep_asking<Asked>(until: Instant, ask: impl Fn() -> Asked) -> Verdict
where
    Asked: Future<Output = Verdict>,
{
    let mut pace = tokio::time::interval(Duration::from_millis(250));
    let mut asked = FuturesUnordered::new();
    loop {
        let more = Instant::now() < until;
        tokio::select! {
            _ = pace.tick(), if more => asked.push(ask()),
            Some(verdict) = asked.next() => verdict?,
            else => return Ok(()),
        }
    }
}
