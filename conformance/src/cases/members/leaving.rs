//! Removing members, and removals that are refused.

use membership::{Conflict, Epoch, Error, Page, Room, Store};

use super::{everybody, key, rekey_due, remove, with_bob};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    encrypted, endpoint, joins, joins_at, member_of, no_key, no_member, plain, rekey, room,
    sealed_key, stale,
};
use crate::observe::Scope;
use crate::verdict::{Verdict, fails, same};

declare! { "members";
    a_removed_member_is_gone_from_every_view: "MEM-3" "LIST-4";
    a_removal_deletes_the_keys_of_all_epochs: "MEM-3" "KEY-1";
    a_removal_leaves_everybody_else_alone: "MEM-3";
    a_removal_from_an_encrypted_room_makes_a_rekey_due: "MEM-3";
    a_removal_from_an_unencrypted_room_makes_no_rekey_due: "MEM-3" "KEY-10";
    a_rekey_stays_due_until_the_room_is_rekeyed: "MEM-3" "KEY-5";
    a_refused_removal_makes_no_rekey_due: "MEM-3" "ERR-2";
    an_endpoint_that_is_no_member_cannot_be_removed: "ERR-1" "ERR-2";
    the_owner_cannot_be_removed: "MEM-4" "ERR-2";
    the_owner_cannot_be_removed_by_a_rekey: "MEM-4" "ERR-2";
}

async fn a_removed_member_is_gone_from_every_view(cx: Cx) -> Verdict {
    let (store, bob) = (cx.open().await?, endpoint("bob"));
    for (new, joining) in
        [(encrypted("r", "ann"), joins_at("bob", 1)), (plain("s", "ann"), joins("bob"))]
    {
        let (id, owner) = (new.id.clone(), new.owner_member());
        let name = id.as_str();
        store.create_room(new).await?;
        store.add_member(&id, joining).await?;
        store.remove_member(&id, &bob).await?;
        fails(store.member(&id, &bob).await, &no_member(name, "bob"))?;
        same(store.members(&id, Page::first()).await?, vec![owner])?;
        same(store.rooms_of(&bob, Page::first()).await?, vec![])?;
        fails(store.latest_key(&id, &bob).await, &no_key(name, "bob", None))?;
        fails(store.key(&id, &bob, Epoch::FIRST).await, &no_key(name, "bob", 1))?;
    }
    Ok(())
}

async fn a_removal_deletes_the_keys_of_all_epochs(cx: Cx) -> Verdict {
    let store = with_bob(&cx, true).await?;
    for from in 1..5 {
        store.rekey(&room("r"), rekey(from, [], ["ann", "bob"])).await?;
    }
    same(key(&store, "bob", 1).await?, sealed_key("r", "bob", 1))?;
    remove(&store, "bob").await?;
    for number in 1..=5 {
        fails(key(&store, "bob", number).await, &no_key("r", "bob", number))?;
        same(key(&store, "ann", number).await?, sealed_key("r", "ann", number))?;
    }
    fails(store.latest_key(&room("r"), &endpoint("bob")).await, &no_key("r", "bob", None))
}

async fn a_removal_leaves_everybody_else_alone(cx: Cx) -> Verdict {
    let store = with_bob(&cx, true).await?;
    store.create_room(encrypted("s", "dora")).await?;
    store.add_member(&room("r"), joins_at("carl", 1)).await?;
    store.add_member(&room("s"), joins_at("bob", 1)).await?;
    let r = store.room(&room("r")).await?;
    let other_room = Scope::new(&["s"], &["dora"]);
    let before = other_room.observe(&store).await?;
    remove(&store, "bob").await?;
    other_room.observe(&store).await?.unchanged_since(&before)?;
    same(store.room(&room("r")).await?, Room { rekey_due: true, ..r })?;
    same(store.member(&room("r"), &endpoint("carl")).await?, member_of("r", "carl", 1))?;
    for who in ["ann", "carl"] {
        same(key(&store, who, 1).await?, sealed_key("r", who, 1))?;
    }
    let s = store.room(&room("s")).await?;
    same(store.rooms_of(&endpoint("bob"), Page::first()).await?, vec![s])?;
    let bob_in_s = store.key(&room("s"), &endpoint("bob"), Epoch::FIRST).await?;
    same(bob_in_s, sealed_key("s", "bob", 1))
}

