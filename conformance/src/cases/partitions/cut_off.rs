//! Clients of a server that is cut off, while the other servers go on.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use membership::{Conflict, Decision, Epoch, Error, Page, Room, RoomId, Store, UserKey};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, joins_at, member_exists, no_member, no_room, no_user, plain,
    rekey, room, room_exists, stale, user, user_key,
};
use crate::model::{Answer, Op};
use crate::replicated::{achieve, each, heal_and_work, in_time, keep_asking, lead_all, servers};
use crate::scene::{crew, open_crew};
use crate::show::Show;
use crate::target::Harm;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict};

declare! { "partitions";
    a_cut_off_server_denies_users_that_the_others_revoked: "AUTH-3" "LIN-1", needs Replicas;
    a_cut_off_server_returns_no_stale_records:
        "LIN-1" "ROOM-4" "MEM-3" "KEY-3" "LIST-1" "USER-5", needs Replicas;
    a_cut_off_server_refuses_no_write_for_a_stale_reason:
        "LIN-1" "ERR-2" "ROOM-2" "KEY-5" "USER-4", needs Replicas;
}

/// How long a client asks the server that is cut off. In experiments a former leader gave stale
/// answers for 8 s after the cut, and a follower until the cut ended. One refusal came 20 s after
/// the cut.
const CUT: Duration = Duration::from_secs(15);

/// The role of the cut-off server before the cut.
#[derive(Clone, Copy, Debug)]
enum Was {
    /// The server led every part of the data.
    Leader,
    /// The server led no part.
    Follower,
}

/// Calls that the majority answers while a server is cut off, and the answers that are stale
/// afterwards.
struct Change {
    /// Made one after the other.
    calls: Vec<Op>,
    over: Vec<Over>,
}

/// A call after the change, and which answers to it are stale.
struct Over {
    call: Op,
    stale: Box<dyn Fn(&Answer) -> bool + Send + Sync>,
    /// The right answer, in words.
    expected: &'static str,
}

impl Change {
    fn new(calls: impl IntoIterator<Item = Op>) -> Self {
        Self { calls: calls.into_iter().collect(), over: Vec::new() }
    }

    /// After the change, no answer to `call` may be `stale`.
    fn then(
        mut self,
        call: Op,
        expected: &'static str,
        stale: impl Fn(&Answer) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.over.push(Over { call, stale: Box::new(stale), expected });
        self
    }

    /// After the change, `call` must not fail with `refusal`.
    fn then_not(self, call: Op, expected: &'static str, refusal: Error) -> Self {
        self.then(call, expected, move |answer| answer.error() == Some(&refusal))
    }
}

/// Cuts server 0 off and makes each change on another server. As soon as a change is acknowledged,
/// a client of server 0 makes the calls in [`Change::over`]: no answer may be stale. The reads are
/// made once more when the cut is healed.
async fn cut_off(
    cx: &Cx,
    set_up: fn(&Client) -> futures::future::BoxFuture<'_, Verdict>,
    changes: fn() -> Vec<Change>,
) -> Verdict {
    each(cx, &[Was::Leader, Was::Follower], move |cx, was| async move {
        let there = cx.open_at(1).await?;
        let here = cx.open_at(0).await?;
        set_up(&there).await?;
        lead_all(&cx, usize::from(matches!(was, Was::Follower))).await?;
        // The client of server 0 has read everything once, as a client in use has.
        let changes = changes();
        for over in changes.iter().flat_map(|change| &change.over).filter(|o| !o.call.is_write()) {
            let answer = in_time(&cx, &here, &over.call).await?;
            if !(over.stale)(&answer) {
                let expected = format!("{:?} to answer as before any change", over.call);
                return Err(Failure::answer(expected, &answer));
            }
        }
        let servers = servers(&cx)?;
        servers.harm(0, Harm::Isolate).await?;
        let cut = Instant::now();
        let watched = changes.iter().map(|change| watch(&cx, &here, &there, change, cut));
        futures::future::try_join_all(watched).await?;
        heal_and_work(&cx, &*here.unrecorded(), 1000).await?;
        for over in changes.iter().flat_map(|change| &change.over).filter(|o| !o.call.is_write()) {
            let answer = in_time(&cx, &here, &over.call).await?;
            if (over.stale)(&answer) {
                return Err(Failure::new(
                    over.expected,
                    format!("{}, after the cut was healed", answer.show()),
                ));
            }
        }
        Ok(())
    })
    .await
}

