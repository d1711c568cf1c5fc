//! Members that come back to a room.

use membership::{Member, NewMember, Page, Store};

use super::{everybody, key, remove, with_bob};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{at, endpoint, epoch, member_of, no_key, no_member, rekey, room, sealed};
use crate::transcript::Client;
use crate::verdict::{Verdict, fails, same};

declare! { "members";
    a_member_that_comes_back_has_only_its_new_key: "MEM-5";
    a_member_that_comes_back_at_the_same_epoch_has_only_its_new_key: "MEM-5";
    a_member_that_a_rekey_removed_comes_back_with_only_its_new_key: "MEM-5" "KEY-5";
    a_member_that_comes_back_has_a_new_membership: "MEM-5" "MEM-1";
    a_member_that_comes_and_goes_many_times_has_only_its_latest_key: "MEM-3" "MEM-5";
}

/// bob must have one key in the room r: `bytes`, for epoch `number`.
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

async fn a_member_that_comes_back_has_only_its_new_key(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    remove(&store, "bob").await?;
    store.rekey(&r, rekey(2, [], ["ann"])).await?;
    store.add_member(&r, bob_again(3, "back at 3")).await?;
    only_key(&store, 3, "back at 3").await
}

async fn a_member_that_comes_back_at_the_same_epoch_has_only_its_new_key(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    remove(&store, "bob").await?;
    store.add_member(&r, bob_again(2, "back at 2")).await?;
    only_key(&store, 2, "back at 2").await?;
    remove(&store, "bob").await?;
    store.add_member(&r, bob_again(2, "again at 2")).await?;
    only_key(&store, 2, "again at 2").await
}

async fn a_member_that_a_rekey_removed_comes_back_with_only_its_new_key(cx: Cx) -> Verdict {
    let (store, r) = (with_bob(&cx, true).await?, room("r"));
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    store.rekey(&r, rekey(2, ["bob"], ["ann"])).await?;
    for number in 1..=3 {
        fails(key(&store, "bob", number).await, &no_key("r", "bob", number))?;
    }
    store.add_member(&r, bob_again(3, "back at 3")).await?;
    only_key(&store, 3, "back at 3").await
}

async fn a_member_that_comes_back_has_a_new_membership(cx: Cx) -> Verdict {
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

async fn a_member_that_comes_and_goes_many_times_has_only_its_latest_key(cx: Cx) -> Verdict {
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
