//! Pages of members, of an endpoint's rooms, and of users.

use std::sync::Arc;

use membership::{EndpointId, Member, NewUser, Page, Room, RoomId, Store, User, UserKey};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, encrypted, endpoint, joins, joins_at, label, no_room, page, plain, rekey, revoked, room,
    user, user_key, user_number,
};
use crate::observe::Scope;
use crate::together::together;
use crate::verdict::{Verdict, fails, same};

declare! { "lists";
    members_are_paged_from_1_to_2500: "LIST-1" "LIST-2";
    rooms_of_an_endpoint_are_paged_from_0_to_2500: "LIST-1" "LIST-2";
    users_are_paged_from_0_to_2500: "LIST-1" "USER-5";
    pages_of_one_give_every_record_once: "LIST-1";
    pages_of_random_sizes_give_every_record_once: "LIST-1";
    a_page_begins_after_an_id_that_need_not_exist: "LIST-1";
    users_after_a_key_that_need_not_exist: "LIST-1";
    members_are_in_byte_order_where_other_orders_differ: "LIST-1";
    rooms_are_in_byte_order_where_other_orders_differ: "LIST-1";
    users_are_in_byte_order_of_their_keys: "LIST-1";
    members_of_a_missing_room_are_not_found: "LIST-3";
    rooms_of_an_endpoint_without_one_are_an_empty_page: "LIST-3";
    users_of_an_empty_store_are_an_empty_page: "LIST-1";
    the_index_is_right_after_each_kind_of_write: "LIST-4";
    a_listed_room_is_the_room_as_it_is_now: "LIST-2" "ROOM-3";
    revoked_users_stay_where_they_were: "LIST-1" "USER-5";
}

/// How many records there are, one step after the other, in one store.
const SIZES: [usize; 6] = [0, 1, 999, 1000, 1001, 2500];

/// Ids that the numbers sort by, told apart at their ends.
fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("id.{number:05}")).collect()
}

/// The steps from one size to the next, each in an order of its own.
fn growth(cx: &Cx) -> Vec<(usize, Vec<String>)> {
    let mut rng = cx.rng(0);
    let mut before = 0;
    let step = |size| {
        let mut new = names(before, size);
        before = size;
        new.shuffle(&mut rng);
        (size, new)
    };
    SIZES.into_iter().map(step).collect()
}

/// The pages of 1000 of so many records must be of these lengths, and a page after the last
/// record is empty.
fn lengths(size: usize) -> Vec<usize> {
    let mut left = size;
    let mut lengths = Vec::new();
    while left > 0 {
        lengths.push(left.min(1000));
        left = left.saturating_sub(1000);
    }
    lengths.push(0);
    lengths
}

async fn members_are_paged_from_1_to_2500(cx: Cx) -> Verdict {
    let (store, r) = (cx.open().await?.unrecorded(), room("r"));
    let owner = plain("r", "id.").owner_member();
    store.create_room(plain("r", "id.")).await?;
    for (size, new) in growth(&cx) {
        let adding = new.into_iter().map(|id| {
            let (store, r) = (Arc::clone(&store), r.clone());
            async move { Ok(store.add_member(&r, joins(&id)).await?) }
        });
        together(adding).await?;
        // The owner comes first of all, so that the pages after it are of the size that is meant.
        same(store.members(&r, page(None, 1)).await?, vec![owner.clone()])?;
        let (mut all, mut after) = (Vec::<Member>::new(), owner.endpoint.clone());
        for length in lengths(size) {
            let got = store.members(&r, Page::after_id(after.clone())).await?;
            same(got.len(), length)?;
            after = got.last().map_or(after, |member| member.endpoint.clone());
            all.extend(got);
        }
        let expected = names(0, size).into_iter();
        let expected = expected.map(|id| crate::make::member_of("r", &id, 0)).collect();
        same(all, expected)?;
    }
    Ok(())
}

async fn rooms_of_an_endpoint_are_paged_from_0_to_2500(cx: Cx) -> Verdict {
    let (store, ann) = (cx.open().await?.unrecorded(), endpoint("ann"));
    for (size, new) in growth(&cx) {
        let creating = new.into_iter().map(|id| {
            let store = Arc::clone(&store);
            async move { Ok(store.create_room(plain(&id, "ann")).await?) }
        });
        together(creating).await?;
        let (mut all, mut from) = (Vec::<Room>::new(), Page::first());
        for length in lengths(size) {
            let got = store.rooms_of(&ann, from.clone()).await?;
            same(got.len(), length)?;
            from = got.last().map_or(from, |room| Page::after_id(room.id.clone()));
            all.extend(got);
        }
        let expected = names(0, size).into_iter().map(|id| plain(&id, "ann").room()).collect();
        same(all, expected)?;
    }
    Ok(())
}

