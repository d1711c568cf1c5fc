//! Rekeys that are refused: the error of each, and that it changes nothing.

use membership::{Conflict, EndpointId, Epoch, Error, Rekey, Room, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at_epoch, endpoint, epoch, joins_at, key_of, mismatch, no_member, no_room, rekey, room, stale,
};
use crate::observe::observe;
use crate::scene::{advance, crew, open_crew};
use crate::show::Show;
use crate::verdict::{Failure, Verdict, fails, holds, same};

declare! { "keys";
    a_rekey_from_another_epoch_is_stale: "KEY-5" "ERR-2";
    a_repeated_rekey_is_stale: "KEY-5" "ERR-2";
    a_rekey_of_a_missing_room_is_not_found: "ERR-1";
    a_rekey_of_an_unencrypted_room_is_a_conflict: "KEY-10" "ERR-2";
    removing_a_stranger_by_rekey_is_not_found: "KEY-5" "ERR-2";
    a_rekey_that_removes_the_owner_is_a_conflict: "MEM-4" "ERR-2";
    a_missing_key_is_a_conflict_that_names_the_member: "KEY-6" "ERR-2";
    an_extra_key_is_a_conflict_that_names_the_endpoint: "KEY-6" "ERR-2";
    missing_and_extra_endpoints_are_both_named: "KEY-6" "ERR-2";
    a_rekey_without_keys_is_a_conflict: "KEY-6" "ERR-2";
    keys_for_other_spellings_of_a_name_are_extra: "KEY-6" "TYPE-1";
    at_most_ten_missing_members_are_named_in_byte_order: "KEY-6";
    at_most_ten_extra_endpoints_are_named_in_byte_order: "KEY-6";
    a_rekey_with_a_key_for_an_endpoint_that_it_removes_is_invalid: "KEY-5" "TYPE-4";
    a_rekey_to_which_several_errors_apply_returns_the_first: "ERR-4";
    a_room_can_reach_the_last_epoch_but_not_pass_it: "TYPE-6" "KEY-5", needs Epochs;
}

/// The rekey `refused` of room `id` must fail with `error` and change nothing in rooms "r" and "p".
async fn is_refused(store: &dyn Store, id: &str, refused: Rekey, error: &Error) -> Verdict {
    let who = ["ann", "bob", "cid", "dee", "eve"].map(endpoint);
    let rooms = [room("r"), room("p")];
    let before = observe(store, &rooms, &who, &[]).await?;
    fails(store.rekey(&room(id), refused).await, error)?;
    same(observe(store, &rooms, &who, &[]).await?, before)
}

/// Makes the room "r" of ann, bob and cid at epoch 3. A rekey is due, since dee joined and was
/// removed.
async fn worn_room(store: &dyn Store) -> Verdict {
    crew(store, "r", &["ann", "bob", "cid"]).await?;
    advance(store, "r", &["ann", "bob", "cid"], 1, 3).await?;
    store.add_member(&room("r"), joins_at("dee", 3)).await?;
    store.remove_member(&room("r"), &endpoint("dee")).await?;
    Ok(())
}

async fn a_rekey_from_another_epoch_is_stale(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    worn_room(&store).await?;
    for from in [0, 1, 2, 4, 5, 1 << 32, (1 << 32) + 3, Epoch::MAX.get() - 1] {
        let refused = rekey(from, ["cid"], ["ann", "bob"]);
        is_refused(&store, "r", refused, &stale(3)).await?;
    }
    let keys = ["ann", "bob", "cid"].map(|who| (endpoint(who), key_of(&endpoint(who), epoch(4))));
    is_refused(&store, "r", Rekey::new(Epoch::MAX, [], keys)?, &stale(3)).await
}

async fn a_repeated_rekey_is_stale(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob"]).await?;
    store.rekey(&room("r"), rekey(1, [], ["ann", "bob"])).await?;
    is_refused(&store, "r", rekey(1, [], ["ann", "bob"]), &stale(2)).await
}

async fn a_rekey_of_a_missing_room_is_not_found(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    worn_room(&store).await?;
    is_refused(&store, "none", rekey(1, [], ["ann"]), &no_room("none")).await?;
    is_refused(&store, "R", rekey(3, [], ["ann", "bob", "cid"]), &no_room("R")).await?;
    fails(store.room(&room("none")).await, &no_room("none"))
}

async fn a_rekey_of_an_unencrypted_room_is_a_conflict(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    open_crew(&store, "p", &["ann", "bob"]).await?;
    let conflict = Conflict::RoomUnencrypted.into();
    for from in [0, 1, 7] {
        is_refused(&store, "p", rekey(from, [], ["ann", "bob"]), &conflict).await?;
        is_refused(&store, "p", rekey(from, ["bob"], ["ann"]), &conflict).await?;
        is_refused(&store, "p", rekey(from, ["eve"], []), &conflict).await?;
        is_refused(&store, "p", rekey(from, [], []), &conflict).await?;
    }
    store.remove_member(&room("p"), &endpoint("bob")).await?;
    is_refused(&store, "p", rekey(0, [], ["ann"]), &conflict).await?;
    let found = store.room(&room("p")).await?;
    same((found.epoch, found.rekey_due), (Epoch::ZERO, false))
}

