//! Rekeys that succeed.

use futures::future::join_all;
use membership::{EndpointId, Epoch, Page, Role, RoomId, SealedKey, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, at_epoch, encrypted, endpoint, epoch, joins, joins_at, key_of, member_of, mismatch, no_key,
    no_member, rekey, rekey_all, room, sealed_key,
};
use crate::scene::{advance, crew, endpoints_of, open_crew, rooms_of};
use crate::verdict::{Failure, Verdict, fails, same};

declare! { "keys";
    a_rekey_moves_the_room_to_the_next_epoch: "KEY-4" "KEY-5";
    a_rekey_gives_every_member_a_key_at_the_new_epoch: "KEY-1" "KEY-5";
    a_rekey_leaves_memberships_as_they_were: "KEY-5";
    a_rekey_of_one_room_leaves_others_alone: "KEY-5" "KEY-2";
    a_rekey_clears_rekey_due: "KEY-5" "MEM-3";
    a_rekey_removes_members_and_their_keys: "KEY-5" "KEY-1" "LIST-4";
    a_rekey_may_remove_everyone_but_the_owner: "KEY-5" "MEM-4";
    a_room_with_one_member_is_rekeyed: "KEY-5";
    the_order_in_which_keys_are_given_does_not_matter: "KEY-5";
    only_a_rekey_moves_the_epoch: "KEY-4" "KEY-10";
    keys_of_earlier_epochs_stay_readable_unchanged: "KEY-9";
    keys_of_a_hundred_and_one_epochs_stay_readable: "KEY-4" "KEY-9";
    a_rekey_of_more_members_than_a_page_holds_gives_each_a_key: "KEY-1" "KEY-5";
    a_rekey_of_ten_thousand_members_works_in_time: "KEY-11" "TIME-1";
}

async fn a_rekey_moves_the_room_to_the_next_epoch(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let before = crew(&store, "r", &["ann", "bob"]).await?;
    for from in 1..5 {
        let returned = store.rekey(&room("r"), rekey(from, [], ["ann", "bob"])).await?;
        same(&returned, &at_epoch(&before, from + 1))?;
        same(store.room(&room("r")).await?, returned)?;
    }
    Ok(())
}

async fn a_rekey_gives_every_member_a_key_at_the_new_epoch(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let who = ["ann", "bob", "cid", "dee"];
    crew(&store, "r", &who).await?;
    store.rekey(&room("r"), rekey(1, [], who)).await?;
    for who in who {
        let found = store.key(&room("r"), &endpoint(who), epoch(2)).await?;
        same(found, sealed_key("r", who, 2))?;
        let latest = store.latest_key(&room("r"), &endpoint(who)).await?;
        same(latest, sealed_key("r", who, 2))?;
    }
    Ok(())
}

async fn a_rekey_leaves_memberships_as_they_were(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob"]).await?;
    store.rekey(&room("r"), rekey(1, [], ["ann", "bob"])).await?;
    store.add_member(&room("r"), joins_at("cid", 2)).await?;
    let before = store.members(&room("r"), Page::first()).await?;
    store.rekey(&room("r"), rekey(2, [], ["ann", "bob", "cid"])).await?;
    same(store.members(&room("r"), Page::first()).await?, before)?;
    same(store.member(&room("r"), &endpoint("bob")).await?, member_of("r", "bob", 1))?;
    same(store.member(&room("r"), &endpoint("cid")).await?, member_of("r", "cid", 2))?;
    same(store.member(&room("r"), &endpoint("ann")).await?.role, Role::Owner)
}

async fn a_rekey_of_one_room_leaves_others_alone(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    // Each of these ids is a prefix of "room", begins with it, or differs from it in case.
    let others = ["r", "roo", "room ", "room.", "room1", "room/1", "ROOM"];
    crew(&store, "room", &["ann", "bob"]).await?;
    for id in others {
        crew(&store, id, &["ann", "bob"]).await?;
    }
    open_crew(&store, "plain", &["ann", "bob"]).await?;
    let (who, rooms) = ([endpoint("ann"), endpoint("bob")], others.map(room));
    let before = keys_in(&store, &rooms, &who).await?;
    store.rekey(&room("room"), rekey(1, ["bob"], ["ann"])).await?;
    same(keys_in(&store, &rooms, &who).await?, before)?;
    same(store.room(&room("plain")).await?.epoch, Epoch::ZERO)?;
    let mut remaining: Vec<_> = others.map(room).into();
    remaining.push(room("plain"));
    remaining.sort();
    same(rooms_of(&store, "bob").await?, remaining)
}

