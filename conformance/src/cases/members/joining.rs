//! Joining a room.

use membership::{Conflict, Epoch, Error, NewMember, Page, Role, Store};

use super::{everybody, key, rekey_due, with_bob};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, encrypted, endpoint, epoch, joins, joins_at, member_exists, member_of, no_key, no_member,
    no_room, plain, rekey, room, sealed, sealed_key, stale,
};
use crate::verdict::{Verdict, fails, same};

declare! { "members";
    a_member_of_an_unencrypted_room_is_read_back: "MEM-1" "KEY-10";
    a_member_of_an_encrypted_room_is_read_back_with_its_key: "MEM-1" "KEY-3";
    a_member_joins_at_the_current_epoch: "MEM-1" "KEY-1";
    a_member_joins_at_the_current_epoch_though_a_rekey_is_due: "MEM-1" "MEM-3";
    a_key_for_another_epoch_is_stale: "MEM-1" "ERR-2";
    an_encrypted_room_demands_a_key: "MEM-1" "ERR-2";
    an_unencrypted_room_refuses_a_key: "MEM-1" "KEY-10" "ERR-2";
    nobody_joins_a_missing_room: "MEM-1" "ERR-1" "ERR-2";
    a_member_added_twice_stays_as_it_was: "MEM-2" "ERR-2";
    the_owner_added_again_stays_owner: "MEM-2" "MEM-4" "ERR-2";
    a_member_is_seen_and_removed_through_another_client: "LIN-1", needs Clients;
}

async fn a_member_of_an_unencrypted_room_is_read_back(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let r = store.create_room(plain("r", "ann")).await?;
    same(store.add_member(&room("r"), joins("bob")).await?, member_of("r", "bob", 0))?;
    same(store.member(&room("r"), &endpoint("bob")).await?, member_of("r", "bob", 0))?;
    let listed = store.members(&room("r"), Page::after_id(endpoint("ann"))).await?;
    same(listed, vec![member_of("r", "bob", 0)])?;
    same(store.rooms_of(&endpoint("bob"), Page::first()).await?, vec![r.clone()])?;
    for number in 0..3 {
        fails(key(&store, "bob", number).await, &no_key("r", "bob", number))?;
    }
    fails(store.latest_key(&room("r"), &endpoint("bob")).await, &no_key("r", "bob", None))?;
    same(store.room(&room("r")).await?, r)
}

async fn a_member_of_an_encrypted_room_is_read_back_with_its_key(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let r = store.create_room(encrypted("r", "ann")).await?;
    same(store.add_member(&room("r"), joins_at("bob", 1)).await?, member_of("r", "bob", 1))?;
    same(store.member(&room("r"), &endpoint("bob")).await?, member_of("r", "bob", 1))?;
    let listed = store.members(&room("r"), Page::after_id(endpoint("ann"))).await?;
    same(listed, vec![member_of("r", "bob", 1)])?;
    same(store.rooms_of(&endpoint("bob"), Page::first()).await?, vec![r.clone()])?;
    for who in ["ann", "bob"] {
        same(key(&store, who, 1).await?, sealed_key("r", who, 1))?;
        same(store.latest_key(&room("r"), &endpoint(who)).await?, sealed_key("r", who, 1))?;
    }
    same(store.room(&room("r")).await?, r)
}

async fn a_member_joins_at_the_current_epoch(cx: Cx) -> Verdict {
    let store = with_bob(&cx, true).await?;
    store.rekey(&room("r"), rekey(1, [], ["ann", "bob"])).await?;
    store.rekey(&room("r"), rekey(2, [], ["ann", "bob"])).await?;
    same(store.add_member(&room("r"), joins_at("carl", 3)).await?, member_of("r", "carl", 3))?;
    same(store.member(&room("r"), &endpoint("carl")).await?, member_of("r", "carl", 3))?;
    same(store.member(&room("r"), &endpoint("bob")).await?, member_of("r", "bob", 1))?;
    for number in [0, 1, 2, 4] {
        fails(key(&store, "carl", number).await, &no_key("r", "carl", number))?;
    }
    same(key(&store, "carl", 3).await?, sealed_key("r", "carl", 3))?;
    everybody().observe(&store).await?;
    Ok(())
}

