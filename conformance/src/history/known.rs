//! Tests of the check, shrinking and the picture, on histories that are known to be linearizable or
//! not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::{Error, Page};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rstest::rstest;

use super::{Call, Caller, History, Mix, Reason, Says, Scene, check, picture, shrink};
use crate::make::{
    admin, at, at_epoch, encrypted, endpoint, joins, joins_at, member_of, no_member, plain, rekey,
    room, stale, user, user_exists, user_key,
};
use crate::model::{Answer, Model, Op};

/// The moments at which a call began and returned; `None` if it never returned.
type Span = (u64, Option<u64>);

fn call(client: usize, (began, ended): Span, op: Op, answer: Answer) -> Call {
    Call { client, op, began, ended: ended.map(|at| (at, answer)) }
}

fn history(calls: impl IntoIterator<Item = Call>) -> History {
    History { calls: calls.into_iter().collect(), ..History::default() }
}

/// Calls one after the other, with the model's answers; each begins at an even moment.
fn sequence(ops: &[Op]) -> Vec<Call> {
    let mut model = Model::new();
    let made = |(op, n): (&Op, u64)| call(0, (2 * n, Some(2 * n + 1)), op.clone(), model.apply(op));
    ops.iter().zip(0..).map(made).collect()
}

/// A user who is revoked from 100 to 110, and `is_authorized` in the span `asked` with `answer`.
fn revoked_then(asked: Span, answer: Answer) -> History {
    let key = user_key(1);
    let mut calls = sequence(&[Op::AddUser(user(key))]);
    let done = Answer::Done(Ok(()));
    calls.push(call(1, (100, Some(110)), Op::RevokeUser(key, at(3)), done));
    calls.push(call(2, asked, Op::IsAuthorized(key), answer));
    history(calls)
}

fn allow() -> Answer {
    Answer::Decision(membership::Decision::Allow)
}

#[rstest]
#[case::before((90, Some(95)), true)]
#[case::while_it_lasts((105, Some(130)), true)]
#[case::from_its_last_moment_on((110, Some(130)), true)]
#[case::after((111, Some(130)), false)]
fn an_allow_is_stale_exactly_when_it_begins_after_the_revocation_returned(
    #[case] asked: Span,
    #[case] good: bool,
) {
    let history = revoked_then(asked, allow());
    assert_eq!(check(&history).is_ok(), good, "{:?}", check(&history));
}

/// Two rekeys from epoch 1: one wins, from 100 to 110; the other has this span and answer.
fn two_rekeys(other: Span, answer: Answer) -> History {
    let mut calls = sequence(&[Op::CreateRoom(encrypted("r", "ann"))]);
    let won = at_epoch(&encrypted("r", "ann").room(), 2);
    let op = Op::Rekey(room("r"), rekey(1, [], ["ann"]));
    calls.push(call(1, (100, Some(110)), op.clone(), Answer::Room(Ok(won))));
    calls.push(call(2, other, op, answer));
    history(calls)
}

#[rstest]
#[case::at_once((105, Some(120)), true)]
#[case::later((120, Some(130)), true)]
#[case::before_the_other_began((90, Some(99)), false)]
fn a_rekey_loses_only_to_one_that_may_precede_it(#[case] other: Span, #[case] good: bool) {
    assert_eq!(check(&two_rekeys(other, Answer::Room(Err(stale(2))))).is_ok(), good);
}

#[test]
fn two_rekeys_from_one_epoch_do_not_both_win() {
    let won = at_epoch(&encrypted("r", "ann").room(), 2);
    let twice = two_rekeys((105, Some(120)), Answer::Room(Ok(won)));
    let violation = check(&twice).unwrap_err();
    assert_eq!(violation.reason, Reason::NoOrder(2));
}

#[rstest]
#[case::seen((120, Some(130)), true, true)]
#[case::lost((120, Some(130)), false, false)]
#[case::not_yet((105, Some(130)), false, true)]
fn a_read_after_an_addition_finds_the_member(
    #[case] asked: Span,
    #[case] found: bool,
    #[case] good: bool,
) {
    let mut calls = sequence(&[Op::CreateRoom(encrypted("r", "ann"))]);
    let bob = member_of("r", "bob", 1);
    let added = Answer::Member(Ok(bob.clone()));
    let add = Op::AddMember(room("r"), joins_at("bob", 1));
    calls.push(call(1, (100, Some(110)), add, added));
    let answer = if found { Ok(bob) } else { Err(no_member("r", "bob")) };
    let ask = Op::Member(room("r"), endpoint("bob"));
    calls.push(call(2, asked, ask, Answer::Member(answer)));
    assert_eq!(check(&history(calls)).is_ok(), good);
}

