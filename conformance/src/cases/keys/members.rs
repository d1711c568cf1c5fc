//! The keys of members that join, leave and return.

use membership::{Page, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at_epoch, endpoint, epoch, joins_at, member_of, mismatch, no_key, rekey, room, sealed,
    sealed_key,
};
use crate::scene::{advance, crew};
use crate::verdict::{Verdict, fails, same};

declare! { "keys";
    a_new_member_has_only_the_key_of_the_current_epoch: "KEY-1" "MEM-1";
    a_member_added_between_rekeys_has_keys_from_then_on: "KEY-1" "KEY-9";
    a_member_added_before_a_rekey_must_be_in_its_keys: "KEY-6" "KEY-8";
    a_removed_member_has_no_key_at_any_epoch: "KEY-1" "MEM-3";
    a_rekey_with_a_key_for_a_removed_member_is_a_conflict: "KEY-6" "MEM-3";
    a_returned_member_has_only_keys_from_its_return_on: "MEM-5" "KEY-1";
    a_member_removed_by_rekey_returns_without_its_former_keys: "MEM-5" "KEY-5";
    a_member_that_returns_within_one_epoch_has_its_new_key: "MEM-5" "KEY-2";
    remaining_members_keep_their_keys_when_another_is_removed: "KEY-9" "MEM-3";
}

/// `who` must have keys in room "r" at exactly the epochs `at`; epochs from 0 to `up_to` are read.
async fn has_keys_at(store: &dyn Store, who: &str, at: &[u64], up_to: u64) -> Verdict {
    for number in 0..=up_to {
        let found = store.key(&room("r"), &endpoint(who), epoch(number)).await;
        if at.contains(&number) {
            same(found?, sealed_key("r", who, number))?;
        } else {
            fails(found, &no_key("r", who, number))?;
        }
    }
    Ok(())
}

async fn a_new_member_has_only_the_key_of_the_current_epoch(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann"]).await?;
    advance(&store, "r", &["ann"], 1, 5).await?;
    store.add_member(&room("r"), joins_at("bob", 5)).await?;
    has_keys_at(&store, "bob", &[5], 6).await?;
    let latest = store.latest_key(&room("r"), &endpoint("bob")).await?;
    same(latest, sealed_key("r", "bob", 5))
}

async fn a_member_added_between_rekeys_has_keys_from_then_on(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann"]).await?;
    store.rekey(&room("r"), rekey(1, [], ["ann"])).await?;
    store.add_member(&room("r"), joins_at("bob", 2)).await?;
    store.rekey(&room("r"), rekey(2, [], ["ann", "bob"])).await?;
    store.add_member(&room("r"), joins_at("cid", 3)).await?;
    store.rekey(&room("r"), rekey(3, [], ["ann", "bob", "cid"])).await?;
    has_keys_at(&store, "ann", &[1, 2, 3, 4], 5).await?;
    has_keys_at(&store, "bob", &[2, 3, 4], 5).await?;
    has_keys_at(&store, "cid", &[3, 4], 5).await
}

async fn a_member_added_before_a_rekey_must_be_in_its_keys(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let before = crew(&store, "r", &["ann"]).await?;
    let planned = rekey(1, [], ["ann"]);
    store.add_member(&room("r"), joins_at("bob", 1)).await?;
    fails(store.rekey(&room("r"), planned).await, &mismatch(["bob"], []))?;
    let returned = store.rekey(&room("r"), rekey(1, [], ["ann", "bob"])).await?;
    same(returned, at_epoch(&before, 2))
}

async fn a_removed_member_has_no_key_at_any_epoch(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob"]).await?;
    advance(&store, "r", &["ann", "bob"], 1, 4).await?;
    store.remove_member(&room("r"), &endpoint("bob")).await?;
    has_keys_at(&store, "bob", &[], 5).await?;
    let latest = store.latest_key(&room("r"), &endpoint("bob")).await;
    fails(latest, &no_key("r", "bob", None))?;
    // The next rekey does not bring the keys back.
    store.rekey(&room("r"), rekey(4, [], ["ann"])).await?;
    has_keys_at(&store, "bob", &[], 6).await
}

async fn a_rekey_with_a_key_for_a_removed_member_is_a_conflict(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let before = crew(&store, "r", &["ann", "bob"]).await?;
    let planned = rekey(1, [], ["ann", "bob"]);
    store.remove_member(&room("r"), &endpoint("bob")).await?;
    fails(store.rekey(&room("r"), planned).await, &mismatch([], ["bob"]))?;
    same(store.room(&room("r")).await?.rekey_due, true)?;
    has_keys_at(&store, "bob", &[], 3).await?;
    let returned = store.rekey(&room("r"), rekey(1, [], ["ann"])).await?;
    same(returned, at_epoch(&before, 2))
}

async fn a_returned_member_has_only_keys_from_its_return_on(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob"]).await?;
    advance(&store, "r", &["ann", "bob"], 1, 3).await?;
    store.remove_member(&room("r"), &endpoint("bob")).await?;
    store.rekey(&room("r"), rekey(3, [], ["ann"])).await?;
    let returned = store.add_member(&room("r"), joins_at("bob", 4)).await?;
    same(&returned, &member_of("r", "bob", 4))?;
    same(store.member(&room("r"), &endpoint("bob")).await?, returned)?;
    has_keys_at(&store, "bob", &[4], 5).await?;
    store.rekey(&room("r"), rekey(4, [], ["ann", "bob"])).await?;
    has_keys_at(&store, "bob", &[4, 5], 6).await
}

async fn a_member_removed_by_rekey_returns_without_its_former_keys(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob", "cid"]).await?;
    store.rekey(&room("r"), rekey(1, [], ["ann", "bob", "cid"])).await?;
    store.rekey(&room("r"), rekey(2, ["bob"], ["ann", "cid"])).await?;
    let returned = store.add_member(&room("r"), joins_at("bob", 3)).await?;
    same(returned, member_of("r", "bob", 3))?;
    has_keys_at(&store, "bob", &[3], 4).await?;
    has_keys_at(&store, "cid", &[1, 2, 3], 4).await
}

async fn a_member_that_returns_within_one_epoch_has_its_new_key(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let (r, bob) = (room("r"), endpoint("bob"));
    crew(&store, "r", &["ann", "bob"]).await?;
    store.remove_member(&r, &bob).await?;
    let other = sealed("another key of bob's for epoch 1");
    let mut again = joins_at("bob", 1);
    again.key = Some((epoch(1), other.clone()));
    store.add_member(&r, again).await?;
    same(store.key(&r, &bob, epoch(1)).await?.ciphertext, other.clone())?;
    same(store.latest_key(&r, &bob).await?.ciphertext, other)?;
    // A rekey is still due: bob knew a key of epoch 1 while he was no member.
    same(store.room(&r).await?.rekey_due, true)
}

async fn remaining_members_keep_their_keys_when_another_is_removed(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    // A store that removes keys by a prefix of the id would remove bobby's keys with bob's.
    let who = ["ann", "bob", "bobby", "bo", "bob.1", "Bob"];
    crew(&store, "r", &who).await?;
    store.rekey(&room("r"), rekey(1, [], who)).await?;
    store.remove_member(&room("r"), &endpoint("bob")).await?;
    for stays in who.into_iter().filter(|who| *who != "bob") {
        has_keys_at(&store, stays, &[1, 2], 3).await?;
    }
    has_keys_at(&store, "bob", &[], 3).await?;
    let members = store.members(&room("r"), Page::first()).await?;
    same(members.len(), who.len() - 1)
}
