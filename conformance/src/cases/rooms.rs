//! Making, reading and deleting rooms.

use std::sync::Arc;

use membership::{Conflict, Epoch, Error, NewMember, NewRoom, Page, Rekey, Role, Room, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, encrypted, endpoint, epoch, joins, joins_at, key_of, member_of, no_key, no_member, no_room,
    plain, rekey, room, room_exists, sealed, sealed_key, stale,
};
use crate::observe::{Scope, rooms_of};
use crate::together::together;
use crate::transcript::Client;
use crate::verdict::{Verdict, fails, same};

declare! { "rooms";
    timestamps_do_not_decide_which_rooms_and_members_exist: "TYPE-3" "ROOM-3" "LIST-1" "KEY-1";
    a_created_room_is_read_back: "ROOM-1" "ROOM-3";
    a_created_room_has_its_owner_as_its_only_member: "ROOM-1" "MEM-4" "LIST-4";
    a_created_encrypted_room_has_its_owners_key: "ROOM-1" "KEY-1";
    a_created_unencrypted_room_has_no_key: "ROOM-1" "KEY-10";
    an_id_in_use_is_refused_and_the_room_untouched: "ROOM-2" "ERR-2";
    one_endpoint_may_own_many_rooms: "ROOM-1" "LIST-4";
    a_room_is_read_with_its_current_epoch_and_rekey_due: "ROOM-3";
    a_missing_room_is_not_found: "ERR-1";
    a_deleted_room_is_gone_from_every_view: "ROOM-4" "LIST-4";
    a_deleted_room_leaves_no_key_of_any_epoch: "ROOM-4" "KEY-1";
    a_deletion_leaves_other_rooms_alone: "ROOM-4";
    a_missing_room_cannot_be_deleted: "ROOM-4" "ERR-2";
    a_room_larger_than_a_page_is_deleted_whole: "ROOM-4" "LIST-4";
    a_room_made_again_starts_afresh: "ROOM-5";
    a_room_made_again_has_none_of_the_former_members: "ROOM-5" "LIST-4";
    a_room_made_again_has_none_of_the_former_keys: "ROOM-5" "KEY-2";
    a_room_made_again_has_no_rekey_due: "ROOM-5";
    an_encrypted_room_may_be_made_again_unencrypted_and_back: "ROOM-5" "KEY-10";
    a_room_may_be_made_again_many_times: "ROOM-5" "ROOM-4";
    a_room_made_through_one_client_is_seen_by_another: "LIN-1", needs Clients;
    a_client_sees_a_room_that_another_client_deleted_and_made_again: "LIN-1" "ROOM-5",
        needs Clients;
}

/// Makes the encrypted room r of ann at epoch 3, with a rekey due: bob joined at epoch 1 and carl
/// at epoch 2, and dora was removed. Also makes the unencrypted room s of bob with the member ann.
async fn lived_in(cx: &Cx) -> Verdict<Client> {
    let (store, r) = (cx.open().await?, room("r"));
    store.create_room(encrypted("r", "ann")).await?;
    store.add_member(&r, joins_at("bob", 1)).await?;
    store.add_member(&r, joins_at("dora", 1)).await?;
    store.rekey(&r, rekey(1, [], ["ann", "bob", "dora"])).await?;
    store.add_member(&r, joins_at("carl", 2)).await?;
    store.rekey(&r, rekey(2, [], ["ann", "bob", "carl", "dora"])).await?;
    store.remove_member(&r, &endpoint("dora")).await?;
    store.create_room(plain("s", "bob")).await?;
    store.add_member(&room("s"), joins("ann")).await?;
    Ok(store)
}

const EVERYBODY: [&str; 5] = ["ann", "bob", "carl", "dora", "eve"];

fn everything() -> Scope {
    Scope::new(&["r", "s", "t"], &EVERYBODY)
}

async fn a_created_room_is_read_back(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for new in [plain("p", "ann"), encrypted("e", "bob")] {
        let created = store.create_room(new.clone()).await?;
        same(&created, &new.room())?;
        same(store.room(&new.id).await?, created)?;
    }
    Ok(())
}