async fn users_are_paged_from_0_to_2500(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let number = |id: &str| id.trim_start_matches("id.").parse::<u64>().unwrap_or_default();
    let user_of = move |id: &str| NewUser { label: label(id), ..user(user_number(number(id))) };
    for (size, new) in growth(&cx) {
        let adding = new.into_iter().map(|id| {
            let store = Arc::clone(&store);
            async move { Ok(store.add_user(user_of(&id)).await?) }
        });
        together(adding).await?;
        let (mut all, mut from) = (Vec::<User>::new(), Page::first());
        for length in lengths(size) {
            let got = store.users(from.clone()).await?;
            same(got.len(), length)?;
            from = got.last().map_or(from, |user| Page::after_id(user.key));
            all.extend(got);
        }
        let expected = names(0, size).iter().map(|id| user_of(id).user()).collect();
        same(all, expected)?;
    }
    Ok(())
}

async fn pages_of_one_give_every_record_once(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ids = ["a", "b", "c", "d", "e"];
    for (number, id) in (1..).zip(ids) {
        store.create_room(plain(id, "a")).await?;
        store.add_user(user(user_key(number))).await?;
    }
    for id in ids.into_iter().skip(1) {
        store.add_member(&room("a"), joins(id)).await?;
    }
    let (mut who, mut which, mut key) = (None, None, None);
    for (number, id) in (1..).zip(ids) {
        let members = store.members(&room("a"), page(who, 1)).await?;
        same(members.iter().map(|m| &m.endpoint).collect::<Vec<_>>(), vec![&endpoint(id)])?;
        let rooms = store.rooms_of(&endpoint("a"), page(which, 1)).await?;
        same(rooms.iter().map(|r| &r.id).collect::<Vec<_>>(), vec![&room(id)])?;
        let users = store.users(page(key, 1)).await?;
        same(users.iter().map(|u| u.key).collect::<Vec<_>>(), vec![user_key(number)])?;
        (who, which, key) = (Some(endpoint(id)), Some(room(id)), Some(user_key(number)));
    }
    same(store.members(&room("a"), page(who, 1)).await?, vec![])?;
    same(store.rooms_of(&endpoint("a"), page(which, 1)).await?, vec![])?;
    same(store.users(page(key, 1)).await?, vec![])
}

async fn pages_of_random_sizes_give_every_record_once(cx: Cx) -> Verdict {
    let (store, r) = (cx.open().await?.unrecorded(), room("r"));
    store.create_room(plain("r", "id.")).await?;
    let adding = names(0, 300).into_iter().map(|id| {
        let (store, r) = (Arc::clone(&store), r.clone());
        async move { Ok(store.add_member(&r, joins(&id)).await?) }
    });
    together(adding).await?;
    let mut rng = cx.rng(1);
    for _ in 0..8 {
        let (mut all, mut after) = (Vec::new(), endpoint("id."));
        loop {
            let limit = rng.random_range(1..=100);
            let got = store.members(&r, page(Some(after.clone()), limit)).await?;
            same(got.len(), limit.min(300 - all.len()))?;
            let Some(last) = got.last() else { break };
            after = last.endpoint.clone();
            all.extend(got.into_iter().map(|member| member.endpoint.as_str().to_owned()));
        }
        same(all, names(0, 300))?;
    }
    Ok(())
}

/// Whatever `after` is: the one before, between, equal to one, longer, or past the last.
const AFTERS: [(&str, &[&str]); 9] = [
    ("!", &["b", "bb", "d"]),
    ("a", &["b", "bb", "d"]),
    ("b", &["bb", "d"]),
    ("b ", &["bb", "d"]),
    ("ba", &["bb", "d"]),
    ("bb", &["d"]),
    ("c*", &["d"]),
    ("d", &[]),
    ("\u{10ffff}", &[]),
];

async fn a_page_begins_after_an_id_that_need_not_exist(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for id in ["d", "b", "bb"] {
        store.create_room(plain(id, "b")).await?;
    }
    for who in ["d", "bb"] {
        store.add_member(&room("b"), joins(who)).await?;
    }
    for (after, expected) in AFTERS {
        let rooms = store.rooms_of(&endpoint("b"), Page::after_id(room(after))).await?;
        let rooms: Vec<_> = rooms.into_iter().map(|r| r.id).collect();
        same(rooms, expected.iter().map(|id| room(id)).collect())?;
        let members = store.members(&room("b"), Page::after_id(endpoint(after))).await?;
        let members: Vec<_> = members.into_iter().map(|m| m.endpoint).collect();
        same(members, expected.iter().map(|id| endpoint(id)).collect())?;
    }
    // One that was there and is gone is a place to go on from, too.
    store.remove_member(&room("b"), &endpoint("bb")).await?;
    store.delete_room(&room("bb")).await?;
    let members = store.members(&room("b"), Page::after_id(endpoint("bb"))).await?;
    same(members.into_iter().map(|m| m.endpoint).collect::<Vec<_>>(), vec![endpoint("d")])?;
    let rooms = store.rooms_of(&endpoint("b"), Page::after_id(room("bb"))).await?;
    same(rooms.into_iter().map(|r| r.id).collect::<Vec<_>>(), vec![room("d")])
}