#[rstest]
#[case::one_after_the_other((120, Some(130)), (140, Some(150)), true)]
#[case::at_once((120, Some(150)), (140, Some(150)), true)]
#[case::first_both_then_one((160, Some(170)), (140, Some(150)), false)]
fn a_listing_shows_several_rooms_at_one_moment(
    #[case] sees_one: Span,
    #[case] sees_both: Span,
    #[case] good: bool,
) {
    // Each room by itself is linearizable, whatever the listings show: they overlap its creation.
    let (a, b) = (plain("a", "ann"), plain("b", "ann"));
    let made = |id: usize, new: &membership::NewRoom| {
        let answer = Answer::Room(Ok(new.room()));
        call(id, (100, Some(200)), Op::CreateRoom(new.clone()), answer)
    };
    let list = Op::RoomsOf(endpoint("ann"), Page::first());
    let one = Answer::Rooms(Ok(vec![a.room()]));
    let both = Answer::Rooms(Ok(vec![a.room(), b.room()]));
    let listed = [call(3, sees_one, list.clone(), one), call(4, sees_both, list, both)];
    let history = history([made(1, &a), made(2, &b)].into_iter().chain(listed));
    assert_eq!(check(&history).is_ok(), good);
}

#[test]
fn two_listings_do_not_see_two_changes_in_different_orders() {
    let (a, b) = (plain("a", "ann"), plain("b", "ann"));
    let list = |client, seen: &membership::NewRoom| {
        let answer = Answer::Rooms(Ok(vec![seen.room()]));
        call(client, (100, Some(200)), Op::RoomsOf(endpoint("ann"), Page::first()), answer)
    };
    let make = |client, new: &membership::NewRoom| {
        let answer = Answer::Room(Ok(new.room()));
        call(client, (100, Some(200)), Op::CreateRoom(new.clone()), answer)
    };
    let all = [make(1, &a), make(2, &b), list(3, &a), list(4, &b)];
    assert!(check(&history(all.clone())).is_err());
    assert!(check(&history(all.into_iter().take(3))).is_ok());
}

/// An addition of a user with unknown outcome, and then what `is_authorized` found at 20 and at 30.
fn perhaps_added(ended: Option<u64>, found: [bool; 2]) -> History {
    let key = user_key(1);
    let late = Answer::User(Err(Error::Timeout));
    let mut calls = vec![call(1, (0, ended), Op::AddUser(user(key)), late)];
    for (began, found) in [20, 30].into_iter().zip(found) {
        let unknown = membership::Decision::Deny(membership::DenyReason::Unknown);
        let answer = if found { allow() } else { Answer::Decision(unknown) };
        calls.push(call(2, (began, Some(began + 1)), Op::IsAuthorized(key), answer));
    }
    history(calls)
}

#[rstest]
fn a_write_with_unknown_outcome_happens_later_or_never_and_is_not_undone(
    #[values(None, Some(10))] ended: Option<u64>,
    #[values([true, true], [false, true], [false, false], [true, false])] found: [bool; 2],
) {
    assert_eq!(check(&perhaps_added(ended, found)).is_ok(), found != [true, false]);
}

#[test]
fn a_write_with_unknown_outcome_that_was_seen_stays() {
    let key = user_key(1);
    let late = Answer::User(Err(Error::Timeout));
    let gone = Answer::Decision(membership::Decision::Deny(membership::DenyReason::Unknown));
    let answers = [allow(), gone];
    let asked = (20..).step_by(10).zip(answers);
    let asked = asked.map(|(n, a)| call(2, (n, Some(n + 1)), Op::IsAuthorized(key), a));
    let add = call(1, (0, Some(10)), Op::AddUser(user(key)), late);
    assert!(check(&history([add].into_iter().chain(asked))).is_err());
}