async fn a_created_room_has_its_owner_as_its_only_member(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for new in [plain("p", "ann"), encrypted("e", "bob")] {
        let (owner, member) = (new.owner.clone(), new.owner_member());
        let created = store.create_room(new).await?;
        same(member.role, Role::Owner)?;
        same(store.member(&created.id, &owner).await?, member.clone())?;
        same(store.members(&created.id, Page::first()).await?, vec![member])?;
        same(store.rooms_of(&owner, Page::first()).await?, vec![created])?;
    }
    Ok(())
}

async fn a_created_encrypted_room_has_its_owners_key(cx: Cx) -> Verdict {
    let (store, ann) = (cx.open().await?, endpoint("ann"));
    store.create_room(encrypted("r", "ann")).await?;
    same(store.latest_key(&room("r"), &ann).await?, sealed_key("r", "ann", 1))?;
    same(store.key(&room("r"), &ann, Epoch::FIRST).await?, sealed_key("r", "ann", 1))?;
    for number in [0, 2] {
        let missed = store.key(&room("r"), &ann, epoch(number)).await;
        fails(missed, &no_key("r", "ann", number))?;
    }
    Ok(())
}

async fn a_created_unencrypted_room_has_no_key(cx: Cx) -> Verdict {
    let (store, ann) = (cx.open().await?, endpoint("ann"));
    let created = store.create_room(plain("r", "ann")).await?;
    same(created.epoch, Epoch::ZERO)?;
    fails(store.latest_key(&room("r"), &ann).await, &no_key("r", "ann", None))?;
    for number in [0, 1] {
        let missed = store.key(&room("r"), &ann, epoch(number)).await;
        fails(missed, &no_key("r", "ann", number))?;
    }
    Ok(())
}

async fn an_id_in_use_is_refused_and_the_room_untouched(cx: Cx) -> Verdict {
    let (store, scope) = (lived_in(&cx).await?, everything());
    for id in ["r", "s"] {
        let other = NewRoom::encrypted(room(id), endpoint("eve"), at(9), sealed("other"));
        let bobs = NewRoom::encrypted(room(id), endpoint("bob"), at(9), sealed("other"));
        for again in [encrypted(id, "ann"), plain(id, "ann"), plain(id, "eve"), other, bobs] {
            scope.refuses(&store, store.create_room(again), &room_exists(id)).await?;
        }
    }
    Ok(())
}

async fn one_endpoint_may_own_many_rooms(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut rooms = Vec::new();
    for id in ["a", "b", "c", "d"] {
        rooms.push(store.create_room(encrypted(id, "ann")).await?);
    }
    same(store.rooms_of(&endpoint("ann"), Page::first()).await?, rooms)?;
    for id in ["a", "b", "c", "d"] {
        let key = store.latest_key(&room(id), &endpoint("ann")).await?;
        same(key, sealed_key(id, "ann", 1))?;
    }
    Ok(())
}

async fn a_room_is_read_with_its_current_epoch_and_rekey_due(cx: Cx) -> Verdict {
    let (store, r) = (lived_in(&cx).await?, room("r"));
    let then = encrypted("r", "ann").room();
    let due = Room { epoch: epoch(3), rekey_due: true, ..then.clone() };
    same(store.room(&r).await?, due.clone())?;
    same(store.rooms_of(&endpoint("carl"), Page::first()).await?, vec![due])?;
    store.rekey(&r, rekey(3, [], ["ann", "bob", "carl"])).await?;
    let done = Room { epoch: epoch(4), ..then };
    same(store.room(&r).await?, done.clone())?;
    same(store.rooms_of(&endpoint("carl"), Page::first()).await?, vec![done])
}

async fn a_missing_room_is_not_found(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    fails(store.room(&room("none")).await, &no_room("none"))
}

