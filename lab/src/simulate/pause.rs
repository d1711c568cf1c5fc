//! Pauses: every kind of call, held before each of its exchanges with the servers.
//!
//! A client may be paused at any moment and for any time, also between a read and the write that
//! relies on it. While a call is held, another client makes whole calls and collects their garbage;
//! then the held call goes on. The calls made meanwhile undo one another, so that what was read
//! looks the same again: a member leaves and comes back, a room is deleted and created again (the
//! ABA problem of compare-and-set).
//!
//! A client may also be paused after a compare-and-set that was stored, although the client heard
//! of a refusal or got no answer. Or it may be paused while a compare-and-set is in flight for
//! longer than the client waits. Other clients may have changed what the client wrote by the time
//! it goes on. The servers work, so the client must still find out the outcome of its write.
//!
//! The servers may be killed meanwhile, and start again with what they had stored on disk.
//!
//! One order of all calls must explain all answers (clause LIN-1), and afterwards every member must
//! have its keys (KEY-1).

use std::pin::pin;
use std::time::Duration;

use futures::future::maybe_done;
use membership::{
    Blow, JetStreamDefect, JetStreamStore, Misheard, Page, Simulation, Store, Weather,
};

use super::calls::{Call, REPLICAS, SERVERS, Start, begin, few_views, look, open, reads, writes};
use super::run::{everywhere, sum};
use super::world::{alone, shown};
use membership_conformance::history::{History, Recorder, check};
use membership_conformance::make::{
    admin, at, encrypted, endpoint, joins, joins_at, plain, rekey, room, user, user_key,
};
use membership_conformance::model::Op;

/// Calls that another client makes while a call is held.
#[derive(Clone, Debug)]
pub struct Meanwhile {
    /// What the calls do, in words.
    pub name: &'static str,
    ops: Vec<Op>,
    start: Start,
}

/// Every sequence of calls that is made while a call is held, with the data before it.
#[must_use]
pub fn meanwhile() -> Vec<Meanwhile> {
    let ops = || room("ops");
    let full = |name, ops| Meanwhile { name, ops, start: Start::Full };
    let bare = |name, ops| Meanwhile { name, ops, start: Start::NoUsers };
    let bob_goes = || Op::RemoveMember(ops(), endpoint("bob"));
    let dan_comes = || Op::AddMember(ops(), joins_at("dan", 2));
    vec![
        full("bob goes and comes back", vec![bob_goes(), Op::AddMember(ops(), joins_at("bob", 2))]),
        full("dan comes back", vec![dan_comes()]),
        full(
            "dan comes back and goes",
            vec![dan_comes(), Op::RemoveMember(ops(), endpoint("dan"))],
        ),
        full(
            "eve comes, goes, and comes back",
            vec![
                Op::AddMember(ops(), joins_at("eve", 2)),
                Op::RemoveMember(ops(), endpoint("eve")),
                Op::AddMember(ops(), joins_at("eve", 2)),
            ],
        ),
        full("a rekey", vec![Op::Rekey(ops(), rekey(2, [], ["ann", "bob", "cat"]))]),
        full(
            "a rekey removes bob, who comes back",
            vec![
                Op::Rekey(ops(), rekey(2, ["bob"], ["ann", "cat"])),
                Op::AddMember(ops(), joins_at("bob", 3)),
            ],
        ),
        full(
            "the room is deleted and made again as it was",
            vec![
                Op::DeleteRoom(ops()),
                Op::CreateRoom(encrypted("ops", "ann")),
                Op::AddMember(ops(), joins_at("bob", 1)),
                Op::AddMember(ops(), joins_at("cat", 1)),
                Op::Rekey(ops(), rekey(1, [], ["ann", "bob", "cat"])),
            ],
        ),
        full("the room is deleted", vec![Op::DeleteRoom(ops())]),
        full(
            "others look, and make the room twice",
            vec![
                Op::Room(ops()),
                Op::RoomsOf(endpoint("ann"), Page::first()),
                Op::CreateRoom(plain("ops", "ann")),
                Op::DeleteRoom(ops()),
                Op::CreateRoom(plain("ops", "bob")),
            ],
        ),
        full(
            "eve comes, and the room is deleted",
            vec![Op::AddMember(ops(), joins_at("eve", 2)), Op::DeleteRoom(ops())],
        ),
        full(
            "rooms come and go",
            vec![
                Op::CreateRoom(plain("new", "cat")),
                Op::CreateRoom(encrypted("gone", "bob")),
                Op::DeleteRoom(room("new")),
                Op::DeleteRoom(room("gone")),
            ],
        ),
        full(
            "users come and go",
            vec![
                Op::AddUser(admin(user_key(9))),
                Op::RevokeUser(user_key(3), at(6)),
                Op::RevokeUser(user_key(9), at(6)),
            ],
        ),
        full("the other admin goes", vec![Op::RevokeUser(user_key(2), at(6))]),
        bare("a user comes", vec![Op::AddUser(user(user_key(1)))]),
        bare("an admin comes", vec![Op::BootstrapAdmin(admin(user_key(2)))]),
    ]
}

