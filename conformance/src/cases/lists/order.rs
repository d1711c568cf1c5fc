//! The first record of a page, and the order of records.

use membership::{Page, Store, UserKey};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::case::declare;
use crate::context::Cx;
use crate::make::{encrypted, endpoint, joins, joins_at, page, plain, room, user, user_key};
use crate::verdict::{Verdict, same};

declare! { "lists";
    a_page_begins_after_an_id_that_need_not_exist: "LIST-1";
    a_page_of_users_begins_after_a_key_that_need_not_exist: "LIST-1";
    members_are_in_byte_order_where_other_orders_differ: "LIST-1";
    rooms_are_in_byte_order_where_other_orders_differ: "LIST-1";
    users_are_in_byte_order_of_their_keys: "LIST-1";
}

/// Values of `after` that come before, between, after or equal the ids "b", "bb" and "d"; and the
/// ids that follow each of them.
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
    // A page may also begin after a record that was removed.
    store.remove_member(&room("b"), &endpoint("bb")).await?;
    store.delete_room(&room("bb")).await?;
    let members = store.members(&room("b"), Page::after_id(endpoint("bb"))).await?;
    same(members.into_iter().map(|m| m.endpoint).collect::<Vec<_>>(), vec![endpoint("d")])?;
    let rooms = store.rooms_of(&endpoint("b"), Page::after_id(room("bb"))).await?;
    same(rooms.into_iter().map(|r| r.id).collect::<Vec<_>>(), vec![room("d")])
}

async fn a_page_of_users_begins_after_a_key_that_need_not_exist(cx: Cx) -> Verdict {
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

/// Ids in byte order. Orders by locale, folded case, UTF-16 unit, length or number differ.
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

/// [`ORDERED`], sorted by its bytes, so that a misplaced line above does no harm.
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

/// The bytes of keys decide. Orders by signed byte, by nkey or by arrival differ.
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
