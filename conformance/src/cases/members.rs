//! Joining and leaving rooms.

use membership::{Conflict, Epoch, Error, Member, NewMember, Page, Role, Room, SealedKey, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, encrypted, endpoint, epoch, joins, joins_at, member_exists, member_of, no_key, no_member,
    no_room, plain, rekey, room, sealed, sealed_key, stale,
};
use crate::observe::Scope;
use crate::transcript::Client;
use crate::verdict::{Verdict, fails, same};

declare! { "members";
    a_member_of_an_unencrypted_room_is_read_back: "MEM-1" "KEY-10";
    a_member_of_an_encrypted_room_is_read_back_with_its_key: "MEM-1" "KEY-3";
    a_member_joins_at_the_current_epoch: "MEM-1" "KEY-1";
    a_key_for_another_epoch_is_stale: "MEM-1" "ERR-2";
    an_encrypted_room_demands_a_key: "MEM-1" "ERR-2";
    an_unencrypted_room_refuses_a_key: "MEM-1" "KEY-10" "ERR-2";
    nobody_joins_a_missing_room: "MEM-1" "ERR-1" "ERR-2";
    a_member_added_twice_stays_as_it_was: "MEM-2" "ERR-2";
    the_owner_added_again_stays_owner: "MEM-2" "MEM-4" "ERR-2";
    a_removed_member_is_gone_from_every_view: "MEM-3" "LIST-4";
    a_removed_member_has_no_key_of_any_epoch: "MEM-3" "KEY-1";
    a_removal_leaves_everybody_else_alone: "MEM-3";
    a_removal_from_an_encrypted_room_makes_a_rekey_due: "MEM-3";
    a_removal_from_an_unencrypted_room_makes_no_rekey_due: "MEM-3" "KEY-10";
    a_rekey_is_due_until_there_is_one: "MEM-3" "KEY-5";
    a_refused_removal_makes_no_rekey_due: "MEM-3" "ERR-2";
    who_is_no_member_cannot_be_removed: "ERR-1" "ERR-2";
    the_owner_cannot_be_removed: "MEM-4" "ERR-2";
    the_owner_cannot_be_removed_by_a_rekey: "MEM-4" "ERR-2";
    who_comes_back_has_only_the_new_key: "MEM-5";
    who_comes_back_at_the_same_epoch_has_only_the_new_key: "MEM-5";
    who_comes_back_after_a_rekey_removed_it_has_only_the_new_key: "MEM-5" "KEY-5";
    who_comes_back_is_a_new_member: "MEM-5" "MEM-1";
    who_comes_and_goes_many_times_is_in_or_out: "MEM-3" "MEM-5";
    a_member_is_seen_and_removed_through_another_client: "LIN-1", needs Clients;
}

/// The room r, owned by ann, with bob in it.
async fn with_bob(cx: &Cx, secret: bool) -> Verdict<Client> {
    let store = cx.open().await?;
    let (new, bob) = if secret {
        (encrypted("r", "ann"), joins_at("bob", 1))
    } else {
        (plain("r", "ann"), joins("bob"))
    };
    store.create_room(new).await?;
    store.add_member(&room("r"), bob).await?;
    Ok(store)
}

fn everybody() -> Scope {
    Scope::new(&["r", "s"], &["ann", "bob", "carl"])
}

async fn remove(store: &Client, who: &str) -> Result<(), Error> {
    store.remove_member(&room("r"), &endpoint(who)).await
}

