//! Thousands of records, calls and clients, where other cases use a few.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use membership::{
    Ciphertext, Decision, DenyReason, EndpointId, Epoch, NewMember, NewRoom, Page, Rekey, Store,
};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, encrypted, endpoint, epoch, joins, joins_at, key_of, no_key, plain, rekey, room, sealed,
    user, user_number,
};
use crate::observe;
use crate::scene::crew;
use crate::together::together;
use crate::verdict::{Failure, Verdict, fails, holds, same};

declare! { "scale";
    a_rekey_may_remove_a_thousand_members: "KEY-5" "MEM-3" "KEY-1";
    a_rekey_may_carry_a_megabyte_of_keys: "KEY-5" "TYPE-1" "LIST-1";
    thousands_of_users_are_listed_completely: "LIST-1" "USER-5";
    thousands_of_members_are_listed_completely: "LIST-1" "KEY-1";
    a_room_of_thousands_is_left_one_by_one: "MEM-3" "LIST-1" "TIME-1";
    rooms_are_listed_while_their_member_joins_more: "LIST-2" "LIN-1" "TIME-1";
    hundreds_of_writes_in_flight_all_take_effect: "LIN-1" "ERR-2";
    answers_stay_right_over_many_calls: "AUTH-1" "AUTH-3" "LIN-1";
    each_of_a_thousand_clients_sees_every_earlier_write: "LIN-1" "AUTH-3", needs Clients;
}

const REVOKED: Decision = Decision::Deny(DenyReason::Revoked);

/// `most` for a target as fast as memory; fewer for a slower one, but at least `least`.
fn scaled(cx: &Cx, most: u64, least: u64) -> u64 {
    cx.rounds(most).max(least)
}

fn names(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("m{number:05}")).collect()
}

/// Adds all of these endpoints to the encrypted room, at epoch 1.
async fn all_join(store: &Arc<dyn Store>, id: &str, names: &[String]) -> Verdict {
    let adding = names.iter().map(|who| {
        let store = Arc::clone(store);
        async move { Ok(store.add_member(&room(id), joins_at(who, 1)).await?) }
    });
    together(adding).await.map(drop)
}

async fn a_rekey_may_remove_a_thousand_members(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let all = names(scaled(&cx, 1_200, 140));
    crew(&*store, "r", &["ann"]).await?;
    all_join(&store, "r", &all).await?;
    // One of every 150 stays: the rekey removes more than a thousand members, or on a slow target
    // more than a hundred.
    let (stay, go): (Vec<_>, Vec<_>) =
        all.iter().map(String::as_str).enumerate().partition(|(number, _)| number % 150 == 7);
    let stay: Vec<_> = stay.into_iter().map(|(_, who)| who).chain(["ann"]).collect();
    let go: Vec<_> = go.into_iter().map(|(_, who)| who).collect();
    let moved = store.rekey(&room("r"), rekey(1, go.iter().copied(), stay.iter().copied())).await?;
    same(moved.epoch, epoch(2))?;
    let left = observe::members(&*store, &room("r")).await?;
    let left: BTreeSet<_> = left.into_iter().map(|member| member.endpoint).collect();
    let expected: BTreeSet<_> = stay.iter().map(|who| endpoint(who)).collect();
    let over: Vec<_> = left.symmetric_difference(&expected).cloned().collect();
    holds(over.is_empty(), "exactly the members that were not removed", &over)?;
    let gone = go.into_iter().map(|who| {
        let store = Arc::clone(&store);
        async move {
            let who_ = endpoint(who);
            fails(store.latest_key(&room("r"), &who_).await, &no_key("r", who, None))?;
            fails(store.key(&room("r"), &who_, Epoch::FIRST).await, &no_key("r", who, 1))?;
            same(store.rooms_of(&who_, Page::first()).await?, vec![])
        }
    });
    together(gone).await?;
    for who in stay {
        let key = store.latest_key(&room("r"), &endpoint(who)).await?;
        same(key.ciphertext, key_of(&endpoint(who), epoch(2)))?;
    }
    Ok(())
}