#[rstest]
#[case::for_nothing(Answer::User(Err(user_exists(user_key(1)))))]
#[case::with_corruption(Answer::User(Err(Error::corrupt("users", "1", "made up"))))]
fn a_write_is_refused_only_with_the_models_error(#[case] answer: Answer) {
    let add = call(1, (0, Some(10)), Op::AddUser(user(user_key(1))), answer);
    assert_eq!(check(&history([add])).unwrap_err().reason, Reason::NoOrder(0));
}

#[test]
fn failed_reads_and_calls_of_a_closed_client_prove_nothing() {
    let failed = |error: Error| {
        let decision = membership::Decision::from(error.clone());
        [
            call(1, (0, Some(1)), Op::HasAdmin, Answer::Bool(Err(error))),
            call(1, (2, Some(3)), Op::IsAuthorized(user_key(1)), Answer::Decision(decision)),
        ]
    };
    let calls = [Error::Timeout, Error::unavailable("down"), Error::Closed].map(failed);
    assert!(calls.iter().flatten().all(|call| call.says() == Says::Nothing));
    let closed = Answer::User(Err(Error::Closed));
    let closed = call(1, (0, Some(1)), Op::AddUser(user(user_key(1))), closed);
    assert_eq!(closed.says(), Says::Nothing);
    assert!(check(&history(calls.into_iter().flatten())).is_ok());
}

#[rstest]
#[case::others_come_first(true)]
#[case::nobody_else_makes_one(false)]
fn a_bootstrap_is_refused_only_after_another_admin_was_made(#[case] other: bool) {
    let conflict = Answer::User(Err(membership::Conflict::AdminExists.into()));
    let mut calls = vec![call(1, (0, Some(9)), Op::BootstrapAdmin(admin(user_key(1))), conflict)];
    if other {
        let made = admin(user_key(2));
        let answer = Answer::User(Ok(made.user()));
        calls.push(call(2, (5, Some(8)), Op::AddUser(made), answer));
    }
    assert_eq!(check(&history(calls)).is_ok(), other);
}

/// A history of a perfect store: each call takes effect at one moment while it lasts. Of a hundred
/// calls, `unknown` end in `Timeout`; some of these take effect later.
pub(super) fn perfect(seed: u64, mix: Mix, clients: usize, calls: usize, unknown: u32) -> History {
    enum At {
        Idle,
        Begun(usize),
        Done(usize, Answer),
    }
    let scene = Arc::new(Scene::new(200));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut callers: Vec<_> =
        (0..).take(clients).map(|n| (Caller::new(seed, n, mix, &scene), At::Idle)).collect();
    let (mut model, mut history) = (Model::new(), History::default());
    let mut late: Vec<Op> = Vec::new();
    for now in 0.. {
        if rng.random_range(0..20) == 0
            && let Some(op) = late.pop()
        {
            model.apply(&op);
        }
        let who = rng.random_range(0..clients);
        let Some((caller, at)) = callers.get_mut(who) else { break };
        *at = match std::mem::replace(at, At::Idle) {
            At::Idle if history.calls.len() == calls => break,
            At::Idle => {
                let op = caller.next_call();
                history.calls.push(Call { client: who, op, began: now, ended: None });
                At::Begun(history.calls.len() - 1)
            }
            At::Begun(number) => {
                let Some(call) = history.calls.get_mut(number) else { break };
                let lost = rng.random_range(0..100) < unknown;
                match call.op.fails_with(Error::Timeout).filter(|_| lost) {
                    Some(answer) => {
                        late.extend((now % 3 != 0).then(|| call.op.clone()));
                        At::Done(number, answer)
                    }
                    None => At::Done(number, model.apply(&call.op)),
                }
            }
            At::Done(number, answer) => {
                let Some(call) = history.calls.get_mut(number) else { break };
                scene.learn(&call.op, &answer);
                call.ended = Some((now, answer));
                At::Idle
            }
        };
    }
    history
}