async fn keys_in(
    store: &dyn Store,
    rooms: &[RoomId],
    who: &[EndpointId],
) -> Verdict<Vec<SealedKey>> {
    let mut keys = Vec::new();
    for room in rooms {
        for who in who {
            keys.push(store.key(room, who, Epoch::FIRST).await?);
            keys.push(store.latest_key(room, who).await?);
        }
    }
    Ok(keys)
}

async fn a_rekey_clears_rekey_due(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let r = room("r");
    crew(&store, "r", &["ann", "bob", "cid"]).await?;
    same(store.room(&r).await?.rekey_due, false)?;
    store.remove_member(&r, &endpoint("bob")).await?;
    same(store.room(&r).await?.rekey_due, true)?;
    same(store.rekey(&r, rekey(1, [], ["ann", "cid"])).await?.rekey_due, false)?;
    same(store.room(&r).await?.rekey_due, false)?;
    // A rekey that removes a member makes no further rekey due.
    same(store.rekey(&r, rekey(2, ["cid"], ["ann"])).await?.rekey_due, false)?;
    same(store.room(&r).await?.rekey_due, false)?;
    let found = store.rooms_of(&endpoint("ann"), Page::first()).await?;
    same(found, vec![store.room(&r).await?])
}

async fn a_rekey_removes_members_and_their_keys(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let r = room("r");
    crew(&store, "r", &["ann", "bob", "cid", "dee"]).await?;
    crew(&store, "s", &["bob"]).await?;
    store.rekey(&r, rekey(1, [], ["ann", "bob", "cid", "dee"])).await?;
    store.rekey(&r, rekey(2, ["bob", "dee"], ["ann", "cid"])).await?;

    same(endpoints_of(&store, &r).await?, vec![endpoint("ann"), endpoint("cid")])?;
    for gone in ["bob", "dee"] {
        fails(store.member(&r, &endpoint(gone)).await, &no_member("r", gone))?;
        fails(store.latest_key(&r, &endpoint(gone)).await, &no_key("r", gone, None))?;
        for number in 1..=3 {
            let found = store.key(&r, &endpoint(gone), epoch(number)).await;
            fails(found, &no_key("r", gone, number))?;
        }
    }
    same(rooms_of(&store, "bob").await?, vec![room("s")])?;
    same(rooms_of(&store, "dee").await?, vec![])?;
    same(store.latest_key(&room("s"), &endpoint("bob")).await?, sealed_key("s", "bob", 1))
}

async fn a_rekey_may_remove_everyone_but_the_owner(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let before = crew(&store, "r", &["ann", "bob", "cid"]).await?;
    let returned = store.rekey(&room("r"), rekey(1, ["bob", "cid"], ["ann"])).await?;
    same(returned, at_epoch(&before, 2))?;
    same(endpoints_of(&store, &room("r")).await?, vec![endpoint("ann")])?;
    same(store.latest_key(&room("r"), &endpoint("ann")).await?, sealed_key("r", "ann", 2))
}

async fn a_room_with_one_member_is_rekeyed(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let before = store.create_room(encrypted("r", "ann")).await?;
    for from in 1..4 {
        let returned = store.rekey(&room("r"), rekey(from, [], ["ann"])).await?;
        same(returned, at_epoch(&before, from + 1))?;
    }
    for number in 1..=4 {
        let found = store.key(&room("r"), &endpoint("ann"), epoch(number)).await?;
        same(found, sealed_key("r", "ann", number))?;
    }
    Ok(())
}

async fn the_order_in_which_keys_are_given_does_not_matter(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    // These names are neither in byte order nor in the order of a locale.
    let who = ["ann", "Zed", "\u{e9}va", "bob", "10", "9"];
    crew(&store, "r", &who).await?;
    let mut turned = who;
    turned.reverse();
    store.rekey(&room("r"), rekey(1, [], turned)).await?;
    for who in who {
        let latest = store.latest_key(&room("r"), &endpoint(who)).await?;
        same(latest, sealed_key("r", who, 2))?;
    }
    Ok(())
}