async fn removing_a_stranger_by_rekey_is_not_found(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    worn_room(&store).await?;
    let everyone = ["ann", "bob", "cid"];
    is_refused(&store, "r", rekey(3, ["eve"], everyone), &no_member("r", "eve")).await?;
    // A former member counts as a stranger.
    is_refused(&store, "r", rekey(3, ["dee"], everyone), &no_member("r", "dee")).await?;
    // The refused rekey does not remove bob either.
    is_refused(&store, "r", rekey(3, ["bob", "eve"], ["ann", "cid"]), &no_member("r", "eve")).await
}

async fn a_rekey_that_removes_the_owner_is_a_conflict(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    worn_room(&store).await?;
    let conflict = Conflict::OwnerStays.into();
    is_refused(&store, "r", rekey(3, ["ann"], ["bob", "cid"]), &conflict).await?;
    is_refused(&store, "r", rekey(3, ["ann", "bob", "cid"], []), &conflict).await?;
    crew(&store, "alone", &["ann"]).await?;
    is_refused(&store, "alone", rekey(1, ["ann"], []), &conflict).await
}

async fn a_missing_key_is_a_conflict_that_names_the_member(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    worn_room(&store).await?;
    for (keys, missing) in
        [(["bob", "cid"], "ann"), (["ann", "cid"], "bob"), (["ann", "bob"], "cid")]
    {
        is_refused(&store, "r", rekey(3, [], keys), &mismatch([missing], [])).await?;
    }
    // The refused rekey does not remove bob either.
    is_refused(&store, "r", rekey(3, ["bob"], ["ann"]), &mismatch(["cid"], [])).await?;
    let whole = store.rekey(&room("r"), rekey(3, [], ["ann", "bob", "cid"])).await?;
    same(whole.epoch, epoch(4))
}

async fn an_extra_key_is_a_conflict_that_names_the_endpoint(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    worn_room(&store).await?;
    for extra in ["eve", "dee"] {
        let refused = rekey(3, [], ["ann", "bob", "cid", extra]);
        is_refused(&store, "r", refused, &mismatch([], [extra])).await?;
        let refused = rekey(3, ["cid"], ["ann", "bob", extra]);
        is_refused(&store, "r", refused, &mismatch([], [extra])).await?;
    }
    Ok(())
}

async fn missing_and_extra_endpoints_are_both_named(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    worn_room(&store).await?;
    // There are as many keys as members: a store that only counts would accept them.
    let refused = rekey(3, [], ["ann", "bob", "eve"]);
    is_refused(&store, "r", refused, &mismatch(["cid"], ["eve"])).await?;
    let refused = rekey(3, [], ["dee", "eve", "aaa"]);
    let named = mismatch(["ann", "bob", "cid"], ["aaa", "dee", "eve"]);
    is_refused(&store, "r", refused, &named).await?;
    let refused = rekey(3, ["bob"], ["ann", "eve"]);
    is_refused(&store, "r", refused, &mismatch(["cid"], ["eve"])).await
}

async fn a_rekey_without_keys_is_a_conflict(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    worn_room(&store).await?;
    is_refused(&store, "r", rekey(3, [], []), &mismatch(["ann", "bob", "cid"], [])).await?;
    is_refused(&store, "r", rekey(3, ["bob", "cid"], []), &mismatch(["ann"], [])).await
}

async fn keys_for_other_spellings_of_a_name_are_extra(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "\u{e9}va"]).await?;
    let other_case = rekey(1, [], ["Ann", "\u{e9}va"]);
    is_refused(&store, "r", other_case, &mismatch(["ann"], ["Ann"])).await?;
    let decomposed = rekey(1, [], ["ann", "e\u{301}va"]);
    is_refused(&store, "r", decomposed, &mismatch(["\u{e9}va"], ["e\u{301}va"])).await?;
    let trailing_space = rekey(1, [], ["ann ", "\u{e9}va"]);
    is_refused(&store, "r", trailing_space, &mismatch(["ann"], ["ann "])).await
}

/// `count` ids in byte order. Other orders differ: here "10" comes before "2", "X1" before "x0",
/// and "x0" before "é3".
fn many_names(count: usize) -> Vec<EndpointId> {
    let name = |n: usize| match n % 4 {
        0 => endpoint(&format!("x{n}")),
        1 => endpoint(&format!("X{n}")),
        2 => endpoint(&format!("{n}")),
        _ => endpoint(&format!("\u{e9}{n}")),
    };
    let mut names: Vec<_> = (0..count).map(name).collect();
    names.sort();
    names
}