/// Whether some order explains every answer, by trying every order.
fn every_order(model: &Model, left: &[&Call]) -> bool {
    let sure = |call: &&&Call| call.says() != Says::Perhaps;
    if !left.iter().any(|call| sure(&call)) {
        return true;
    }
    left.iter().enumerate().any(|(at, call)| {
        let earlier = |other: &&&Call| {
            let ended = other.ended.as_ref().is_some_and(|(ended, _)| *ended < call.began);
            ended && sure(other)
        };
        if left.iter().any(|other| earlier(&other)) {
            return false;
        }
        let mut after = model.clone();
        let answer = after.apply(&call.op);
        let fits = !sure(&call) || call.ended.as_ref().is_some_and(|(_, given)| *given == answer);
        let mut rest = left.to_vec();
        rest.remove(at);
        fits && every_order(&after, &rest)
    })
}

#[rstest]
fn the_search_agrees_with_trying_every_order(
    #[values(Mix::Rooms, Mix::Lists, Mix::Users, Mix::All)] mix: Mix,
) {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..400 {
        let mut history = perfect(seed, mix, 3, 40, 15);
        // Take a few calls from the middle. Some of their answers fit no order: the start has the
        // earlier calls in the order of their beginnings, and the last call may end too early.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut model = Model::new();
        let from = rng.random_range(0..30);
        for call in history.calls.drain(..from) {
            model.apply(&call.op);
        }
        history.start = model;
        history.calls.truncate(7);
        history.calls.retain(|call| call.says() != Says::Nothing);
        if rng.random_range(0..3) == 0
            && let Some(call) = history.calls.last_mut()
            && let Some((ended, _)) = &mut call.ended
        {
            *ended = call.began;
        }
        let left: Vec<_> = history.calls.iter().collect();
        let expected = every_order(&history.start, &left);
        if expected {
            good += 1;
        } else {
            bad += 1;
        }
        assert_eq!(check(&history).is_ok(), expected, "seed {seed}: {history:#?}");
    }
    assert!(good > 40 && bad > 40, "{good} good and {bad} bad ones show little");
}