/// Every kind of call with each [`Meanwhile`] that begins with the same data.
#[must_use]
pub fn pairs() -> Vec<(Call, Meanwhile)> {
    let all = writes().into_iter().chain(reads());
    let pairs = all.flat_map(|call| meanwhile().into_iter().map(move |ops| (call.clone(), ops)));
    pairs.filter(|(call, ops)| call.start == ops.start).collect()
}

/// How a call is held.
#[derive(Clone, Copy, Debug)]
enum How {
    /// The client is held before an exchange.
    Plainly,
    /// The client is held before an exchange, and goes on after all servers were killed and started
    /// again.
    ///
    /// Each bucket has one replica, so no other server has what a killed one forgets.
    UntilKilled,
    /// The client is held after a compare-and-set, of whose outcome it hears something wrong, or
    /// nothing.
    Mishearing(Misheard),
}

impl How {
    /// The ways to hold this call. Only a write makes a compare-and-set that it can mishear.
    fn all(call: &Call) -> impl Iterator<Item = Self> {
        let all = [
            Self::Plainly,
            Self::UntilKilled,
            Self::Mishearing(Misheard::Refused),
            Self::Mishearing(Misheard::Unanswered),
            Self::Mishearing(Misheard::Late),
        ];
        let hears = call.op.is_write();
        all.into_iter().filter(move |how| hears || !matches!(how, Self::Mishearing(_)))
    }

    /// Holds the client after this many exchanges, or compare-and-sets.
    fn hold(self, client: &JetStreamStore, after: u32) {
        match self {
            Self::Plainly | Self::UntilKilled => client.hold_after(after),
            Self::Mishearing(as_if) => client.mishear_after(after, as_if),
        }
    }

    /// How many replicas each bucket has.
    fn replicas(self) -> u8 {
        if matches!(self, Self::UntilKilled) { 1 } else { REPLICAS }
    }
}

/// Holds `call` in each of its places, in each way, and makes the calls of `ops` meanwhile.
///
/// All clients have `defect`, if one is given. Returns how many places there are.
///
/// # Errors
/// Returns what is wrong, and where the call was held.
pub fn hold_everywhere(
    call: &Call,
    ops: &Meanwhile,
    defect: Option<JetStreamDefect>,
    seed: u64,
) -> Result<u64, String> {
    How::all(call)
        .map(|how| {
            everywhere(
                |after| Pause { call, ops, defect, how, after, seed }.play(),
                |after, problem| {
                    let (name, meanwhile) = (call.name, ops.name);
                    format!("{name:?}, held after {after} ({how:?}) while {meanwhile}: {problem}")
                },
            )
        })
        .sum()
}

/// [`hold_everywhere`] for many calls, on several threads.
///
/// # Errors
/// As [`hold_everywhere`]: returns the first error that any thread meets.
pub fn hold_all(all: Vec<(Call, Meanwhile)>, seed: u64, jobs: usize) -> Result<u64, String> {
    sum(all, jobs, |(call, ops)| hold_everywhere(call, ops, None, seed))
}

/// Holds a listing of an endpoint's rooms while the endpoint moves from one room to another.
///
/// The addition to the new room is held before one of its exchanges, then the listing before one of
/// its own. After that the addition ends, the endpoint leaves its former room, and the listing goes
/// on. The endpoint is in at least one of the two rooms at every moment, so the listing must show
/// one (clauses LIST-2, LIST-4).
///
/// Every pair of places is tried twice. The second time only one exchange of the addition is late,
/// and later ones overtake it.
///
/// All clients have `defect`, if one is given. Returns how many pairs of places there are.
///
/// # Errors
/// Returns what is wrong, and where the two calls were held.
pub fn hold_a_move(defect: Option<JetStreamDefect>, seed: u64) -> Result<u64, String> {
    Ok(hold_a_move_by(JetStreamStore::hold_after, defect, seed)?
        + hold_a_move_by(JetStreamStore::hold_one_after, defect, seed)?)
}

