//! Corrupt records: the store reports them, never skips them, and never lets in their users.

use membership::{Conflict, Decision, DenyReason, Epoch, Error, Page, Store, UserKey};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, at, encrypted, endpoint, joins_at, rekey, room, user, user_key};
use crate::model::{Answer, Op};
use crate::observe::Scope;
use crate::target::Stored;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, holds, same};

declare! { "corruption";
    a_corrupt_room_is_corrupt_to_every_method_that_reads_it: "ERR-3", needs Corruption;
    a_corrupt_room_is_not_made_again: "ERR-3" "ROOM-2", needs Corruption;
    a_corrupt_member_is_corrupt_to_every_method_that_reads_it: "ERR-3", needs Corruption;
    a_corrupt_member_is_not_added_again: "ERR-3" "MEM-2", needs Corruption;
    a_corrupt_key_is_corrupt_to_every_method_that_reads_it: "ERR-3", needs Corruption;
    a_corrupt_user_is_corrupt_to_every_method_that_reads_it: "ERR-3", needs Corruption;
    a_corrupt_user_is_not_let_in: "ERR-3" "AUTH-2", needs Corruption;
    a_corrupt_admin_is_not_let_in: "ERR-3" "AUTH-2", needs Corruption;
    a_corrupt_revoked_user_is_not_let_in: "ERR-3" "AUTH-2" "AUTH-3", needs Corruption;
    has_admin_is_corrupt_if_the_only_admin_is_corrupt: "ERR-3" "AUTH-5", needs Corruption;
    a_corrupt_only_admin_does_not_free_the_bootstrap: "ERR-3" "USER-1", needs Corruption;
    a_corrupt_admin_does_not_count_as_an_active_one: "ERR-3" "USER-4", needs Corruption;
    adding_or_revoking_does_not_repair_a_corrupt_user: "ERR-3" "USER-2" "USER-3", needs Corruption;
    an_error_about_a_corrupt_record_names_it_uniquely: "ERR-3", needs Corruption;
    a_corrupt_record_does_not_affect_other_records: "ERR-3", needs Corruption;
}

const ADMIN: UserKey = UserKey::from_bytes([0xad; 32]);
const OTHER: UserKey = UserKey::from_bytes([0xae; 32]);
const USER: UserKey = UserKey::from_bytes([0x05; 32]);
const REVOKED: UserKey = UserKey::from_bytes([0xee; 32]);

async fn set_up(store: &Client) -> Verdict {
    for id in ["r", "s"] {
        store.create_room(encrypted(id, "ann")).await?;
        store.add_member(&room(id), joins_at("bob", 1)).await?;
        store.add_member(&room(id), joins_at("cat", 1)).await?;
    }
    store.bootstrap_admin(admin(ADMIN)).await?;
    store.add_user(admin(OTHER)).await?;
    store.add_user(user(USER)).await?;
    store.add_user(user(REVOKED)).await?;
    store.revoke_user(&REVOKED, at(3)).await?;
    Ok(())
}

/// Opens a client, makes the records of [`set_up`], and corrupts `records`.
async fn corrupted(cx: &Cx, records: &[Stored]) -> Verdict<Client> {
    let store = cx.open().await?;
    set_up(&store).await?;
    for record in records {
        cx.instance().corrupt(record).await?;
    }
    Ok(store)
}

fn is_corrupt(answer: &Answer) -> bool {
    matches!(answer.error(), Some(Error::Corrupt(_)))
}

/// Every call must fail with `Corrupt`: it needs a corrupt record.
async fn all_corrupt(store: &Client, calls: Vec<Op>) -> Verdict {
    for call in calls {
        let answer = call.apply(store).await;
        holds(is_corrupt(&answer), &format!("Corrupt from {call:?}"), &answer)?;
    }
    Ok(())
}

/// Every call must return its right answer or `Corrupt`: a store may do without the corrupt record.
async fn corrupt_or(store: &Client, calls: Vec<(Op, Answer)>) -> Verdict {
    for (call, right) in calls {
        let answer = call.apply(store).await;
        if !is_corrupt(&answer) {
            same(answer, right)?;
        }
    }
    Ok(())
}

/// Makes the calls. Returns each with its answer.
async fn answers(store: &Client, calls: Vec<Op>) -> Vec<(Op, Answer)> {
    let mut answers = Vec::new();
    for call in calls {
        let answer = call.apply(store).await;
        answers.push((call, answer));
    }
    answers
}