async fn a_deleted_room_is_gone_from_every_view(cx: Cx) -> Verdict {
    let (store, r) = (lived_in(&cx).await?, room("r"));
    store.delete_room(&r).await?;
    fails(store.room(&r).await, &no_room("r"))?;
    fails(store.members(&r, Page::first()).await, &no_room("r"))?;
    for who in EVERYBODY.map(endpoint) {
        fails(store.member(&r, &who).await, &no_room("r"))?;
        let rooms = store.rooms_of(&who, Page::first()).await?;
        same(rooms.iter().any(|room| room.id == r), false)?;
    }
    let rekeying = store.rekey(&r, rekey(3, [], ["ann", "bob", "carl"])).await;
    fails(rekeying, &no_room("r"))?;
    fails(store.add_member(&r, joins_at("eve", 3)).await, &no_room("r"))?;
    everything().observe(&store).await?;
    Ok(())
}

async fn a_deleted_room_leaves_no_key_of_any_epoch(cx: Cx) -> Verdict {
    let (store, r) = (lived_in(&cx).await?, room("r"));
    store.delete_room(&r).await?;
    for who in EVERYBODY.map(endpoint) {
        fails(store.latest_key(&r, &who).await, &no_room("r"))?;
        for number in 0..5 {
            fails(store.key(&r, &who, epoch(number)).await, &no_room("r"))?;
        }
    }
    Ok(())
}

async fn a_deletion_leaves_other_rooms_alone(cx: Cx) -> Verdict {
    let store = lived_in(&cx).await?;
    store.create_room(encrypted("t", "bob")).await?;
    store.add_member(&room("t"), joins_at("dora", 1)).await?;
    store.create_room(plain("gone", "eve")).await?;
    store.add_member(&room("gone"), joins("ann")).await?;
    let before = everything().observe(&store).await?;
    store.create_room(encrypted("also gone", "ann")).await?;
    store.add_member(&room("also gone"), joins_at("bob", 1)).await?;
    store.rekey(&room("also gone"), rekey(1, [], ["ann", "bob"])).await?;
    store.delete_room(&room("also gone")).await?;
    everything().observe(&store).await?.unchanged_since(&before)?;
    store.delete_room(&room("gone")).await?;
    let rooms = store.rooms_of(&endpoint("ann"), Page::first()).await?;
    let names: Vec<_> = rooms.into_iter().map(|room| room.id).collect();
    same(names, vec![room("r"), room("s")])
}

async fn a_missing_room_cannot_be_deleted(cx: Cx) -> Verdict {
    let (store, scope, t) = (lived_in(&cx).await?, everything(), room("t"));
    scope.refuses(&store, store.delete_room(&t), &no_room("t")).await?;
    store.create_room(plain("t", "eve")).await?;
    store.delete_room(&t).await?;
    scope.refuses(&store, store.delete_room(&t), &no_room("t")).await
}

/// More members than any one page, batch or statement may hold.
async fn a_room_larger_than_a_page_is_deleted_whole(cx: Cx) -> Verdict {
    const MEMBERS: usize = 1200;
    let store = cx.open().await?.unrecorded();
    store.create_room(encrypted("large", "ann")).await?;
    let kept = store.create_room(plain("kept", "e7")).await?;
    let names: Vec<_> = (0..MEMBERS).map(|number| format!("e{number}")).collect();
    let adding = names.iter().map(|who| {
        let (store, new) = (Arc::clone(&store), joins_at(who, 1));
        async move { Ok(store.add_member(&room("large"), new).await?) }
    });
    together(adding).await?;
    cx.within_slow_bound(store.delete_room(&room("large"))).await??;
    fails(store.room(&room("large")).await, &no_room("large"))?;
    let looking = names.iter().map(|who| {
        let (store, who) = (Arc::clone(&store), endpoint(who));
        async move { Ok::<_, crate::verdict::Failure>(rooms_of(&*store, &who).await?) }
    });
    let left: Vec<_> = together(looking).await?.concat();
    same(left, vec![kept])?;
    store.create_room(encrypted("large", "ann")).await?;
    same(store.members(&room("large"), Page::first()).await?.len(), 1)?;
    let missed = store.latest_key(&room("large"), &endpoint("e0")).await;
    fails(missed, &no_key("large", "e0", None))
}

