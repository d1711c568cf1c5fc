//! The past comes back: data that go back, are replaced, vanish, or are served by something older.
//!
//! The cases of a kind share one course: a store is filled, clients get to know it, something happens to
//! the data under them, and a client that is opened afterwards goes on writing. What the others answer
//! must be right by the data that are there, or a failure.

pub(super) mod older;
pub(super) mod replaced;
pub(super) mod rewound;
pub(super) mod vanished;

use std::time::{Duration, Instant};

use membership::{Decision, Error, NewUser, Page, UserKey};

use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, epoch, joins, joins_at, label, plain, rekey, room, user,
    user_number,
};
use crate::model::{Answer, Model, Op};
use crate::replicated::{at_once, in_time, unanswered};
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, holds};

const ADMIN: UserKey = UserKey::from_bytes([0xad; 32]);
/// Somebody who is revoked when the data have gone back.
const USER: UserKey = UserKey::from_bytes([0x05; 32]);
/// Somebody who was revoked before anything happened.
const REVOKED: UserKey = UserKey::from_bytes([0xee; 32]);
/// Somebody whose revocation is lost.
const BACK: UserKey = UserKey::from_bytes([0xba; 32]);
/// Somebody who is known only in what is lost.
const LOST: UserKey = UserKey::from_bytes([0x10; 32]);
/// The same, an admin.
const LOST_ADMIN: UserKey = UserKey::from_bytes([0x1a; 32]);
const EVERYBODY: [UserKey; 6] = [ADMIN, USER, REVOKED, BACK, LOST, LOST_ADMIN];

/// More users than the cases lose writes, each of which may take a place of its own in a log.
const MORE: u64 = 12;

/// What the store holds when its data are remembered.
fn first() -> Vec<Op> {
    vec![
        Op::BootstrapAdmin(admin(ADMIN)),
        Op::AddUser(user(USER)),
        Op::AddUser(user(BACK)),
        Op::AddUser(admin(REVOKED)),
        Op::RevokeUser(REVOKED, at(3)),
        Op::CreateRoom(encrypted("e", "ann")),
        Op::AddMember(room("e"), joins_at("bob", 1)),
        Op::CreateRoom(plain("p", "ann")),
        Op::AddMember(room("p"), joins("bob")),
        Op::CreateRoom(plain("d", "dan")),
    ]
}

/// What is written then, and may be lost.
fn then() -> Vec<Op> {
    vec![
        Op::AddUser(user(LOST)),
        Op::AddUser(admin(LOST_ADMIN)),
        Op::RevokeUser(BACK, at(4)),
        Op::AddMember(room("e"), joins_at("cat", 1)),
        Op::Rekey(room("e"), rekey(1, ["bob"], ["ann", "cat"])),
        Op::CreateRoom(encrypted("lost", "eve")),
        Op::RemoveMember(room("p"), endpoint("bob")),
        Op::DeleteRoom(room("d")),
    ]
}

/// What is written afterwards, under ids that may have been in use: more than may have been lost. The
/// keys of an epoch are not those that another history had for it.
fn afterwards(model: Option<&Model>) -> Vec<Op> {
    let more = |number| NewUser { label: label("more"), ..user(user_number(number)) };
    let mut all = vec![
        Op::RevokeUser(USER, at(5)),
        Op::CreateRoom(plain("lost", "zoe")),
        Op::RemoveMember(room("p"), endpoint("bob")),
    ];
    if let Some(model) = model {
        let from = model.epoch_of(&room("e")).map_or(1, membership::Epoch::get);
        let keys = model.endpoints_in(&room("e")).into_iter();
        let keys = keys.map(|who| (who.clone(), crate::make::sealed(format!("anew {who}"))));
        all.extend(
            membership::Rekey::new(epoch(from), [], keys).map(|rekey| Op::Rekey(room("e"), rekey)),
        );
        all.push(Op::AddMember(room("e"), joins_at("fay", from + 1)));
    }
    all.extend((0..MORE).map(|number| Op::AddUser(more(number))));
    all
}

/// Whether each of [`EVERYBODY`] gets in, as a user and as an admin, and some of [`MORE`].
fn decisions() -> Vec<Op> {
    let known = EVERYBODY.into_iter().chain([0, MORE - 1].map(user_number));
    known.flat_map(|key| [Op::IsAuthorized(key), Op::IsAdmin(key)]).collect()
}