async fn a_corrupt_room_is_corrupt_to_every_method_that_reads_it(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let (r, ann, bob) = (room("r"), endpoint("ann"), endpoint("bob"));
    let indirect = vec![
        Op::Member(r.clone(), bob.clone()),
        Op::Members(r.clone(), Page::first()),
        Op::Key(r.clone(), bob.clone(), Epoch::FIRST),
    ];
    let right = answers(&store, indirect).await;
    cx.instance().corrupt(&Stored::Room(r.clone())).await?;
    let direct = || {
        vec![
            Op::Room(r.clone()),
            Op::RoomsOf(ann.clone(), Page::first()),
            Op::RoomsOf(bob.clone(), Page::first()),
            Op::AddMember(r.clone(), joins_at("eve", 1)),
            Op::LatestKey(r.clone(), bob.clone()),
            Op::Rekey(r.clone(), rekey(1, [], ["ann", "bob", "cat"])),
        ]
    };
    all_corrupt(&store, direct()).await?;
    corrupt_or(&store, right).await?;
    // The writes above must not have repaired the record.
    all_corrupt(&store, direct()).await
}

async fn a_corrupt_room_is_not_made_again(cx: Cx) -> Verdict {
    let store = corrupted(&cx, &[Stored::Room(room("r"))]).await?;
    for again in [encrypted("r", "ann"), encrypted("r", "eve")] {
        let known = Answer::Room(Err(crate::make::room_exists("r")));
        corrupt_or(&store, vec![(Op::CreateRoom(again), known)]).await?;
        all_corrupt(&store, vec![Op::Room(room("r"))]).await?;
    }
    Ok(())
}

async fn a_corrupt_member_is_corrupt_to_every_method_that_reads_it(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let (r, bob) = (room("r"), endpoint("bob"));
    let indirect = vec![
        Op::RoomsOf(bob.clone(), Page::first()),
        Op::LatestKey(r.clone(), bob.clone()),
        Op::Key(r.clone(), bob.clone(), Epoch::FIRST),
    ];
    let right = answers(&store, indirect).await;
    cx.instance().corrupt(&Stored::Member(r.clone(), bob.clone())).await?;
    let direct = vec![
        Op::Member(r.clone(), bob.clone()),
        Op::Members(r.clone(), Page::first()),
        Op::Members(r.clone(), crate::make::page(Some(endpoint("ann")), 1)),
    ];
    all_corrupt(&store, direct).await?;
    corrupt_or(&store, right).await?;
    // The corrupt record is not on this page.
    let others = crate::make::page(Some(bob), 10);
    same(store.members(&r, others).await?.len(), 1)
}

async fn a_corrupt_member_is_not_added_again(cx: Cx) -> Verdict {
    let (r, bob) = (room("r"), endpoint("bob"));
    let store = corrupted(&cx, &[Stored::Member(r.clone(), bob.clone())]).await?;
    let known = Answer::Member(Err(crate::make::member_exists("r", "bob")));
    corrupt_or(&store, vec![(Op::AddMember(r.clone(), joins_at("bob", 1)), known)]).await?;
    all_corrupt(&store, vec![Op::Member(r, bob)]).await
}

async fn a_corrupt_key_is_corrupt_to_every_method_that_reads_it(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let (r, bob) = (room("r"), endpoint("bob"));
    let unaffected = vec![
        Op::Room(r.clone()),
        Op::Member(r.clone(), bob.clone()),
        Op::Members(r.clone(), Page::first()),
        Op::RoomsOf(bob.clone(), Page::first()),
        Op::LatestKey(r.clone(), endpoint("ann")),
    ];
    let right = answers(&store, unaffected).await;
    cx.instance().corrupt(&Stored::Key(r.clone(), bob.clone(), Epoch::FIRST)).await?;
    let direct =
        vec![Op::Key(r.clone(), bob.clone(), Epoch::FIRST), Op::LatestKey(r.clone(), bob.clone())];
    all_corrupt(&store, direct.clone()).await?;
    for (call, right) in right {
        same(call.apply(&store).await, right)?;
    }
    all_corrupt(&store, direct).await
}

async fn a_corrupt_user_is_corrupt_to_every_method_that_reads_it(cx: Cx) -> Verdict {
    let store = corrupted(&cx, &[Stored::User(USER)]).await?;
    let direct =
        vec![Op::User(USER), Op::Users(Page::first()), Op::IsAuthorized(USER), Op::IsAdmin(USER)];
    all_corrupt(&store, direct).await
}

/// The store must deny a user whose record is corrupt, with `Failed(Corrupt)` as the reason.
async fn is_not_let_in(cx: &Cx, key: UserKey) -> Verdict {
    let store = corrupted(cx, &[Stored::User(key)]).await?;
    for decision in [store.is_authorized(&key).await, store.is_admin(&key).await] {
        let corrupt = matches!(&decision, Decision::Deny(DenyReason::Failed(Error::Corrupt(_))));
        holds(corrupt, "Deny, failed: Corrupt", &decision)?;
    }
    Ok(())
}

async fn a_corrupt_user_is_not_let_in(cx: Cx) -> Verdict {
    is_not_let_in(&cx, USER).await
}

async fn a_corrupt_admin_is_not_let_in(cx: Cx) -> Verdict {
    is_not_let_in(&cx, OTHER).await
}

async fn a_corrupt_revoked_user_is_not_let_in(cx: Cx) -> Verdict {
    is_not_let_in(&cx, REVOKED).await
}