/// An id of 128 bytes that ends in this number.
fn long(kind: &str, number: u64) -> String {
    format!("{kind}{}{number:05}", "x".repeat(128 - 5 - kind.len()))
}

/// A sealed key of the maximal length, different for each pair of `number` and `epoch`.
fn large(number: u64, epoch: u64) -> Ciphertext {
    let mut bytes = vec![0xa5; 4096];
    bytes.splice(..16, [number.to_be_bytes(), epoch.to_be_bytes()].concat());
    sealed(bytes)
}

async fn a_rekey_may_carry_a_megabyte_of_keys(cx: Cx) -> Verdict {
    const MEMBERS: u64 = 260;
    let store = cx.open().await?.unrecorded();
    let id = room(&long("r", 0));
    let who: Vec<EndpointId> = (0..MEMBERS).map(|number| endpoint(&long("e", number))).collect();
    let (Some(owner), Some(last)) = (who.first(), who.last()) else { return Ok(()) };
    store.create_room(NewRoom::encrypted(id.clone(), owner.clone(), at(1), large(0, 1))).await?;
    let adding = (0..).zip(&who).skip(1).map(|(number, who)| {
        let (store, id) = (Arc::clone(&store), id.clone());
        let new = NewMember::sealed(who.clone(), at(2), Epoch::FIRST, large(number, 1));
        async move { Ok(store.add_member(&id, new).await?) }
    });
    together(adding).await?;
    let keys = (0..).zip(&who).map(|(number, who)| (who.clone(), large(number, 2)));
    store.rekey(&id, Rekey::new(Epoch::FIRST, [], keys.collect::<Vec<_>>())?).await?;
    let members = store.members(&id, Page::first()).await?;
    same(members.into_iter().map(|member| member.endpoint).collect::<Vec<_>>(), who.clone())?;
    let reading = (0..).zip(&who).map(|(number, who)| {
        let (store, id, who) = (Arc::clone(&store), id.clone(), who.clone());
        async move {
            same(store.latest_key(&id, &who).await?.ciphertext, large(number, 2))?;
            same(store.key(&id, &who, Epoch::FIRST).await?.ciphertext, large(number, 1))
        }
    });
    together(reading).await?;
    // One endpoint in 300 rooms, whose ids have the maximal length, too.
    let making = (1..MEMBERS + 40).map(|number| {
        let (store, who) = (Arc::clone(&store), last.clone());
        let new = NewRoom::unencrypted(room(&long("r", number)), who, at(1));
        async move { Ok(store.create_room(new).await?) }
    });
    let mut rooms: Vec<_> = together(making).await?.into_iter().map(|room| room.id).collect();
    rooms.insert(0, id);
    let listed = store.rooms_of(last, Page::first()).await?;
    same(listed.into_iter().map(|room| room.id).collect(), rooms)
}

async fn thousands_of_users_are_listed_completely(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let count = scaled(&cx, 5_500, 1_100);
    let adding = (0..count).map(|number| {
        let store = Arc::clone(&store);
        async move { Ok(store.add_user(user(user_number(number))).await?) }
    });
    together(adding).await?;
    let all = observe::all_users(&*store).await?;
    same(all.len(), usize::try_from(count).unwrap_or(usize::MAX))?;
    for (number, found) in (0..).zip(&all) {
        same(found, &user(user_number(number)).user())?;
    }
    // Decisions and revocations must find the last user, too.
    let last = user_number(count - 1);
    same(store.is_authorized(&last).await, Decision::Allow)?;
    store.revoke_user(&last, at(3)).await?;
    same(store.is_authorized(&last).await, REVOKED)?;
    let revoked = observe::all_users(&*store).await?.pop();
    holds(
        revoked.as_ref().is_some_and(|user| user.revoked),
        "the last user, revoked",
        &revoked.map_or_else(Vec::new, |user| vec![user]),
    )
}

