//! Data that go back in time, are replaced, vanish, or are served by an older server or library.
//!
//! Each case fills a store, has clients read everything, harms the data under the open clients, and
//! opens another client that goes on writing. Every answer of the earlier clients must be right by
//! the data that are then there (the present data), or a failure.

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
/// A user that is revoked after the harm.
const USER: UserKey = UserKey::from_bytes([0x05; 32]);
/// A user that was revoked before the data were copied.
const REVOKED: UserKey = UserKey::from_bytes([0xee; 32]);
/// A user whose revocation may be lost.
const BACK: UserKey = UserKey::from_bytes([0xba; 32]);
/// A user whose record may be lost.
const LOST: UserKey = UserKey::from_bytes([0x10; 32]);
/// An admin whose record may be lost.
const LOST_ADMIN: UserKey = UserKey::from_bytes([0x1a; 32]);
const EVERYBODY: [UserKey; 6] = [ADMIN, USER, REVOKED, BACK, LOST, LOST_ADMIN];

/// How many users are added after the harm: more than there are writes that may be lost, so that
/// the log of a store grows past its former end.
const MORE: u64 = 12;

/// The writes before the data are copied.
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

/// The writes after the copy and before the harm: they may be lost.
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

/// The writes after the harm: more than may have been lost, and some of them under ids of lost
/// records. The keys of an epoch differ from those that the lost history had for it.
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

/// Both decisions on each of [`EVERYBODY`], and on the first and the last user of [`afterwards`].
fn decisions() -> Vec<Op> {
    let known = EVERYBODY.into_iter().chain([0, MORE - 1].map(user_number));
    known.flat_map(|key| [Op::IsAuthorized(key), Op::IsAdmin(key)]).collect()
}

/// Every other read, of all records that these cases write.
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

/// What the case knows of the present data.
enum Truth {
    /// The case knows everything: the data are those of the model.
    Known(Box<Model>),
    /// The case knows only the answers of a client that was opened after the harm. These count as right.
    AsOpened,
    /// The case knows only the writes that were acknowledged after the harm.
    Nothing,
}

impl Truth {
    /// Returns the right answers to these calls while nobody writes; `None` if the case does not know them.
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

/// Whether the call failed as clause PAST-1 allows: `Timeout`, `Unavailable` or `Corrupt`.
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

/// Opens a client. Opening may fail until the failover time is over.
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

/// Repeats these calls until all of them are answered, at most for the failover time.
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

/// Repeats a write until its outcome is known. The answer must be the model's. Only the answer to a
/// retry may differ, since an earlier try may have taken effect.
async fn write(cx: &Cx, store: &Client, model: Option<&mut Model>, call: &Op) -> Verdict {
    surely(cx, store, model, call, false).await
}

/// As [`write()`], for a write that may have been made before if `tried` is true.
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

/// Makes a write on `client`, which was opened before the harm. The answer must be right by the
/// present data, or a failure. After a failure `opened` repeats the write, so that its outcome is
/// known.
async fn right_or_failed(
    cx: &Cx,
    client: &Client,
    opened: &Client,
    model: &mut Model,
    call: &Op,
) -> Verdict {
    let answer = in_time(cx, client, call).await?;
    if failed(&answer) {
        // Whether the first try or the second takes effect, the data are the same afterwards.
        return surely(cx, opened, Some(model), call, true).await;
    }
    let right = model.apply(call);
    let expected = format!("{} -> {}, or a failure", call.show(), right.show());
    holds(answer == right, &expected, &answer)
}

/// Repeats the calls until all answers are right, at most for the failover time. Before that, each
/// answer must be right or a failure. With `may_fail`, all calls may still fail after that time.
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

/// Clients of data that were harmed.
struct Scene {
    cx: Cx,
    /// Opened before the harm, and asked after every write.
    asked: Vec<Client>,
    /// Opened before the harm, and not asked again until the end.
    idle: Vec<Client>,
    /// Opened after the harm.
    opened: Client,
    truth: Truth,
    /// The calls that the clients make.
    calls: Vec<Op>,
    /// How stale the decisions of the clients that were opened before the harm may be.
    bound: Duration,
}

impl Scene {
    /// Asks the clients in `asked`. Their answers must be right by the present data, or failures. Asks nothing if the
    /// case does not know the right answers.
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

    /// Makes more writes than can have been lost; after each of them checks [`Self::asked_fit`].
    async fn goes_on(&mut self) -> Verdict {
        for call in afterwards(self.truth.model().as_deref()) {
            write(&self.cx, &self.opened, self.truth.model(), &call).await?;
            self.asked_fit().await?;
        }
        Ok(())
    }

    /// The clients that were opened before the harm must be right again by themselves, or fail.
    /// Those in `idle` are asked for the first time since the harm.
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

/// Makes these writes on the store and on the model.
async fn fill(cx: &Cx, writer: &Client, model: &mut Model, calls: &[Op]) -> Verdict {
    for call in calls {
        write(cx, writer, Some(model), call).await?;
    }
    Ok(())
}

/// Each of these clients must give the model's answers.
async fn all_know(cx: &Cx, clients: &[&Client], model: &Model, calls: &[Op]) -> Verdict {
    let right: Vec<_> = calls.iter().map(|call| model.clone().apply(call)).collect();
    let each = clients.iter().map(|client| comes_right(cx, client, calls, &right, false));
    futures::future::try_join_all(each).await?;
    Ok(())
}

/// Returns those ways of a target that a case is about. Fails if there are none: the target claims to have some, and a
/// case that tries none shows nothing.
fn some<Way>(ways: impl Iterator<Item = Way>) -> Verdict<Vec<Way>> {
    let ways: Vec<_> = ways.collect();
    holds(!ways.is_empty(), "a way to do what the target claims, for this case", &ways.len())?;
    Ok(ways)
}