async fn a_room_made_again_starts_afresh(cx: Cx) -> Verdict {
    let (store, r) = (lived_in(&cx).await?, room("r"));
    store.delete_room(&r).await?;
    let new = NewRoom::encrypted(r.clone(), endpoint("eve"), at(99), sealed("eve's"));
    let again = store.create_room(new.clone()).await?;
    same(&again, &new.room())?;
    same(store.room(&r).await?, again.clone())?;
    same(store.members(&r, Page::first()).await?, vec![new.owner_member()])?;
    same(store.rooms_of(&endpoint("eve"), Page::first()).await?, vec![again])?;
    let key = store.latest_key(&r, &endpoint("eve")).await?;
    same((key.epoch, key.ciphertext), (Epoch::FIRST, sealed("eve's")))?;
    everything().observe(&store).await?;
    Ok(())
}

async fn a_room_made_again_has_none_of_the_former_members(cx: Cx) -> Verdict {
    let (store, r) = (lived_in(&cx).await?, room("r"));
    store.delete_room(&r).await?;
    store.create_room(encrypted("r", "eve")).await?;
    for who in ["ann", "bob", "carl", "dora"] {
        let gone = endpoint(who);
        fails(store.member(&r, &gone).await, &no_member("r", who))?;
        fails(store.remove_member(&r, &gone).await, &no_member("r", who))?;
        let rooms = store.rooms_of(&gone, Page::first()).await?;
        same(rooms.iter().any(|room| room.id == r), false)?;
        fails(store.latest_key(&r, &gone).await, &no_key("r", who, None))?;
    }
    // The former owner can be added and removed like any other endpoint.
    store.add_member(&r, joins_at("ann", 1)).await?;
    same(store.member(&r, &endpoint("ann")).await?.role, Role::Member)?;
    store.remove_member(&r, &endpoint("ann")).await?;
    Ok(())
}

/// The new room even reaches the epochs of the former one, with the same members.
async fn a_room_made_again_has_none_of_the_former_keys(cx: Cx) -> Verdict {
    let (store, r) = (lived_in(&cx).await?, room("r"));
    store.delete_room(&r).await?;
    let (ann, bob) = (endpoint("ann"), endpoint("bob"));
    store.create_room(NewRoom::encrypted(r.clone(), ann.clone(), at(9), sealed("new 1"))).await?;
    for number in 2..5 {
        for future in number..6 {
            fails(store.key(&r, &ann, epoch(future)).await, &no_key("r", "ann", future))?;
        }
        let key = sealed(format!("new {number}"));
        let from = epoch(number - 1);
        store.rekey(&r, Rekey::new(from, [], [(ann.clone(), key.clone())])?).await?;
        same(store.latest_key(&r, &ann).await?.ciphertext, key)?;
    }
    for number in 1..5 {
        let key = store.key(&r, &ann, epoch(number)).await?;
        same((key.epoch, key.ciphertext), (epoch(number), sealed(format!("new {number}"))))?;
    }
    store.add_member(&r, NewMember::sealed(bob.clone(), at(9), epoch(4), sealed("b"))).await?;
    for number in [0, 1, 2, 3, 5] {
        fails(store.key(&r, &bob, epoch(number)).await, &no_key("r", "bob", number))?;
    }
    same(store.latest_key(&r, &bob).await?.ciphertext, sealed("b"))
}

async fn a_room_made_again_has_no_rekey_due(cx: Cx) -> Verdict {
    let (store, r) = (lived_in(&cx).await?, room("r"));
    same(store.room(&r).await?.rekey_due, true)?;
    store.delete_room(&r).await?;
    same(store.create_room(encrypted("r", "ann")).await?.rekey_due, false)?;
    same(store.room(&r).await?.rekey_due, false)
}

async fn an_encrypted_room_may_be_made_again_unencrypted_and_back(cx: Cx) -> Verdict {
    let (store, r) = (lived_in(&cx).await?, room("r"));
    let ann = endpoint("ann");
    store.delete_room(&r).await?;
    store.create_room(plain("r", "ann")).await?;
    store.add_member(&r, joins("bob")).await?;
    same(store.member(&r, &endpoint("bob")).await?, member_of("r", "bob", 0))?;
    for number in 0..5 {
        fails(store.key(&r, &ann, epoch(number)).await, &no_key("r", "ann", number))?;
    }
    let unencrypted = Error::Conflict(Conflict::RoomUnencrypted);
    let rekeying = store.rekey(&r, rekey(3, [], ["ann", "bob"])).await;
    fails(rekeying, &unencrypted)?;
    everything().observe(&store).await?;
    store.delete_room(&r).await?;
    store.create_room(encrypted("r", "ann")).await?;
    fails(store.member(&r, &endpoint("bob")).await, &no_member("r", "bob"))?;
    same(store.latest_key(&r, &ann).await?, sealed_key("r", "ann", 1))?;
    everything().observe(&store).await?;
    Ok(())
}