async fn thousands_of_members_are_listed_completely(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let all = names(scaled(&cx, 5_500, 1_100));
    store.create_room(encrypted("r", "ann")).await?;
    all_join(&store, "r", &all).await?;
    let found = observe::members(&*store, &room("r")).await?;
    let found: Vec<_> = found.into_iter().map(|member| member.endpoint).collect();
    let expected: Vec<_> =
        std::iter::once("ann").chain(all.iter().map(String::as_str)).map(endpoint).collect();
    same(found.len(), expected.len())?;
    same(found, expected)?;
    let everyone = std::iter::once("ann").chain(all.iter().map(String::as_str));
    store.rekey(&room("r"), rekey(1, [], everyone)).await?;
    let holding = all.iter().map(|who| {
        let (store, who) = (Arc::clone(&store), endpoint(who));
        async move {
            let key = store.latest_key(&room("r"), &who).await?;
            same(key.ciphertext, key_of(&who, epoch(2)))
        }
    });
    together(holding).await.map(drop)
}

/// A store may keep something of each former member. That must not slow down later removals, and the store must not
/// bring a former member back when it cleans up.
async fn a_room_of_thousands_is_left_one_by_one(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let all = names(scaled(&cx, 3_000, 400));
    store.create_room(encrypted("r", "ann")).await?;
    all_join(&store, "r", &all).await?;
    let mut stay = vec!["ann".to_owned()];
    for (number, who) in all.iter().enumerate() {
        if number % 100 == 7 {
            stay.push(who.clone());
            continue;
        }
        store.remove_member(&room("r"), &endpoint(who)).await?;
        if number % 50 == 0 {
            fails(store.latest_key(&room("r"), &endpoint(who)).await, &no_key("r", who, None))?;
        }
        if number % 100 == 42 {
            store.add_member(&room("r"), joins_at(who, 1)).await?;
            stay.push(who.clone());
        }
    }
    let found = observe::members(&*store, &room("r")).await?;
    let found: Vec<_> = found.into_iter().map(|member| member.endpoint).collect();
    let expected: Vec<_> = stay.iter().map(|who| endpoint(who)).collect();
    same(found, expected)?;
    for who in &stay {
        let key = store.latest_key(&room("r"), &endpoint(who)).await?;
        same(key.ciphertext, key_of(&endpoint(who), Epoch::FIRST))?;
    }
    store.rekey(&room("r"), rekey(1, [], stay.iter().map(String::as_str))).await?;
    same(store.latest_key(&room("r"), &endpoint("ann")).await?.epoch, epoch(2))
}

/// The time in which a store may make all additions before the first listing.
const BRIEF: Duration = Duration::from_millis(200);

/// An endpoint joins one room after the other, as fast as the store allows. Meanwhile listings of its rooms must go on,
/// and each must have every room that was joined before it began.
async fn rooms_are_listed_while_their_member_joins_more(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let ids: Vec<_> = names(900).iter().map(|id| room(id)).collect();
    let mut making = Vec::new();
    for id in &ids {
        let (store, new) = (Arc::clone(&store), plain(id.as_str(), "owner"));
        making.push(async move { Ok(store.create_room(new).await?) });
    }
    together(making).await?;
    let (next, joined) = (AtomicUsize::new(0), Mutex::new(BTreeSet::new()));
    let worker = async || {
        while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            store.add_member(id, joins("ann")).await?;
            joined.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        }
        Verdict::Ok(())
    };
    let joining = async {
        let began = Instant::now();
        futures::try_join!(worker(), worker(), worker(), worker()).map(|_| began.elapsed())
    };
    let listing = async {
        let mut listings = 0_u64;
        loop {
            let before = joined.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let listed = store.rooms_of(&endpoint("ann"), Page::first()).await?;
            let listed: BTreeSet<_> = listed.into_iter().map(|room| room.id).collect();
            let missing: Vec<_> = before.difference(&listed).collect();
            if !missing.is_empty() {
                let expected = "every room that was joined before the listing began";
                return Err(Failure::new(expected, format!("a listing without {missing:?}")));
            }
            listings += 1;
            if before.len() == ids.len() {
                return Ok(listings);
            }
            // A store in memory may answer without ever waiting.
            tokio::task::yield_now().await;
        }
    };
    let (joined, listings) = futures::join!(joining, listing);
    let (took, listings) = (joined?, listings?);
    let expected = "several listings beside 900 additions";
    holds(listings > 5 || took < BRIEF, expected, &listings)
}