async fn users_after_a_key_that_need_not_exist(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for byte in [0x80, 0x10, 0xff] {
        store.add_user(user(user_key(byte))).await?;
    }
    for (after, expected) in [
        (0x00, &[0x10, 0x80, 0xff][..]),
        (0x0f, &[0x10, 0x80, 0xff]),
        (0x10, &[0x80, 0xff]),
        (0x7f, &[0x80, 0xff]),
        (0x80, &[0xff]),
        (0xfe, &[0xff]),
        (0xff, &[]),
    ] {
        let users = store.users(Page::after_id(user_key(after))).await?;
        let keys: Vec<_> = users.into_iter().map(|user| user.key).collect();
        same(keys, expected.iter().map(|byte| user_key(*byte)).collect())?;
    }
    Ok(())
}

/// In byte order; by locale, folded case, UTF-16 units, length or number they stand otherwise.
const ORDERED: [&str; 24] = [
    " a",
    "!",
    "-1",
    "1",
    "10",
    "1000",
    "2",
    "9",
    "A",
    "B",
    "Z",
    "Zebra",
    "a",
    "a b",
    "aa",
    "b",
    "z",
    "zebra",
    "Äpfel",
    "Ω",
    "é",
    "\u{ff5e}",
    "😀",
    "\u{10ffff}",
];

/// [`ORDERED`] by its bytes, whatever order it was written in above.
fn ordered() -> Vec<&'static str> {
    let mut ids = ORDERED.to_vec();
    ids.sort_unstable_by_key(|id| id.as_bytes());
    ids
}

async fn members_are_in_byte_order_where_other_orders_differ(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut ids = ordered();
    ids.shuffle(&mut cx.rng(0));
    store.create_room(encrypted("r", "mm")).await?;
    for id in &ids {
        store.add_member(&room("r"), joins_at(id, 1)).await?;
    }
    let mut expected: Vec<_> = ordered().into_iter().chain(["mm"]).collect();
    expected.sort_unstable_by_key(|id| id.as_bytes());
    let listed = store.members(&room("r"), Page::first()).await?;
    let listed: Vec<_> = listed.iter().map(|m| m.endpoint.as_str().to_owned()).collect();
    same(listed, expected.iter().map(|id| (*id).to_owned()).collect())?;
    for (number, id) in expected.iter().enumerate() {
        let after = store.members(&room("r"), page(Some(endpoint(id)), 3)).await?;
        let after: Vec<_> = after.iter().map(|m| m.endpoint.as_str().to_owned()).collect();
        let next = expected.iter().skip(number + 1).take(3);
        same(after, next.map(|id| (*id).to_owned()).collect())?;
    }
    Ok(())
}

async fn rooms_are_in_byte_order_where_other_orders_differ(cx: Cx) -> Verdict {
    let (store, ann, expected) = (cx.open().await?, endpoint("ann"), ordered());
    let mut ids = ordered();
    ids.shuffle(&mut cx.rng(0));
    for id in ids {
        store.create_room(plain(id, "ann")).await?;
    }
    let listed = store.rooms_of(&ann, Page::first()).await?;
    let listed: Vec<_> = listed.iter().map(|r| r.id.as_str().to_owned()).collect();
    same(listed, expected.iter().map(|id| (*id).to_owned()).collect())?;
    for (number, id) in expected.iter().enumerate() {
        let after = store.rooms_of(&ann, page(Some(room(id)), 3)).await?;
        let after: Vec<_> = after.iter().map(|r| r.id.as_str().to_owned()).collect();
        let next = expected.iter().skip(number + 1).take(3);
        same(after, next.map(|id| (*id).to_owned()).collect())?;
    }
    Ok(())
}

/// By the bytes of the key: not as signed ones, not by nkey, not by when they came.
async fn users_are_in_byte_order_of_their_keys(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut rng = cx.rng(0);
    let mut keys: Vec<_> = [0, 1, 0x7f, 0x80, 0xff].map(user_key).to_vec();
    keys.extend((0..40).map(|_| UserKey::from_bytes(rng.random())));
    for key in &keys {
        store.add_user(user(*key)).await?;
    }
    keys.sort_unstable_by_key(|key| *key.as_bytes());
    let listed = store.users(Page::first()).await?;
    same(listed.into_iter().map(|user| user.key).collect::<Vec<_>>(), keys)
}