async fn watch(cx: &Cx, here: &Client, there: &Client, change: &Change, cut: Instant) -> Verdict {
    let happened = OnceLock::new();
    let by = cut + servers(cx)?.failover();
    let make = async {
        for call in &change.calls {
            achieve(there, call, by).await?;
        }
        let _ = happened.set(Instant::now());
        Ok(())
    };
    let here = here.unrecorded();
    let asked = change.over.iter().map(|question| {
        let (here, happened) = (&here, &happened);
        keep_asking(cut + CUT, move || async move {
            let began = Instant::now();
            let answer = question.call.apply(&**here);
            // A write is only made after the change: until then its refusal is right.
            if happened.get().is_none() && question.call.is_write() {
                return Ok(());
            }
            let known = happened.get().copied();
            // A deletion may take ten times the deadline. So the test drops the deletion instead of
            // waiting for it.
            let ended = tokio::time::timeout_at((cut + CUT + cx.bound()).into(), answer).await;
            let Ok(answer) = ended else { return Ok(()) };
            match known {
                Some(known) if (question.stale)(&answer) => Err(Failure::new(
                    question.expected,
                    format!(
                        "{:?} -> {}, asked {:?} after the others acknowledged the change and {:?} \
                         after the cut",
                        question.call,
                        answer.show(),
                        began.duration_since(known),
                        began.duration_since(cut),
                    ),
                )),
                _ => Ok(()),
            }
        })
    });
    let (done, asked) = futures::join!(make, futures::future::try_join_all(asked));
    asked?;
    done
}

const ADMIN: UserKey = UserKey::from_bytes([0xad; 32]);

async fn people(store: &Client) -> Verdict {
    store.bootstrap_admin(admin(ADMIN)).await?;
    for byte in 1..=4 {
        store.add_user(user(user_key(byte))).await?;
    }
    store.add_user(admin(user_key(5))).await?;
    Ok(())
}

async fn a_cut_off_server_denies_users_that_the_others_revoked(cx: Cx) -> Verdict {
    cut_off(
        &cx,
        |store| Box::pin(people(store)),
        || {
            let allows = |answer: &Answer| *answer == Answer::Decision(Decision::Allow);
            let expected = "no Allow for a user who was revoked";
            let users = (1..=4).map(user_key).map(|key| {
                Change::new([Op::RevokeUser(key, at(3))]).then(
                    Op::IsAuthorized(key),
                    expected,
                    allows,
                )
            });
            let key = user_key(5);
            let admins = Change::new([Op::RevokeUser(key, at(3))])
                .then(Op::IsAuthorized(key), expected, allows)
                .then(Op::IsAdmin(key), "no Allow for an admin who was revoked", allows);
            users.chain([admins]).collect()
        },
    )
    .await
}

async fn rooms(store: &Client) -> Verdict {
    people(store).await?;
    crew(store, "gone", &["ann", "bob"]).await?;
    crew(store, "left", &["ann", "bob", "eve"]).await?;
    crew(store, "rekeyed", &["ann", "bob", "cat"]).await?;
    open_crew(store, "joined", &["ann"]).await?;
    Ok(())
}

fn found(answer: &Answer) -> bool {
    answer.error().is_none()
}

/// Whether the answer lists a room for which `which` is true.
fn lists(answer: &Answer, which: impl Fn(&Room) -> bool) -> bool {
    matches!(answer, Answer::Rooms(Ok(rooms)) if rooms.iter().any(which))
}

fn rooms_of(who: &str) -> Op {
    Op::RoomsOf(endpoint(who), Page::first())
}

fn members(id: &RoomId) -> Op {
    Op::Members(id.clone(), Page::first())
}

async fn a_cut_off_server_returns_no_stale_records(cx: Cx) -> Verdict {
    cut_off(
        &cx,
        |store| Box::pin(rooms(store)),
        || vec![deleted(), removed(), rekeyed(), joined(), added(), marked()],
    )
    .await
}

fn deleted() -> Change {
    let (id, ann) = (room("gone"), endpoint("ann"));
    let expected = "nothing of a room that was deleted";
    Change::new([Op::DeleteRoom(id.clone())])
        .then(Op::Room(id.clone()), expected, found)
        .then(Op::Member(id.clone(), ann.clone()), expected, found)
        .then(members(&id), expected, found)
        .then(Op::Key(id.clone(), ann.clone(), Epoch::FIRST), expected, found)
        .then(Op::LatestKey(id, ann), expected, found)
        .then(rooms_of("ann"), expected, |answer| lists(answer, |r| r.id == room("gone")))
}

fn removed() -> Change {
    let (id, eve) = (room("left"), endpoint("eve"));
    let expected = "no membership and no key of a member who was removed";
    Change::new([Op::RemoveMember(id.clone(), eve.clone())])
        .then(Op::Member(id.clone(), eve.clone()), expected, found)
        .then(Op::Key(id.clone(), eve.clone(), Epoch::FIRST), expected, found)
        .then(Op::LatestKey(id.clone(), eve), expected, found)
        .then(members(&id), expected, |answer| {
            matches!(answer, Answer::Members(Ok(all)) if all.iter().any(|m| m.endpoint.as_str() == "eve"))
        })
        .then(rooms_of("eve"), expected, |answer| lists(answer, |r| r.id == room("left")))
}

fn rekeyed() -> Change {
    let (id, ann) = (room("rekeyed"), endpoint("ann"));
    let expected = "the epoch that the room was moved to";
    Change::new([Op::Rekey(id.clone(), rekey(1, ["cat"], ["ann", "bob"]))])
        .then(
            Op::Room(id.clone()),
            expected,
            |answer| matches!(answer, Answer::Room(Ok(room)) if room.epoch == Epoch::FIRST),
        )
        .then(
            Op::LatestKey(id.clone(), ann),
            expected,
            |answer| matches!(answer, Answer::Key(Ok(key)) if key.epoch == Epoch::FIRST),
        )
        .then(Op::LatestKey(id, endpoint("cat")), "no key of a member who was removed", found)
        .then(rooms_of("bob"), expected, |answer| {
            lists(answer, |r| r.id == room("rekeyed") && r.epoch == Epoch::FIRST)
        })
}