async fn hundreds_of_writes_in_flight_all_take_effect(cx: Cx) -> Verdict {
    const WRITES: u64 = 400;
    let store = cx.open().await?.unrecorded();
    let writes = (0..WRITES).map(|number| {
        let store = Arc::clone(&store);
        async move {
            match number % 2 {
                0 => store.add_user(user(user_number(number))).await.map(drop),
                _ => store.create_room(plain(&format!("r{number:03}"), "ann")).await.map(drop),
            }
        }
    });
    for (number, done) in (0..WRITES).zip(join_all(writes).await) {
        holds(done.is_ok(), &format!("write {number} to succeed"), &done)?;
    }
    let users = observe::all_users(&*store).await?.into_iter().map(|user| user.key);
    let expected: Vec<_> = (0..WRITES).step_by(2).map(user_number).collect();
    same(users.collect::<Vec<_>>(), expected)?;
    let rooms = observe::rooms_of(&*store, &endpoint("ann")).await?;
    let expected: Vec<_> =
        (1..WRITES).step_by(2).map(|number| room(&format!("r{number:03}"))).collect();
    same(rooms.into_iter().map(|room| room.id).collect::<Vec<_>>(), expected)
}

/// One client makes more calls than 16 bits can count.
async fn answers_stay_right_over_many_calls(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let [here, gone, never] = [1, 2, 3].map(user_number);
    store.add_user(user(here)).await?;
    store.add_user(user(gone)).await?;
    store.revoke_user(&gone, at(3)).await?;
    store.create_room(plain("r", "ann")).await?;
    let calls = cx.rounds(72_000);
    for call in 0..calls {
        match call % 6 {
            0 => same(store.is_authorized(&gone).await, REVOKED)?,
            1 => same(store.is_authorized(&here).await, Decision::Allow)?,
            2 => {
                let unknown = Decision::Deny(DenyReason::Unknown);
                same(store.is_authorized(&never).await, unknown)?;
            }
            3 => same(store.is_admin(&here).await, Decision::Deny(DenyReason::NotAdmin))?,
            4 => same(store.has_admin().await?, false)?,
            _ => same(store.member(&room("r"), &endpoint("ann")).await?.room, room("r"))?,
        }
        if call % 1_000 == 999 {
            let who = format!("m{call}");
            store.add_member(&room("r"), joins(&who)).await?;
            same(store.rooms_of(&endpoint(&who), Page::first()).await?.len(), 1)?;
            // A memory store never waits, so without this line the other tasks of the process could not run.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// Each client is opened and reads, before and after the first client writes.
async fn each_of_a_thousand_clients_sees_every_earlier_write(cx: Cx) -> Verdict {
    let first = cx.open().await?.unrecorded();
    first.create_room(plain("r", "ann")).await?;
    for number in 0..cx.rounds(1_030) {
        let (key, who) = (user_number(number), format!("m{number}"));
        first.add_user(user(key)).await?;
        let client = cx.open_unheld().await?.unrecorded();
        same(client.is_authorized(&key).await, Decision::Allow)?;
        same(client.member(&room("r"), &endpoint(&who)).await.is_ok(), false)?;
        first.revoke_user(&key, at(3)).await?;
        first.add_member(&room("r"), joins(&who)).await?;
        let decision = client.is_authorized(&key).await;
        if decision != REVOKED {
            let expected = format!("client {} to deny a revoked user", number + 2);
            return Err(Failure::answer(expected, &decision));
        }
        same(client.member(&room("r"), &endpoint(&who)).await?.endpoint, endpoint(&who))?;
        first.remove_member(&room("r"), &endpoint(&who)).await?;
        same(client.member(&room("r"), &endpoint(&who)).await.is_ok(), false)?;
        client.close().await?;
    }
    Ok(())
}