async fn members_of_a_missing_room_are_not_found(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for page in [Page::first(), page(Some(endpoint("zz")), 1)] {
        fails(store.members(&room("none"), page).await, &no_room("none"))?;
    }
    // A page past the last member of a room that is there is another thing.
    store.create_room(plain("r", "ann")).await?;
    same(store.members(&room("r"), Page::after_id(endpoint("zz"))).await?, vec![])
}

async fn rooms_of_an_endpoint_without_one_are_an_empty_page(cx: Cx) -> Verdict {
    let (store, bob) = (cx.open().await?, endpoint("bob"));
    same(store.rooms_of(&bob, Page::first()).await?, vec![])?;
    store.create_room(plain("r", "ann")).await?;
    same(store.rooms_of(&bob, Page::first()).await?, vec![])?;
    same(store.rooms_of(&bob, page(Some(room("a")), 1)).await?, vec![])?;
    store.add_member(&room("r"), joins("bob")).await?;
    store.remove_member(&room("r"), &bob).await?;
    same(store.rooms_of(&bob, Page::first()).await?, vec![])
}

async fn users_of_an_empty_store_are_an_empty_page(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    same(store.users(Page::first()).await?, vec![])?;
    same(store.users(page(Some(user_key(0)), 1)).await?, vec![])
}

async fn rooms_by_name(store: &dyn Store, who: &EndpointId) -> Verdict<Vec<RoomId>> {
    Ok(store.rooms_of(who, Page::first()).await?.into_iter().map(|room| room.id).collect())
}

async fn the_index_is_right_after_each_kind_of_write(cx: Cx) -> Verdict {
    let (store, bob) = (cx.open().await?, endpoint("bob"));
    let scope = Scope::new(&["r", "s", "t"], &["ann", "bob", "carl"]);
    let (r, s) = (room("r"), room("s"));
    store.create_room(encrypted("r", "ann")).await?;
    scope.observe(&store).await?;
    store.create_room(plain("s", "bob")).await?;
    scope.observe(&store).await?;
    store.add_member(&r, joins_at("bob", 1)).await?;
    same(rooms_by_name(&store, &bob).await?, vec![r.clone(), s.clone()])?;
    scope.observe(&store).await?;
    store.add_member(&s, joins("carl")).await?;
    scope.observe(&store).await?;
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    same(rooms_by_name(&store, &bob).await?, vec![r.clone(), s.clone()])?;
    scope.observe(&store).await?;
    store.remove_member(&r, &bob).await?;
    same(rooms_by_name(&store, &bob).await?, vec![s.clone()])?;
    scope.observe(&store).await?;
    store.add_member(&r, joins_at("bob", 2)).await?;
    same(rooms_by_name(&store, &bob).await?, vec![r.clone(), s.clone()])?;
    store.add_member(&r, joins_at("carl", 2)).await?;
    scope.observe(&store).await?;
    store.rekey(&r, rekey(2, ["bob", "carl"], ["ann"])).await?;
    same(rooms_by_name(&store, &bob).await?, vec![s.clone()])?;
    same(rooms_by_name(&store, &endpoint("carl")).await?, vec![s.clone()])?;
    scope.observe(&store).await?;
    store.delete_room(&s).await?;
    same(rooms_by_name(&store, &bob).await?, vec![])?;
    same(rooms_by_name(&store, &endpoint("ann")).await?, vec![r])?;
    scope.observe(&store).await?;
    Ok(())
}

async fn a_listed_room_is_the_room_as_it_is_now(cx: Cx) -> Verdict {
    let (store, r, bob) = (cx.open().await?, room("r"), endpoint("bob"));
    let mut now = store.create_room(encrypted("r", "ann")).await?;
    store.add_member(&r, joins_at("bob", 1)).await?;
    store.add_member(&r, joins_at("carl", 1)).await?;
    same(store.rooms_of(&bob, Page::first()).await?, vec![now.clone()])?;
    for from in 1..4 {
        now = store.rekey(&r, rekey(from, [], ["ann", "bob", "carl"])).await?;
        same(store.rooms_of(&bob, Page::first()).await?, vec![now.clone()])?;
    }
    store.remove_member(&r, &endpoint("carl")).await?;
    now.rekey_due = true;
    same(store.rooms_of(&bob, Page::first()).await?, vec![now])
}

async fn revoked_users_stay_where_they_were(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut expected = Vec::new();
    for byte in 1..=6 {
        expected.push(store.add_user(user(user_key(byte))).await?);
    }
    for user in expected.iter_mut().skip(1).step_by(2) {
        store.revoke_user(&user.key, at(7)).await?;
        *user = revoked(user, at(7));
    }
    same(store.users(Page::first()).await?, expected.clone())?;
    same(
        store.users(page(Some(user_key(1)), 2)).await?,
        expected.get(1..3).unwrap_or_default().to_vec(),
    )
}