/// Every other call that asks, about all that is written anywhere here.
fn reads() -> Vec<Op> {
    let mut all = vec![Op::HasAdmin, Op::Users(Page::first())];
    all.extend(EVERYBODY.map(Op::User));
    for id in ["e", "p", "d", "lost"] {
        all.push(Op::Room(room(id)));
        all.push(Op::Members(room(id), Page::first()));
    }
    for who in ["ann", "bob", "cat", "dan", "eve", "fay", "zoe"] {
        all.push(Op::RoomsOf(endpoint(who), Page::first()));
        all.push(Op::Member(room("e"), endpoint(who)));
        all.push(Op::LatestKey(room("e"), endpoint(who)));
        all.extend([1, 2].map(|number| Op::Key(room("e"), endpoint(who), epoch(number))));
    }
    all
}

/// What is sure of the data.
enum Truth {
    /// All of it.
    Known(Box<Model>),
    /// What a client says that was opened afterwards: nobody else knows.
    AsOpened,
    /// Only what was acknowledged afterwards.
    Nothing,
}

impl Truth {
    /// The right answers to these calls, if there are any: while nobody writes.
    async fn about(&self, cx: &Cx, opened: &Client, calls: &[Op]) -> Verdict<Option<Vec<Answer>>> {
        match self {
            Self::Known(model) => {
                Ok(Some(calls.iter().map(|call| model.as_ref().clone().apply(call)).collect()))
            }
            Self::AsOpened => answered(cx, opened, calls).await.map(Some),
            Self::Nothing => Ok(None),
        }
    }

    fn model(&mut self) -> Option<&mut Model> {
        match self {
            Self::Known(model) => Some(model),
            Self::AsOpened | Self::Nothing => None,
        }
    }
}

/// A failure that says so: the call has no answer, or the record is damaged.
fn failed(answer: &Answer) -> bool {
    unanswered(answer) || matches!(answer.error(), Some(Error::Corrupt(_)))
}

/// Whether an answer is right, or a failure; a decision may also deny.
fn fits(answer: &Answer, right: &Answer) -> bool {
    let denies = matches!(answer, Answer::Decision(decision) if *decision != Decision::Allow);
    answer == right || failed(answer) || denies
}

/// Each answer must be right, or a failure; a decision may also deny.
fn all_fit(calls: &[Op], answers: &[Answer], right: &[Answer]) -> Verdict {
    for ((call, answer), right) in calls.iter().zip(answers).zip(right) {
        let expected = format!("{} -> {}, or a failure", call.show(), right.show());
        holds(fits(answer, right), &expected, answer)?;
    }
    Ok(())
}