#[rstest]
#[case(Mix::Rooms, 4, 400, 0)]
#[case(Mix::Rooms, 16, 400, 2)]
#[case(Mix::Lists, 8, 400, 1)]
#[case(Mix::Users, 16, 400, 2)]
#[case(Mix::All, 16, 600, 2)]
fn histories_of_a_perfect_store_are_found_linearizable_within_seconds(
    #[case] mix: Mix,
    #[case] clients: usize,
    #[case] calls: usize,
    #[case] unknown: u32,
) {
    let began = Instant::now();
    for seed in 0..5 {
        let history = perfect(seed, mix, clients, calls, unknown);
        if let Err(violation) = check(&history) {
            panic!("seed {seed}: {violation}: {violation:#?}");
        }
    }
    // The limit is generous, for slow machines and unoptimized builds.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// Plays a history with one wrong answer of `is_authorized`. Returns it if the answer makes it not
/// linearizable.
fn spoiled(seed: u64) -> Option<History> {
    let mut history = perfect(seed, Mix::All, 8, 400, 1);
    let asks = |call: &&mut Call| matches!(call.op, Op::IsAuthorized(_));
    let spoilt = history.calls.iter_mut().filter(asks).nth(10)?;
    let (_, answer) = spoilt.ended.as_mut()?;
    let denied = membership::Decision::Deny(membership::DenyReason::Revoked);
    *answer = if *answer == allow() { Answer::Decision(denied) } else { allow() };
    check(&history).is_err().then_some(history)
}

#[test]
fn a_violation_shrinks_to_few_of_its_calls_and_stays_a_violation() {
    let mut tried = 0;
    for (seed, history) in (0..20).filter_map(|seed| Some((seed, spoiled(seed)?))) {
        let violation = shrink(*check(&history).unwrap_err());
        let least = &violation.witness;
        assert!(check(least).is_err(), "seed {seed}");
        assert!(least.calls.len() <= 12, "seed {seed}: {}", picture(&violation));
        for call in &least.calls {
            let same = |other: &&Call| other.began == call.began && other.op == call.op;
            let whole = history.calls.iter().find(same).unwrap();
            assert!(call.ended == whole.ended || call.ended.is_none(), "seed {seed}: {call:?}");
        }
        tried += 1;
    }
    assert!(tried > 5, "only {tried} histories were spoiled");
}

/// Shrinking keeps a state that the whole history can reach, and every write on which the right
/// answer depends.
#[rstest]
fn a_shrunk_violation_is_linearizable_once_the_wrong_answer_is_corrected(
    #[values(Mix::Rooms, Mix::Lists, Mix::Users, Mix::All)] mix: Mix,
) {
    let mut mended = 0;
    for seed in 0..300 {
        let good = perfect(seed, mix, 4, 60, 20);
        let mut history = good.clone();
        // Give the answer of one read to another read.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The answer is not given to `users`: there the answer decides which users its page
        // touches, so the partition by object would change, too.
        let asks = |call: &&Call| call.says() == Says::Seen && !matches!(call.op, Op::Users(_));
        let seen: Vec<_> = good.calls.iter().filter(asks).collect();
        let one = seen[rng.random_range(0..seen.len())];
        let (_, answer) = one.ended.as_ref().unwrap();
        let other = |call: &&mut Call| {
            let given = call.ended.as_ref().map(|(_, given)| given);
            call.op == one.op && call.says() == Says::Seen && given != Some(answer)
        };
        let Some(wrong) = history.calls.iter_mut().rfind(other) else { continue };
        wrong.ended.as_mut().unwrap().1.clone_from(answer);
        let began = wrong.began;

        let Err(violation) = check(&history) else { continue };
        let mut left = shrink(*violation);
        let Reason::NoOrder(number) = left.reason else { panic!("seed {seed}: {left}") };
        let spoilt = &mut left.witness.calls[number];
        if spoilt.began == began {
            let right = good.calls.iter().find(|call| call.began == began).unwrap();
            spoilt.ended.clone_from(&right.ended);
            assert_eq!(check(&left.witness), Ok(()), "seed {seed}: {}", picture(&left));
            mended += 1;
        }
    }
    assert!(mended > 20, "only {mended} were found by the wrong answer");
}

/// Calls that never return are pending throughout, so at no moment do all orders lead to one state.
/// But there is a state from which all others follow by linearizing pending calls. Shrinking can
/// start from that state, so the last calls alone show the violation.
#[test]
fn shrinking_drops_past_calls_beside_calls_that_never_return() {
    let mut ops = vec![Op::CreateRoom(plain("r", "ann"))];
    for _ in 0..30 {
        let bob = endpoint("bob");
        ops.extend([Op::AddMember(room("r"), joins("bob")), Op::RemoveMember(room("r"), bob)]);
    }
    // A pending call may have taken effect earlier, and these calls may undo it.
    ops.extend([Op::DeleteRoom(room("r")), Op::CreateRoom(plain("r", "ann"))]);
    let mut calls = sequence(&ops);
    let never = [
        Op::AddMember(room("r"), joins("carl")),
        Op::DeleteRoom(room("r")),
        Op::RemoveMember(room("r"), endpoint("bob")),
    ];
    let lost = |(op, client): (Op, usize)| call(client, (0, None), op, Answer::Done(Ok(())));
    calls.extend(never.into_iter().zip(1..).map(lost));
    let there = Answer::Member(Ok(member_of("r", "bob", 0)));
    calls.push(call(4, (200, Some(201)), Op::Member(room("r"), endpoint("bob")), there));
    let violation = shrink(*check(&history(calls)).unwrap_err());
    assert!(violation.witness.calls.len() <= 5, "{}", picture(&violation));
}

#[test]
fn a_history_survives_serialization() {
    for seed in 0..5 {
        let mut history = perfect(seed, Mix::All, 8, 400, 10);
        history.start = Model::new();
        for op in [Op::CreateRoom(encrypted("r", "ann")), Op::AddUser(admin(user_key(1)))] {
            history.start.apply(&op);
        }
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history, "seed {seed}");
    }
}

#[test]
fn the_picture_shows_each_clients_calls_over_time() {
    let violation = shrink(*check(&revoked_then((111, Some(130)), allow())).unwrap_err());
    let key = user_key(1);
    let expected = format!(
        "\
before     user {key} \"user\", added at 1 ms
client 1   ├─1┤
client 2         ├2✗┤
        1  revoke_user({key}, at 3 ms) -> done
        2  is_authorized({key}) -> Allow   ✗ no order explains this
"
    );
    assert_eq!(picture(&violation), expected);
}