fn hold_a_move_by(
    hold: fn(&JetStreamStore, u32),
    defect: Option<JetStreamDefect>,
    seed: u64,
) -> Result<u64, String> {
    let mut pairs = 0;
    let hold_both = |adds| {
        for reads in 0.. {
            let delay = |joining: &JetStreamStore| hold(joining, adds);
            let (added, read) = play_a_move(delay, defect, reads, seed)
                .map_err(|problem| format!("a listing after {reads}: {problem}"))?;
            if !added {
                return Ok(false);
            }
            pairs += 1;
            if !read {
                break;
            }
        }
        Ok(true)
    };
    everywhere(hold_both, |adds, problem| {
        format!("an addition held after {adds} exchanges, {problem}")
    })?;
    Ok(pairs)
}

/// Plays and judges one pair of places. Returns whether the addition, and the listing, was held.
fn play_a_move(
    delay: impl Fn(&JetStreamStore),
    defect: Option<JetStreamDefect>,
    reads: u32,
    seed: u64,
) -> Result<(bool, bool), String> {
    let (held, history) = alone(async || {
        let simulation = simulation(defect, seed);
        let start = begin(&simulation, Start::Full, REPLICAS).await?;
        let recorder = Recorder::new();
        let (joining, mover) = (
            open(&simulation, "joining", REPLICAS).await?,
            open(&simulation, "mover", REPLICAS).await?,
        );
        let reader = open(&simulation, "reader", REPLICAS).await?;
        let eve = || endpoint("eve");
        recorder.call(2, &mover, Op::AddMember(room("other"), joins("eve"))).await;

        delay(&joining);
        let addition = Op::AddMember(room("ops"), joins_at("eve", 2));
        let mut addition = pin!(maybe_done(recorder.call(1, &joining, addition)));
        let added = before(&mut addition, joining.held()).await;
        // Exchanges that overtake the held one arrive now.
        tokio::time::sleep(Duration::from_millis(20)).await;
        reader.hold_after(reads);
        let mut list =
            pin!(maybe_done(recorder.call(3, &reader, Op::RoomsOf(eve(), Page::first()))));
        let read = before(&mut list, reader.held()).await;
        tokio::join!(list, async {
            joining.let_go();
            addition.await;
            recorder.call(2, &mover, Op::RemoveMember(room("other"), eve())).await;
            reader.let_go();
        });
        Ok::<_, String>(((added, read), History { start, ..recorder.history() }))
    })?;
    check(&history).map_err(|violation| shown(&violation))?;
    Ok(held)
}

/// Calls whose answers say that a room is gone, once it is.
fn tellers() -> [Op; 4] {
    let ops = || room("ops");
    [
        Op::Room(ops()),
        Op::RoomsOf(endpoint("bob"), Page::first()),
        Op::DeleteRoom(ops()),
        Op::CreateRoom(plain("ops", "eve")),
    ]
}

/// Holds the deletion of a room before each of its exchanges, while others ask for the room.
///
/// The answer to one client says whether the room is gone. Then another client asks, and replicas
/// that are far behind answer. If the room was gone by the first answer, the second must not show
/// it (clause LIN-1).
///
/// All clients have `defect`, if one is given. Returns how many places there are.
///
/// # Errors
/// Returns what is wrong, and where the deletion was held.
pub fn hold_a_deletion(defect: Option<JetStreamDefect>, seed: u64) -> Result<u64, String> {
    // Which replica answers depends on the seed, so each call is tried with eight seeds.
    let all =
        tellers().into_iter().flat_map(|teller| (seed..seed + 8).map(move |n| (teller.clone(), n)));
    all.map(|(teller, seed)| {
        everywhere(
            |after| play_a_deletion(defect, &teller, after, seed),
            |after, problem| format!("held after {after}, {teller:?}: {problem}"),
        )
    })
    .sum()
}