async fn only_a_rekey_moves_the_epoch(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob"]).await?;
    advance(&store, "r", &["ann", "bob"], 1, 3).await?;
    open_crew(&store, "p", &["ann", "bob"]).await?;
    for (id, number) in [("r", 3), ("p", 0)] {
        let r = room(id);
        let new = |who| if number == 0 { joins(who) } else { joins_at(who, number) };
        store.add_member(&r, new("cid")).await?;
        same(store.room(&r).await?.epoch, epoch(number))?;
        store.remove_member(&r, &endpoint("bob")).await?;
        same(store.room(&r).await?.epoch, epoch(number))?;
        store.add_member(&r, new("bob")).await?;
        same(store.room(&r).await?.epoch, epoch(number))?;
        same(store.room(&r).await?.rekey_due, number > 0)?;
    }
    Ok(())
}

async fn keys_of_earlier_epochs_stay_readable_unchanged(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob", "cid"]).await?;
    for from in 1..8 {
        store.rekey(&room("r"), rekey(from, [], ["ann", "bob", "cid"])).await?;
        for number in 1..=from {
            for who in ["ann", "bob", "cid"] {
                let found = store.key(&room("r"), &endpoint(who), epoch(number)).await?;
                same(found, sealed_key("r", who, number))?;
            }
        }
    }
    // Removing other members takes no key from ann.
    store.remove_member(&room("r"), &endpoint("cid")).await?;
    store.rekey(&room("r"), rekey(8, ["bob"], ["ann"])).await?;
    for number in 1..=9 {
        let found = store.key(&room("r"), &endpoint("ann"), epoch(number)).await?;
        same(found, sealed_key("r", "ann", number))?;
    }
    Ok(())
}

async fn keys_of_a_hundred_and_one_epochs_stay_readable(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob"]).await?;
    for from in 1..=100 {
        let returned = store.rekey(&room("r"), rekey(from, [], ["ann", "bob"])).await?;
        same(returned.epoch, epoch(from + 1))?;
    }
    for number in 1..=101 {
        for who in ["ann", "bob"] {
            let found = store.key(&room("r"), &endpoint(who), epoch(number)).await?;
            same(found, sealed_key("r", who, number))?;
        }
    }
    let beyond = store.key(&room("r"), &endpoint("ann"), epoch(102)).await;
    fails(beyond, &no_key("r", "ann", 102))?;
    same(store.member(&room("r"), &endpoint("bob")).await?, member_of("r", "bob", 1))
}

/// `count` endpoint ids in byte order.
fn names(count: usize) -> Vec<EndpointId> {
    (0..count).map(|number| endpoint(&format!("e{number:05}"))).collect()
}

/// Makes an encrypted room of these endpoints; the first one owns it.
async fn crowd(store: &dyn Store, id: &str, who: &[EndpointId]) -> Verdict {
    for (chunk, endpoints) in who.chunks(64).enumerate() {
        let mut endpoints = endpoints;
        if chunk == 0
            && let Some((owner, others)) = endpoints.split_first()
        {
            store.create_room(encrypted(id, owner.as_str())).await?;
            endpoints = others;
        }
        let room = room(id);
        let added = endpoints.iter().map(|e| store.add_member(&room, joins_at(e.as_str(), 1)));
        for added in join_all(added).await {
            added?;
        }
    }
    Ok(())
}

async fn a_rekey_of_more_members_than_a_page_holds_gives_each_a_key(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    let (store, who, r) = (client.unrecorded(), names(1025), room("r"));
    crowd(&*store, "r", &who).await?;
    client.rekey(&r, rekey_all(1, &who)).await?;
    for who in &who {
        let latest = store.latest_key(&r, who).await?;
        same((latest.epoch, latest.ciphertext), (epoch(2), key_of(who, epoch(2))))?;
    }
    Ok(())
}

async fn a_rekey_of_ten_thousand_members_works_in_time(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    let (store, who, r) = (client.unrecorded(), names(10_000), room("r"));
    crowd(&*store, "r", &who).await?;
    let moved = cx.within_slow_bound(client.rekey(&r, rekey_all(1, &who))).await??;
    let before = encrypted("r", "e00000").room();
    same(moved, at_epoch(&before, 2))?;
    for who in who.iter().step_by(97).chain(who.last()) {
        let latest = store.latest_key(&r, who).await?;
        same((latest.epoch, latest.ciphertext), (epoch(2), key_of(who, epoch(2))))?;
    }
    // A single missing key among ten thousand is noticed.
    let (last, others) =
        who.split_last().ok_or_else(|| Failure::new("ten thousand names", "none"))?;
    let short = cx.within_slow_bound(client.rekey(&r, rekey_all(2, others))).await?;
    fails(short, &mismatch([last.as_str()], []))?;
    same(store.room(&r).await?.epoch, epoch(2))?;
    same(store.room(&r).await?.created_at, at(1))
}