/// Opens a client, which may fail for as long as what serves the data comes back.
async fn opens(cx: &Cx) -> Verdict<Client> {
    let deadline = Instant::now() + cx.target().failover();
    loop {
        match cx.open().await {
            Err(_) if Instant::now() < deadline => pause().await,
            opened => return opened,
        }
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// The answers to these calls, once none of them is without one.
async fn answered(cx: &Cx, store: &Client, calls: &[Op]) -> Verdict<Vec<Answer>> {
    let deadline = Instant::now() + cx.target().failover();
    loop {
        let answers = at_once(cx, &*store.unrecorded(), calls).await?;
        let Some(none) = answers.iter().position(unanswered) else { return Ok(answers) };
        if Instant::now() > deadline {
            let (call, answer) = (calls.get(none), answers.get(none));
            let expected = format!("{call:?} to be answered after the failover time");
            return Err(Failure::answer(expected, &answer));
        }
        pause().await;
    }
}

/// Makes a write until what became of it is sure. It must be answered as the model says; where it was
/// tried before, it may be refused for what it did itself.
async fn write(cx: &Cx, store: &Client, model: Option<&mut Model>, call: &Op) -> Verdict {
    surely(cx, store, model, call, false).await
}

/// The same, of a write that was `tried` before.
async fn surely(
    cx: &Cx,
    store: &Client,
    model: Option<&mut Model>,
    call: &Op,
    mut tried: bool,
) -> Verdict {
    let deadline = Instant::now() + cx.target().failover();
    let answer = loop {
        let answer = in_time(cx, store, call).await?;
        if !unanswered(&answer) {
            break answer;
        }
        if Instant::now() > deadline {
            let expected = format!("{} to be answered after the failover time", call.show());
            return Err(Failure::answer(expected, &answer));
        }
        tried = true;
        pause().await;
    };
    let Some(model) = model else { return Ok(()) };
    let right = model.apply(call);
    holds(tried || answer == right, &format!("{} -> {}", call.show(), right.show()), &answer)
}

/// Makes a write on a client that was opened before; it must be answered by the data that are there, or fail.
/// Where it fails, another client makes it, so that it is known what became of it.
async fn right_or_failed(
    cx: &Cx,
    client: &Client,
    opened: &Client,
    model: &mut Model,
    call: &Op,
) -> Verdict {
    let answer = in_time(cx, client, call).await?;
    if failed(&answer) {
        // It may have been made, or be made now: what it is about is there, or not, in either case.
        return surely(cx, opened, Some(model), call, true).await;
    }
    let right = model.apply(call);
    let expected = format!("{} -> {}, or a failure", call.show(), right.show());
    holds(answer == right, &expected, &answer)
}

/// Asks until all is right, or until the failover time is over and, where that may be, all fails. What
/// is answered before must be right, too, or a failure.
async fn comes_right(
    cx: &Cx,
    store: &Client,
    calls: &[Op],
    right: &[Answer],
    may_fail: bool,
) -> Verdict {
    let deadline = Instant::now() + cx.target().failover();
    loop {
        let answers = at_once(cx, &*store.unrecorded(), calls).await?;
        all_fit(calls, &answers, right)?;
        let wrong = calls.iter().zip(&answers).zip(right).find(|((_, is), right)| is != right);
        let Some(((call, answer), right)) = wrong else { return Ok(()) };
        if Instant::now() > deadline {
            let expected = format!("{} -> {} after the failover time", call.show(), right.show());
            let or = if may_fail { ", or every call to fail" } else { "" };
            let given_up = may_fail && answers.iter().all(failed);
            return holds(given_up, &format!("{expected}{or}"), answer);
        }
        pause().await;
    }
}

/// Clients of data to which something happened.
struct Scene {
    cx: Cx,
    /// Opened before, and asked after every step.
    asked: Vec<Client>,
    /// Opened before, and not asked again until the end.
    idle: Vec<Client>,
    /// Opened afterwards.
    opened: Client,
    truth: Truth,
    /// What the clients are asked.
    calls: Vec<Op>,
    /// How much the decisions of those that were opened before may be out of date.
    bound: Duration,
}

impl Scene {
    /// Right by what is there now, as soon as that is sure, or a failure.
    async fn asked_fit(&self) -> Verdict {
        let Some(right) = self.truth.about(&self.cx, &self.opened, &self.calls).await? else {
            return Ok(());
        };
        tokio::time::sleep(self.bound).await;
        for client in &self.asked {
            let answers = at_once(&self.cx, &*client.unrecorded(), &self.calls).await?;
            all_fit(&self.calls, &answers, &right)?;
        }
        Ok(())
    }

    /// Goes on writing until more is written than can have been lost; after each step the clients that
    /// are asked must fit.
    async fn goes_on(&mut self) -> Verdict {
        for call in afterwards(self.truth.model().as_deref()) {
            write(&self.cx, &self.opened, self.truth.model(), &call).await?;
            self.asked_fit().await?;
        }
        Ok(())
    }

    /// Those that were opened before must be right again by themselves, or fail; who was not asked since is
    /// first asked now.
    async fn ends_right(&self) -> Verdict {
        let Some(right) = self.truth.about(&self.cx, &self.opened, &self.calls).await? else {
            return Ok(());
        };
        tokio::time::sleep(self.bound).await;
        let old = self.idle.iter().chain(&self.asked);
        let old = old.map(|client| comes_right(&self.cx, client, &self.calls, &right, true));
        futures::future::try_join_all(old).await?;
        Ok(())
    }
}

/// Fills the store; every client must get to know it.
async fn fill(cx: &Cx, writer: &Client, model: &mut Model, calls: &[Op]) -> Verdict {
    for call in calls {
        write(cx, writer, Some(model), call).await?;
    }
    Ok(())
}

/// Each of these must know all that is there.
async fn all_know(cx: &Cx, clients: &[&Client], model: &Model, calls: &[Op]) -> Verdict {
    let right: Vec<_> = calls.iter().map(|call| model.clone().apply(call)).collect();
    let each = clients.iter().map(|client| comes_right(cx, client, calls, &right, false));
    futures::future::try_join_all(each).await?;
    Ok(())
}

/// The ways of a target, of which there must be some.
fn some<Way: Copy>(ways: &[Way]) -> Verdict<Vec<Way>> {
    holds(!ways.is_empty(), "a way to do what the target claims", &ways.len())?;
    Ok(ways.to_vec())
}