async fn has_admin_is_corrupt_if_the_only_admin_is_corrupt(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ADMIN)).await?;
    cx.instance().corrupt(&Stored::User(ADMIN)).await?;
    let answer = Answer::Bool(store.has_admin().await);
    holds(is_corrupt(&answer), "Corrupt: neither true nor false is proved", &answer)
}

async fn a_corrupt_only_admin_does_not_free_the_bootstrap(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ADMIN)).await?;
    cx.instance().corrupt(&Stored::User(ADMIN)).await?;
    for key in [OTHER, ADMIN] {
        let over = Answer::User(Err(Conflict::AdminExists.into()));
        corrupt_or(&store, vec![(Op::BootstrapAdmin(admin(key)), over)]).await?;
    }
    same(store.is_admin(&OTHER).await, Decision::Deny(DenyReason::Unknown))?;
    all_corrupt(&store, vec![Op::User(ADMIN)]).await
}

async fn a_corrupt_admin_does_not_count_as_an_active_one(cx: Cx) -> Verdict {
    let store = corrupted(&cx, &[Stored::User(OTHER)]).await?;
    let last = Answer::Done(Err(Conflict::LastAdmin.into()));
    corrupt_or(&store, vec![(Op::RevokeUser(ADMIN, at(9)), last)]).await?;
    same(store.is_admin(&ADMIN).await, Decision::Allow)
}

async fn adding_or_revoking_does_not_repair_a_corrupt_user(cx: Cx) -> Verdict {
    let store = corrupted(&cx, &[Stored::User(USER), Stored::User(REVOKED)]).await?;
    for key in [USER, REVOKED] {
        let known = Answer::User(Err(crate::make::user_exists(key)));
        let over = Answer::User(Err(Conflict::AdminExists.into()));
        let tries = vec![
            (Op::AddUser(user(key)), known.clone()),
            (Op::AddUser(admin(key)), known),
            (Op::BootstrapAdmin(admin(key)), over),
        ];
        corrupt_or(&store, tries).await?;
        all_corrupt(&store, vec![Op::RevokeUser(key, at(9))]).await?;
        all_corrupt(&store, vec![Op::User(key), Op::IsAuthorized(key), Op::IsAdmin(key)]).await?;
    }
    Ok(())
}

async fn an_error_about_a_corrupt_record_names_it_uniquely(cx: Cx) -> Verdict {
    let (r, s, bob) = (room("r"), room("s"), endpoint("bob"));
    let records = [
        (Stored::Room(r.clone()), Op::Room(r)),
        (Stored::Member(s.clone(), bob.clone()), Op::Member(s.clone(), bob.clone())),
        (
            Stored::Key(s.clone(), endpoint("cat"), Epoch::FIRST),
            Op::Key(s.clone(), endpoint("cat"), Epoch::FIRST),
        ),
        (Stored::Member(s.clone(), endpoint("cat")), Op::Member(s, endpoint("cat"))),
        (Stored::User(USER), Op::User(USER)),
        (Stored::User(OTHER), Op::User(OTHER)),
    ];
    let (stored, calls): (Vec<_>, Vec<_>) = records.into_iter().unzip();
    let store = corrupted(&cx, &stored).await?;
    let mut names: Vec<(String, String)> = Vec::new();
    for call in calls {
        let answer = call.apply(&store).await;
        let Some(Error::Corrupt(corrupt)) = answer.error() else {
            return Err(Failure::answer(format!("Corrupt from {call:?}"), &answer));
        };
        let name = (corrupt.place().to_owned(), corrupt.key().to_owned());
        holds(!name.0.is_empty(), "the bucket or table", &answer)?;
        holds(!name.1.is_empty(), "the key", &answer)?;
        holds(!names.contains(&name), "a name that no other record has", &answer)?;
        names.push(name);
    }
    Ok(())
}

async fn a_corrupt_record_does_not_affect_other_records(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    // The endpoints dan and eve are in no room whose records are corrupted.
    store.create_room(encrypted("t", "dan")).await?;
    store.add_member(&room("t"), joins_at("eve", 1)).await?;
    let scope = Scope::new(&["t"], &["dan", "eve"]);
    let before = scope.observe(&store).await?;
    let bob = endpoint("bob");
    for record in [
        Stored::Room(room("r")),
        Stored::Member(room("s"), bob.clone()),
        Stored::Key(room("s"), bob, Epoch::FIRST),
    ] {
        cx.instance().corrupt(&record).await?;
        scope.observe(&store).await?.unchanged_since(&before)?;
    }
    cx.instance().corrupt(&Stored::User(REVOKED)).await?;
    same(store.is_authorized(&USER).await, Decision::Allow)?;
    same(store.is_admin(&ADMIN).await, Decision::Allow)?;
    same(store.add_user(user(user_key(7))).await?, user(user_key(7)).user())?;
    store.rekey(&room("t"), rekey(1, [], ["dan", "eve"])).await?;
    Ok(())
}