async fn key(store: &Client, who: &str, number: u64) -> Result<SealedKey, Error> {
    store.key(&room("r"), &endpoint(who), epoch(number)).await
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

async fn a_removed_member_has_no_key_of_any_epoch(cx: Cx) -> Verdict {
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

async fn rekey_due(store: &Client, expected: bool) -> Verdict {
    same(store.room(&room("r")).await?.rekey_due, expected)?;
    let listed = store.rooms_of(&endpoint("ann"), Page::first()).await?;
    same(listed.iter().map(|room| room.rekey_due).collect::<Vec<_>>(), vec![expected])
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

async fn a_rekey_is_due_until_there_is_one(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    store.add_member(&r, joins_at("carl", 1)).await?;
    rekey_due(&store, false).await?;
    remove(&store, "bob").await?;
    remove(&store, "carl").await?;
    rekey_due(&store, true).await?;
    // Neither a member who comes nor a rekey that is refused makes it undone.
    store.add_member(&r, joins_at("bob", 1)).await?;
    rekey_due(&store, true).await?;
    fails(store.rekey(&r, rekey(2, [], ["ann", "bob"])).await, &stale(1))?;
    rekey_due(&store, true).await?;
    same(store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?.rekey_due, false)?;
    rekey_due(&store, false).await?;
    // A rekey that removes somebody leaves nobody with a key they should not have.
    same(store.rekey(&r, rekey(2, ["bob"], ["ann"])).await?.rekey_due, false)?;
    rekey_due(&store, false).await
}

async fn a_refused_removal_makes_no_rekey_due(cx: Cx) -> Verdict {
    let store = with_bob(&cx, true).await?;
    fails(remove(&store, "carl").await, &no_member("r", "carl"))?;
    fails(remove(&store, "ann").await, &Error::Conflict(Conflict::OwnerStays))?;
    rekey_due(&store, false).await
}

async fn who_is_no_member_cannot_be_removed(cx: Cx) -> Verdict {
    let (store, scope) = (with_bob(&cx, true).await?, everybody());
    store.create_room(plain("s", "carl")).await?;
    // carl is in another room; bob was here.
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
    // Nor as the last one there, nor at a later epoch.
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

/// bob's only key is the one for epoch `number`, and it is `bytes`.
async fn only_key(store: &Client, number: u64, bytes: &str) -> Verdict {
    let r = store.room(&room("r")).await?;
    for other in (0..=r.epoch.get() + 1).filter(|other| *other != number) {
        fails(key(store, "bob", other).await, &no_key("r", "bob", other))?;
    }
    same(key(store, "bob", number).await?.ciphertext, sealed(bytes))?;
    let latest = store.latest_key(&room("r"), &endpoint("bob")).await?;
    same((latest.epoch, latest.ciphertext), (epoch(number), sealed(bytes)))
}

fn bob_again(number: u64, bytes: &str) -> NewMember {
    NewMember::sealed(endpoint("bob"), at(9), epoch(number), sealed(bytes))
}

async fn who_comes_back_has_only_the_new_key(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    remove(&store, "bob").await?;
    store.rekey(&r, rekey(2, [], ["ann"])).await?;
    store.add_member(&r, bob_again(3, "back at 3")).await?;
    only_key(&store, 3, "back at 3").await
}

async fn who_comes_back_at_the_same_epoch_has_only_the_new_key(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    remove(&store, "bob").await?;
    store.add_member(&r, bob_again(2, "back at 2")).await?;
    only_key(&store, 2, "back at 2").await?;
    remove(&store, "bob").await?;
    store.add_member(&r, bob_again(2, "again at 2")).await?;
    only_key(&store, 2, "again at 2").await
}

async fn who_comes_back_after_a_rekey_removed_it_has_only_the_new_key(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    store.rekey(&r, rekey(2, ["bob"], ["ann"])).await?;
    for number in 1..=3 {
        fails(key(&store, "bob", number).await, &no_key("r", "bob", number))?;
    }
    store.add_member(&r, bob_again(3, "back at 3")).await?;
    only_key(&store, 3, "back at 3").await
}

async fn who_comes_back_is_a_new_member(cx: Cx) -> Verdict {
    let (store, r, bob) = (with_bob(&cx, true).await?, room("r"), endpoint("bob"));
    remove(&store, "bob").await?;
    store.rekey(&r, rekey(1, [], ["ann"])).await?;
    let again = Member { added_at: at(9), ..member_of("r", "bob", 2) };
    same(store.add_member(&r, bob_again(2, "back")).await?, again.clone())?;
    same(store.member(&r, &bob).await?, again.clone())?;
    same(store.members(&r, Page::after_id(endpoint("ann"))).await?, vec![again])?;
    let now = store.room(&r).await?;
    same(store.rooms_of(&bob, Page::first()).await?, vec![now])
}

async fn who_comes_and_goes_many_times_is_in_or_out(cx: Cx) -> Verdict {
    let (store, r, scope) = (with_bob(&cx, true).await?, room("r"), everybody());
    let (mut current, bob) = (1, endpoint("bob"));
    for round in 0..12_u64 {
        if round % 3 == 2 {
            store.rekey(&r, rekey(current, ["bob"], ["ann"])).await?;
            current += 1;
        } else {
            remove(&store, "bob").await?;
        }
        scope.observe(&store).await?;
        fails(store.member(&r, &bob).await, &no_member("r", "bob"))?;
        let bytes = format!("round {round}");
        store.add_member(&r, bob_again(current, &bytes)).await?;
        scope.observe(&store).await?;
        only_key(&store, current, &bytes).await?;
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