async fn a_room_may_be_made_again_many_times(cx: Cx) -> Verdict {
    let (store, r, scope) = (cx.open().await?, room("r"), everything());
    let nothing = scope.observe(&store).await?;
    for round in 0..8 {
        let owner = EVERYBODY.get(round % 5).copied().unwrap_or("ann");
        let guest = EVERYBODY.get((round + 2) % 5).copied().unwrap_or("bob");
        if round % 3 == 2 {
            store.create_room(plain("r", owner)).await?;
            store.add_member(&r, joins(guest)).await?;
        } else {
            store.create_room(encrypted("r", owner)).await?;
            store.add_member(&r, joins_at(guest, 1)).await?;
            for from in 1..3 {
                store.rekey(&r, rekey(from, [], [owner, guest])).await?;
            }
        }
        scope.observe(&store).await?;
        let members = store.members(&r, Page::first()).await?;
        let mut names: Vec<_> = members.into_iter().map(|member| member.endpoint).collect();
        names.retain(|name| *name != endpoint(owner) && *name != endpoint(guest));
        same(names, vec![])?;
        store.delete_room(&r).await?;
        scope.observe(&store).await?.unchanged_since(&nothing)?;
    }
    Ok(())
}

async fn a_room_made_through_one_client_is_seen_by_another(cx: Cx) -> Verdict {
    let (one, two) = (cx.open().await?, cx.open().await?);
    let created = one.create_room(plain("r", "ann")).await?;
    same(two.room(&room("r")).await?, created)
}

async fn a_client_sees_a_room_that_another_client_deleted_and_made_again(cx: Cx) -> Verdict {
    let (one, r) = (lived_in(&cx).await?, room("r"));
    let two = cx.open().await?;
    // The first client reads everything, so that whatever it caches of the former room is stale.
    everything().observe(&one).await?;
    two.delete_room(&r).await?;
    fails(one.room(&r).await, &no_room("r"))?;
    fails(one.latest_key(&r, &endpoint("ann")).await, &no_room("r"))?;
    let again = two.create_room(encrypted("r", "bob")).await?;
    same(one.room(&r).await?, again)?;
    fails(one.member(&r, &endpoint("ann")).await, &no_member("r", "ann"))?;
    fails(one.rekey(&r, rekey(3, [], ["bob"])).await, &stale(1))?;
    let seen = everything().observe(&two).await?;
    everything().observe(&one).await?.unchanged_since(&seen)
}

/// Rooms and members exist, are listed and have their keys whatever their timestamps are.
async fn timestamps_do_not_decide_which_rooms_and_members_exist(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let moments = super::users::MOMENTS;
    for (number, when) in (0..).zip(moments) {
        let (id, ann) = (room(&format!("r{number}")), endpoint("ann"));
        let key = key_of(&ann, Epoch::FIRST);
        let new = NewRoom::encrypted(id.clone(), ann.clone(), at(when), key);
        store.create_room(new.clone()).await?;
        for (other, when) in (0..).zip(moments) {
            let (who, epoch) = (endpoint(&format!("m{other}")), Epoch::FIRST);
            let joins = NewMember::sealed(who.clone(), at(when), epoch, key_of(&who, epoch));
            let added = store.add_member(&id, joins).await?;
            same(added.added_at, at(when))?;
            same(store.member(&id, &who).await?, added)?;
            same(store.latest_key(&id, &who).await?.ciphertext, key_of(&who, epoch))?;
        }
        same(store.room(&id).await?, new.room())?;
        same(store.members(&id, Page::first()).await?.len(), moments.len() + 1)?;
        same(store.rooms_of(&ann, Page::first()).await?.len(), number + 1)?;
    }
    Ok(())
}