async fn a_member_joins_at_the_current_epoch_though_a_rekey_is_due(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    store.remove_member(&r, &endpoint("bob")).await?;
    rekey_due(&store, true).await?;
    fails(store.add_member(&r, joins_at("carl", 2)).await, &stale(1))?;
    same(store.add_member(&r, joins_at("carl", 1)).await?, member_of("r", "carl", 1))?;
    same(store.member(&r, &endpoint("carl")).await?, member_of("r", "carl", 1))?;
    same(key(&store, "carl", 1).await?, sealed_key("r", "carl", 1))?;
    rekey_due(&store, true).await?;
    everybody().observe(&store).await?;
    Ok(())
}

async fn a_key_for_another_epoch_is_stale(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    let scope = everybody();
    for number in [0, 2, 3, Epoch::MAX.get()] {
        let new = joins_at("carl", number);
        scope.refuses(&store, store.add_member(&r, new), &stale(1)).await?;
    }
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    for number in [0, 1, 3] {
        let new = joins_at("carl", number);
        scope.refuses(&store, store.add_member(&r, new), &stale(2)).await?;
    }
    store.add_member(&r, joins_at("carl", 2)).await?;
    Ok(())
}

async fn an_encrypted_room_demands_a_key(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    let missing = Error::Conflict(Conflict::KeyMissing);
    everybody().refuses(&store, store.add_member(&r, joins("carl")), &missing).await
}

async fn an_unencrypted_room_refuses_a_key(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, false).await?, room("r"));
    let unencrypted = Error::Conflict(Conflict::RoomUnencrypted);
    for number in [0, 1] {
        let adding = store.add_member(&r, joins_at("carl", number));
        everybody().refuses(&store, adding, &unencrypted).await?;
    }
    Ok(())
}

async fn nobody_joins_a_missing_room(cx: Cx) -> Verdict {
    let (store, s) = (with_bob(&cx, true).await?, room("s"));
    for new in [joins("bob"), joins_at("bob", 1)] {
        everybody().refuses(&store, store.add_member(&s, new), &no_room("s")).await?;
    }
    Ok(())
}

async fn a_member_added_twice_stays_as_it_was(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    let scope = everybody();
    let other =
        |number| NewMember::sealed(endpoint("bob"), at(77), epoch(number), sealed("another key"));
    let exists = member_exists("r", "bob");
    scope.refuses(&store, store.add_member(&r, joins_at("bob", 1)), &exists).await?;
    scope.refuses(&store, store.add_member(&r, other(1)), &exists).await?;
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    scope.refuses(&store, store.add_member(&r, other(2)), &exists).await?;
    same(store.member(&r, &endpoint("bob")).await?, member_of("r", "bob", 1))?;
    same(key(&store, "bob", 2).await?, sealed_key("r", "bob", 2))?;

    store.create_room(plain("s", "ann")).await?;
    store.add_member(&room("s"), joins("bob")).await?;
    let again = NewMember::unsealed(endpoint("bob"), at(77));
    let s = room("s");
    scope.refuses(&store, store.add_member(&s, again), &member_exists("s", "bob")).await
}

async fn the_owner_added_again_stays_owner(cx: Cx) -> Verdict {
    let store = with_bob(&cx, true).await?;
    store.create_room(plain("s", "ann")).await?;
    let scope = everybody();
    for (id, new) in [("r", joins_at("ann", 1)), ("s", joins("ann"))] {
        let adding = async { store.add_member(&room(id), new).await };
        scope.refuses(&store, adding, &member_exists(id, "ann")).await?;
        same(store.member(&room(id), &endpoint("ann")).await?.role, Role::Owner)?;
    }
    Ok(())
}

async fn a_member_is_seen_and_removed_through_another_client(cx: Cx) -> Verdict {
    let (one, bob) = (with_bob(&cx, true).await?, endpoint("bob"));
    let two = cx.open().await?;
    same(two.member(&room("r"), &bob).await?, member_of("r", "bob", 1))?;
    same(two.latest_key(&room("r"), &bob).await?, sealed_key("r", "bob", 1))?;
    two.remove_member(&room("r"), &bob).await?;
    fails(one.member(&room("r"), &bob).await, &no_member("r", "bob"))?;
    fails(one.latest_key(&room("r"), &bob).await, &no_key("r", "bob", None))?;
    same(one.rooms_of(&bob, Page::first()).await?, vec![])?;
    rekey_due(&one, true).await
}