/// Plays and judges one place. Returns whether the deletion was held at all.
fn play_a_deletion(
    defect: Option<JetStreamDefect>,
    teller: &Op,
    after: u32,
    seed: u64,
) -> Result<bool, String> {
    let (held, history) = alone(async || {
        let simulation = simulation(defect, seed);
        let start = begin(&simulation, Start::Full, REPLICAS).await?;
        let recorder = Recorder::new();
        let deleter = open(&simulation, "deleter", REPLICAS).await?;
        let other = open(&simulation, "other", REPLICAS).await?;
        let behind = open(&simulation, "behind", REPLICAS).await?;
        simulation.strike(Blow::Weather(Weather { lag: 5_000, ..Weather::CALM }));
        deleter.hold_after(after);
        let mut deletion =
            pin!(maybe_done(recorder.call(1, &deleter, Op::DeleteRoom(room("ops")))));
        let held = before(&mut deletion, deleter.held()).await;
        tokio::join!(deletion, async {
            recorder.call(2, &other, teller.clone()).await;
            for op in [Op::Room(room("ops")), Op::LatestKey(room("ops"), endpoint("bob"))] {
                recorder.call(3, &behind, op).await;
            }
            deleter.let_go();
        });
        Ok::<_, String>((held, History { start, ..recorder.history() }))
    })?;
    check(&history).map_err(|violation| shown(&violation))?;
    Ok(held)
}

/// Returns whether the client is held before the call ends.
async fn before(call: impl Future, held: impl Future) -> bool {
    tokio::select! {
        biased;
        _ = held => true,
        _ = call => false,
    }
}

fn simulation(defect: Option<JetStreamDefect>, seed: u64) -> Simulation {
    let simulation = Simulation::new(seed, SERVERS, Weather::CALM);
    match defect {
        Some(defect) => simulation.with_defect(defect),
        None => simulation,
    }
}

struct Pause<'a> {
    call: &'a Call,
    ops: &'a Meanwhile,
    defect: Option<JetStreamDefect>,
    how: How,
    /// How many exchanges, or compare-and-sets, the client makes before it is held.
    after: u32,
    seed: u64,
}

impl Pause<'_> {
    /// Plays and judges one place. Returns whether the call has such a place.
    fn play(&self) -> Result<bool, String> {
        // Most places pass, so a place is played with a trace only after it has failed.
        let played = alone(async || self.run(false).await);
        let played = played.or_else(|_| alone(async || self.run(true).await));
        let Some(history) = played? else { return Ok(false) };
        check(&history).map_err(|violation| shown(&violation))?;
        Ok(true)
    }

    async fn run(&self, traced: bool) -> Result<Option<History>, String> {
        let simulation = simulation(self.defect, self.seed);
        if traced {
            simulation.keep_trace();
        }
        let replicas = self.how.replicas();
        let start = begin(&simulation, self.call.start, replicas).await?;
        let recorder = Recorder::new();
        let (held, other) = (
            open(&simulation, "held", replicas).await?,
            open(&simulation, "other", replicas).await?,
        );
        self.how.hold(&held, self.after);
        let mut call = pin!(maybe_done(recorder.call(1, &held, self.call.op.clone())));
        // A client that misheard may end its call without another exchange, so it is never held.
        if !before(&mut call, held.held()).await && !held.has_misheard() {
            return Ok(None);
        }
        tokio::join!(call.as_mut(), async {
            for op in &self.ops.ops {
                recorder.call(2, &other, op.clone()).await;
            }
            // Closing waits until the garbage of these calls is collected, or its deadline passes.
            let _ = other.close().await;
            if let How::UntilKilled = self.how {
                for server in 0..SERVERS {
                    simulation.strike(Blow::Kill(server));
                    simulation.strike(Blow::Start(server));
                }
            }
            held.let_go();
        });
        let answer = call.take_output();
        if let (How::Mishearing(_), Some(error)) =
            (self.how, answer.as_ref().and_then(|answer| answer.error()))
            && error.outcome_unknown()
        {
            return Err(format!(
                "every server works, but the answer is {error}\n{}",
                simulation.trace()
            ));
        }
        let _ = held.close().await;
        let fresh = open(&simulation, "fresh", replicas).await?;
        look(&recorder, 3, &fresh, &few_views(4)).await;
        Ok(Some(History { start, ..recorder.history() }))
    }
}