fn joined() -> Change {
    let id = room("joined");
    let expected = "the member who was added";
    let call = Op::AddMember(id.clone(), crate::make::joins("zed"));
    Change::new([call])
        .then(Op::Member(id.clone(), endpoint("zed")), expected, |answer| {
            answer.error() == Some(&no_member("joined", "zed"))
        })
        .then(
            members(&id),
            expected,
            |answer| matches!(answer, Answer::Members(Ok(all)) if all.len() == 1),
        )
        .then(
            rooms_of("zed"),
            expected,
            |answer| matches!(answer, Answer::Rooms(Ok(rooms)) if rooms.is_empty()),
        )
}

fn added() -> Change {
    let key = user_key(9);
    let expected = "the user who was added";
    Change::new([Op::AddUser(user(key)), Op::CreateRoom(plain("new", "ann"))])
        .then(Op::User(key), expected, move |answer| answer.error() == Some(&no_user(key)))
        .then(Op::IsAuthorized(key), expected, |answer| {
            matches!(answer, Answer::Decision(Decision::Deny(membership::DenyReason::Unknown)))
        })
        .then(Op::Users(Page::first()), expected, move |answer| {
            matches!(answer, Answer::Users(Ok(all)) if all.iter().all(|user| user.key != key))
        })
        .then(Op::Room(room("new")), "the room that was made", |answer| {
            answer.error() == Some(&no_room("new"))
        })
}

fn marked() -> Change {
    let key = user_key(4);
    let expected = "the user as revoked";
    Change::new([Op::RevokeUser(key, at(3))])
        .then(
            Op::User(key),
            expected,
            |answer| matches!(answer, Answer::User(Ok(user)) if !user.revoked),
        )
        .then(Op::Users(Page::first()), expected, move |answer| {
            matches!(answer, Answer::Users(Ok(all)) if all.iter().any(|u| u.key == key && !u.revoked))
        })
}

async fn refusals(store: &Client) -> Verdict {
    store.bootstrap_admin(admin(ADMIN)).await?;
    store.create_room(plain("again", "ann")).await?;
    crew(store, "ahead", &["ann"]).await?;
    store.create_room(plain("kind", "ann")).await?;
    crew(store, "fewer", &["ann", "bob"]).await?;
    crew(store, "more", &["ann"]).await?;
    Ok(())
}

async fn a_cut_off_server_refuses_no_write_for_a_stale_reason(cx: Cx) -> Verdict {
    cut_off(
        &cx,
        |store| Box::pin(refusals(store)),
        || {
            let second = user_key(2);
            vec![
                Change::new([Op::DeleteRoom(room("again"))]).then_not(
                    Op::CreateRoom(plain("again", "bob")),
                    "no AlreadyExists of a room that was deleted",
                    room_exists("again"),
                ),
                Change::new([Op::Rekey(room("ahead"), rekey(1, [], ["ann"]))])
                    .then_not(
                        Op::Rekey(room("ahead"), rekey(2, [], ["ann"])),
                        "no StaleEpoch with a former epoch",
                        stale(1),
                    )
                    .then_not(
                        Op::AddMember(room("ahead"), joins_at("bob", 2)),
                        "no StaleEpoch with a former epoch",
                        stale(1),
                    ),
                Change::new([
                    Op::DeleteRoom(room("kind")),
                    Op::CreateRoom(encrypted("kind", "ann")),
                ])
                .then_not(
                    Op::AddMember(room("kind"), joins_at("bob", 1)),
                    "no Conflict with the kind of a room that was deleted",
                    Conflict::RoomUnencrypted.into(),
                ),
                Change::new([Op::RemoveMember(room("fewer"), endpoint("bob"))]).then_not(
                    Op::AddMember(room("fewer"), joins_at("bob", 1)),
                    "no AlreadyExists of a member who was removed",
                    member_exists("fewer", "bob"),
                ),
                Change::new([Op::AddMember(room("more"), joins_at("bob", 1))]).then_not(
                    Op::RemoveMember(room("more"), endpoint("bob")),
                    "no NotFound of a member who was added",
                    no_member("more", "bob"),
                ),
                Change::new([Op::CreateRoom(plain("new", "ann"))]).then_not(
                    Op::DeleteRoom(room("new")),
                    "no NotFound of a room that was made",
                    no_room("new"),
                ),
                Change::new([Op::AddUser(admin(second))])
                    .then_not(
                        Op::RevokeUser(ADMIN, at(3)),
                        "no Conflict over the last admin, since there is another",
                        Conflict::LastAdmin.into(),
                    )
                    .then_not(
                        Op::RevokeUser(second, at(3)),
                        "no NotFound of a user who was added",
                        no_user(second),
                    ),
            ]
        },
    )
    .await
}