/// The error must name the first ten of `all` and say how many more there are. `missing` tells
/// whether they are missing or extra.
fn names_ten_of(result: &Result<Room, Error>, all: &[EndpointId], missing: bool) -> Verdict {
    let Err(Error::Conflict(Conflict::KeysMismatch { missing: left_out, extra })) = result else {
        return Err(Failure::answer("Conflict: keys mismatch", &result));
    };
    let (named, none) = if missing { (left_out, extra) } else { (extra, left_out) };
    let first: Vec<_> = all.iter().take(10).cloned().collect();
    same(named.first().to_vec(), first)?;
    same(named.more(), all.len().saturating_sub(10))?;
    same((none.first().len(), none.more()), (0, 0))?;
    let text = result.show();
    let says = all.len() <= 10 || text.contains(&format!("and {} more", all.len() - 10));
    holds(says, "a message that says how many more", &text)
}

async fn at_most_ten_missing_members_are_named_in_byte_order(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for count in [9, 10, 11, 25] {
        let id = format!("r{count}");
        crew(&store, &id, &["ann"]).await?;
        let all = many_names(count);
        // Added in descending order, so that a store that lists them in order of arrival fails.
        for who in all.iter().rev() {
            store.add_member(&room(&id), joins_at(who.as_str(), 1)).await?;
        }
        let refused = store.rekey(&room(&id), rekey(1, [], ["ann"])).await;
        names_ten_of(&refused, &all, true)?;
        same(store.room(&room(&id)).await?.epoch, epoch(1))?;
    }
    Ok(())
}

async fn at_most_ten_extra_endpoints_are_named_in_byte_order(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann"]).await?;
    for count in [9, 10, 11, 25] {
        let all = many_names(count);
        let given = all.iter().rev().map(EndpointId::as_str).chain(["ann"]);
        let refused = store.rekey(&room("r"), rekey(1, [], given)).await;
        names_ten_of(&refused, &all, false)?;
        same(store.room(&room("r")).await?.epoch, epoch(1))?;
    }
    Ok(())
}

async fn a_rekey_with_a_key_for_an_endpoint_that_it_removes_is_invalid(_: Cx) -> Verdict {
    let (bob, key) = (endpoint("bob"), key_of(&endpoint("bob"), epoch(2)));
    let both = Rekey::new(epoch(1), [bob.clone()], [(bob.clone(), key.clone())]);
    let Err(error @ Error::Invalid(_)) = &both else {
        return Err(Failure::new("Invalid", format!("{both:?}")));
    };
    holds(error.to_string().contains("bob"), "a message that names bob", error)?;
    let twice = Rekey::new(epoch(1), [], [(bob.clone(), key.clone()), (bob, key)]);
    holds(matches!(twice, Err(Error::Invalid(_))), "Invalid", &format!("{twice:?}"))
}

async fn a_rekey_to_which_several_errors_apply_returns_the_first(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    worn_room(&store).await?;
    open_crew(&store, "p", &["ann", "bob"]).await?;
    // Each of these rekeys also has every error that comes later in ERR-4.
    let all = |from| rekey(from, ["ann", "eve"], ["zed"]);
    is_refused(&store, "none", all(9), &no_room("none")).await?;
    is_refused(&store, "p", all(9), &Conflict::RoomUnencrypted.into()).await?;
    is_refused(&store, "r", all(9), &stale(3)).await?;
    is_refused(&store, "r", all(3), &no_member("r", "eve")).await?;
    let refused = store.rekey(&room("r"), rekey(3, ["ann"], ["zed"])).await;
    holds(matches!(refused, Err(Error::Conflict(_))), "a Conflict", &refused)
}

async fn a_room_can_reach_the_last_epoch_but_not_pass_it(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let before = crew(&store, "r", &["ann", "bob"]).await?;
    cx.instance().plant_epoch(&room("r"), epoch(Epoch::MAX.get() - 1)).await?;
    let last = store.rekey(&room("r"), rekey(Epoch::MAX.get() - 1, [], ["ann", "bob"])).await?;
    same(last, at_epoch(&before, Epoch::MAX.get()))?;
    for who in ["ann", "bob"].map(endpoint) {
        let latest = store.latest_key(&room("r"), &who).await?;
        same((latest.epoch, latest.ciphertext), (Epoch::MAX, key_of(&who, Epoch::MAX)))?;
    }
    let keys = ["ann", "bob"].map(|who| (endpoint(who), key_of(&endpoint(who), epoch(7))));
    let beyond = Rekey::new(Epoch::MAX, [], keys)?;
    is_refused(&store, "r", beyond, &Conflict::LastEpoch.into()).await?;
    // A room at the last epoch still takes other changes.
    store.remove_member(&room("r"), &endpoint("bob")).await?;
    same(store.room(&room("r")).await?.rekey_due, true)
}