async fn a_removal_from_an_encrypted_room_makes_a_rekey_due(cx: Cx) -> Verdict {
    let store = with_bob(&cx, true).await?;
    rekey_due(&store, false).await?;
    remove(&store, "bob").await?;
    rekey_due(&store, true).await
}

async fn a_removal_from_an_unencrypted_room_makes_no_rekey_due(cx: Cx) -> Verdict {
    let store = with_bob(&cx, false).await?;
    let before = store.room(&room("r")).await?;
    remove(&store, "bob").await?;
    rekey_due(&store, false).await?;
    same(store.room(&room("r")).await?, before)
}

async fn a_rekey_stays_due_until_the_room_is_rekeyed(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    store.add_member(&r, joins_at("carl", 1)).await?;
    rekey_due(&store, false).await?;
    remove(&store, "bob").await?;
    remove(&store, "carl").await?;
    rekey_due(&store, true).await?;
    // The rekey stays due when a member joins, and when a rekey is refused.
    store.add_member(&r, joins_at("bob", 1)).await?;
    rekey_due(&store, true).await?;
    fails(store.rekey(&r, rekey(2, [], ["ann", "bob"])).await, &stale(1))?;
    rekey_due(&store, true).await?;
    same(store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?.rekey_due, false)?;
    rekey_due(&store, false).await?;
    // A rekey that removes a member makes no further rekey due: it gives that member no new key.
    same(store.rekey(&r, rekey(2, ["bob"], ["ann"])).await?.rekey_due, false)?;
    rekey_due(&store, false).await
}

async fn a_refused_removal_makes_no_rekey_due(cx: Cx) -> Verdict {
    let store = with_bob(&cx, true).await?;
    fails(remove(&store, "carl").await, &no_member("r", "carl"))?;
    fails(remove(&store, "ann").await, &Error::Conflict(Conflict::OwnerStays))?;
    rekey_due(&store, false).await
}

async fn an_endpoint_that_is_no_member_cannot_be_removed(cx: Cx) -> Verdict {
    let (store, scope) = (with_bob(&cx, true).await?, everybody());
    store.create_room(plain("s", "carl")).await?;
    // carl is a member of another room only; afterwards bob is a former member.
    scope.refuses(&store, remove(&store, "carl"), &no_member("r", "carl")).await?;
    remove(&store, "bob").await?;
    scope.refuses(&store, remove(&store, "bob"), &no_member("r", "bob")).await?;
    let (s, bob) = (room("s"), endpoint("bob"));
    scope.refuses(&store, store.remove_member(&s, &bob), &no_member("s", "bob")).await
}

async fn the_owner_cannot_be_removed(cx: Cx) -> Verdict {
    let (store, ann) = (with_bob(&cx, true).await?, endpoint("ann"));
    let stays = Error::Conflict(Conflict::OwnerStays);
    store.create_room(plain("s", "ann")).await?;
    for id in [room("r"), room("s")] {
        everybody().refuses(&store, store.remove_member(&id, &ann), &stays).await?;
    }
    // The owner cannot be removed as the last member or at a later epoch either.
    store.rekey(&room("r"), rekey(1, ["bob"], ["ann"])).await?;
    everybody().refuses(&store, remove(&store, "ann"), &stays).await
}

async fn the_owner_cannot_be_removed_by_a_rekey(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    let stays = Error::Conflict(Conflict::OwnerStays);
    for remove in [&["ann"][..], &["ann", "bob"]] {
        let keys = ["bob"].into_iter().filter(|who| !remove.contains(who));
        let rekeying = store.rekey(&r, rekey(1, remove.iter().copied(), keys));
        everybody().refuses(&store, rekeying, &stays).await?;
    }
    Ok(())
}
