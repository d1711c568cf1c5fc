//! What `NotFound` names, and which error is returned where several apply (clause ERR-4).

use membership::{Conflict, Epoch, Error, Page, Rekey, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, epoch, joins, joins_at, member_exists, mismatch, no_key,
    no_member, no_room, no_user, plain, rekey, room, room_exists, sealed, stale, user, user_exists,
    user_key,
};
use crate::observe::Scope;
use crate::transcript::Client;
use crate::verdict::{Verdict, fails};

declare! { "errors";
    every_look_up_in_a_missing_room_names_the_room: "ERR-1" "LIST-3";
    not_found_names_the_missing_member: "ERR-1";
    not_found_names_the_missing_key_and_its_epoch: "ERR-1" "KEY-2" "KEY-3";
    not_found_names_the_missing_user: "ERR-1";
    a_missing_user_is_denied_as_unknown: "AUTH-1";
    a_refused_write_can_be_corrected_and_repeated: "ERR-2";
    creating_a_room_twice_is_already_exists_whatever_else_differs: "ERR-4" "ERR-2";
    deleting_a_missing_room_changes_nothing: "ERR-4" "ERR-2";
    adding_a_member_returns_the_first_error_that_applies: "ERR-4" "ERR-2";
    removing_a_member_returns_the_first_error_that_applies: "ERR-4" "ERR-2";
    a_rekey_reports_a_missing_or_unencrypted_room_before_all_else: "ERR-4" "ERR-2";
    a_rekey_reports_a_stale_epoch_before_wrong_members: "ERR-4" "ERR-2";
    a_rekey_reports_a_missing_member_before_owner_and_key_conflicts: "ERR-4" "ERR-2";
    a_rekey_reports_the_last_epoch_after_stale_epoch_and_missing_member:
        "ERR-4" "ERR-2", needs Epochs;
    a_used_bootstrap_is_reported_before_a_known_key: "ERR-4" "USER-1" "ERR-2";
    adding_or_revoking_a_user_returns_the_first_error_that_applies: "ERR-4" "ERR-2";
    a_closed_client_reports_closed_before_any_other_error: "ERR-4" "CLOSE-2";
}

/// Opens a client and makes the records that most cases of this file use.
///
/// These are the encrypted room e at epoch 2 and the unencrypted room p, both with ann and bob, the
/// admin 1, the user 2 and the revoked user 3. The endpoint carl and the user 9 do not exist.
async fn a_world(cx: &Cx) -> Verdict<Client> {
    let store = cx.open().await?;
    store.create_room(encrypted("e", "ann")).await?;
    store.add_member(&room("e"), joins_at("bob", 1)).await?;
    store.rekey(&room("e"), rekey(1, [], ["ann", "bob"])).await?;
    store.create_room(plain("p", "ann")).await?;
    store.add_member(&room("p"), joins("bob")).await?;
    store.bootstrap_admin(admin(user_key(1))).await?;
    store.add_user(user(user_key(2))).await?;
    store.add_user(user(user_key(3))).await?;
    store.revoke_user(&user_key(3), at(5)).await?;
    Ok(store)
}

fn everything() -> Scope {
    let users = [1, 2, 3, 9].map(user_key);
    Scope::new(&["e", "p", "none"], &["ann", "bob", "carl"]).with_users(&users)
}

const OWNER_STAYS: Error = Error::Conflict(Conflict::OwnerStays);
const KEY_MISSING: Error = Error::Conflict(Conflict::KeyMissing);
const UNENCRYPTED: Error = Error::Conflict(Conflict::RoomUnencrypted);
const ADMIN_EXISTS: Error = Error::Conflict(Conflict::AdminExists);
const LAST_ADMIN: Error = Error::Conflict(Conflict::LastAdmin);
const LAST_EPOCH: Error = Error::Conflict(Conflict::LastEpoch);

async fn every_look_up_in_a_missing_room_names_the_room(cx: Cx) -> Verdict {
    let (store, none) = (a_world(&cx).await?, room("none"));
    let missed = no_room("none");
    fails(store.room(&none).await, &missed)?;
    for page in [Page::first(), Page::after_id(endpoint("ann")), Page::new(None, 1)?] {
        fails(store.members(&none, page).await, &missed)?;
    }
    for who in ["ann", "carl"].map(endpoint) {
        fails(store.member(&none, &who).await, &missed)?;
        fails(store.latest_key(&none, &who).await, &missed)?;
        for number in [0, 1, 2, Epoch::MAX.get()] {
            fails(store.key(&none, &who, epoch(number)).await, &missed)?;
        }
    }
    Ok(())
}

async fn not_found_names_the_missing_member(cx: Cx) -> Verdict {
    let store = a_world(&cx).await?;
    for id in ["e", "p"] {
        let missed = store.member(&room(id), &endpoint("carl")).await;
        fails(missed, &no_member(id, "carl"))?;
    }
    // A removed member is missing like any other endpoint.
    store.remove_member(&room("e"), &endpoint("bob")).await?;
    fails(store.member(&room("e"), &endpoint("bob")).await, &no_member("e", "bob"))
}

async fn not_found_names_the_missing_key_and_its_epoch(cx: Cx) -> Verdict {
    let store = a_world(&cx).await?;
    store.add_member(&room("e"), joins_at("dora", 2)).await?;
    // Members at epochs before they joined or after the current one, endpoints that are no members,
    // and an unencrypted room.
    let never = Epoch::MAX.get();
    for (id, who, numbers) in [
        ("e", "ann", &[0, 3, never][..]),
        ("e", "dora", &[0, 1, 3]),
        ("e", "carl", &[0, 1, 2, 3]),
        ("p", "ann", &[0, 1, never]),
        ("p", "carl", &[0, 1]),
    ] {
        for number in numbers {
            let missed = store.key(&room(id), &endpoint(who), epoch(*number)).await;
            fails(missed, &no_key(id, who, *number))?;
        }
    }
    for (id, who) in [("e", "carl"), ("p", "ann"), ("p", "carl")] {
        fails(store.latest_key(&room(id), &endpoint(who)).await, &no_key(id, who, None))?;
    }
    Ok(())
}

async fn not_found_names_the_missing_user(cx: Cx) -> Verdict {
    let store = a_world(&cx).await?;
    fails(store.user(&user_key(9)).await, &no_user(user_key(9)))?;
    fails(store.revoke_user(&user_key(9), at(5)).await, &no_user(user_key(9)))
}

async fn a_missing_user_is_denied_as_unknown(cx: Cx) -> Verdict {
    use membership::{Decision, DenyReason};
    let store = a_world(&cx).await?;
    for decision in [store.is_authorized(&user_key(9)).await, store.is_admin(&user_key(9)).await] {
        crate::verdict::same(decision, Decision::Deny(DenyReason::Unknown))?;
    }
    Ok(())
}

/// A refused write must leave nothing behind that makes the corrected one fail.
async fn a_refused_write_can_be_corrected_and_repeated(cx: Cx) -> Verdict {
    let (store, e, p) = (a_world(&cx).await?, room("e"), room("p"));
    fails(store.add_member(&e, joins("carl")).await, &KEY_MISSING)?;
    fails(store.add_member(&e, joins_at("carl", 1)).await, &stale(2))?;
    store.add_member(&e, joins_at("carl", 2)).await?;
    fails(store.add_member(&p, joins_at("carl", 1)).await, &UNENCRYPTED)?;
    store.add_member(&p, joins("carl")).await?;
    let short = mismatch(["carl"], []);
    fails(store.rekey(&e, rekey(2, ["bob"], ["ann"])).await, &short)?;
    store.rekey(&e, rekey(2, ["bob"], ["ann", "carl"])).await?;
    fails(store.create_room(plain("e", "carl")).await, &room_exists("e"))?;
    store.delete_room(&e).await?;
    store.create_room(plain("e", "carl")).await?;
    fails(store.revoke_user(&user_key(1), at(6)).await, &LAST_ADMIN)?;
    store.add_user(admin(user_key(9))).await?;
    store.revoke_user(&user_key(1), at(6)).await?;
    everything().observe(&store).await?;
    Ok(())
}

async fn creating_a_room_twice_is_already_exists_whatever_else_differs(cx: Cx) -> Verdict {
    let (store, scope) = (a_world(&cx).await?, everything());
    for (id, new) in [("e", plain("e", "carl")), ("p", encrypted("p", "carl"))] {
        scope.refuses(&store, store.create_room(new), &room_exists(id)).await?;
    }
    Ok(())
}

async fn deleting_a_missing_room_changes_nothing(cx: Cx) -> Verdict {
    let (store, none) = (a_world(&cx).await?, room("none"));
    everything().refuses(&store, store.delete_room(&none), &no_room("none")).await
}

/// The order is: missing room, wrong kind of room, member already, stale epoch.
async fn adding_a_member_returns_the_first_error_that_applies(cx: Cx) -> Verdict {
    let (store, scope) = (a_world(&cx).await?, everything());
    let table = [
        // The room is missing, whatever else is wrong.
        ("none", joins("bob"), no_room("none")),
        ("none", joins_at("bob", 2), no_room("none")),
        ("none", joins_at("ann", 0), no_room("none")),
        // The wrong kind of room, also for a member already or with a wrong epoch.
        ("e", joins("carl"), KEY_MISSING),
        ("e", joins("bob"), KEY_MISSING),
        ("e", joins("ann"), KEY_MISSING),
        ("p", joins_at("carl", 0), UNENCRYPTED),
        ("p", joins_at("carl", 7), UNENCRYPTED),
        ("p", joins_at("bob", 0), UNENCRYPTED),
        ("p", joins_at("bob", 7), UNENCRYPTED),
        ("p", joins_at("ann", 7), UNENCRYPTED),
        // The endpoint is a member already; some of the epochs are wrong, too.
        ("e", joins_at("bob", 2), member_exists("e", "bob")),
        ("e", joins_at("bob", 1), member_exists("e", "bob")),
        ("e", joins_at("ann", 9), member_exists("e", "ann")),
        ("p", joins("bob"), member_exists("p", "bob")),
        // Only the epoch is wrong.
        ("e", joins_at("carl", 1), stale(2)),
        ("e", joins_at("carl", 3), stale(2)),
    ];
    for (id, new, error) in table {
        let id = room(id);
        scope.refuses(&store, store.add_member(&id, new), &error).await?;
    }
    Ok(())
}

async fn removing_a_member_returns_the_first_error_that_applies(cx: Cx) -> Verdict {
    let (store, scope) = (a_world(&cx).await?, everything());
    let table = [
        ("none", "ann", no_room("none")),
        ("none", "carl", no_room("none")),
        ("e", "carl", no_member("e", "carl")),
        ("p", "carl", no_member("p", "carl")),
        ("e", "ann", OWNER_STAYS),
        ("p", "ann", OWNER_STAYS),
    ];
    for (id, who, error) in table {
        let (id, who) = (room(id), endpoint(who));
        scope.refuses(&store, store.remove_member(&id, &who), &error).await?;
    }
    Ok(())
}

/// Makes the rekeys of `table`. Each must fail with its error and change nothing.
async fn refused_rekeys<const N: usize>(
    store: &Client,
    id: &str,
    table: [(u64, &[&str], &[&str], Error); N],
) -> Verdict {
    let (scope, id) = (everything(), room(id));
    for (from, remove, keys, error) in table {
        let new = rekey(from, remove.iter().copied(), keys.iter().copied());
        scope.refuses(store, store.rekey(&id, new), &error).await?;
    }
    Ok(())
}

async fn a_rekey_reports_a_missing_or_unencrypted_room_before_all_else(cx: Cx) -> Verdict {
    let store = a_world(&cx).await?;
    for (id, error) in [("none", no_room("none")), ("p", UNENCRYPTED)] {
        let refused = || error.clone();
        refused_rekeys(
            &store,
            id,
            [
                (0, &[], &["ann", "bob"], refused()),
                (1, &[], &["ann", "bob"], refused()),
                (7, &["bob"], &["ann"], refused()),
                (0, &["carl"], &["ann", "bob"], refused()),
                (0, &["ann"], &["bob"], refused()),
                (7, &["ann", "carl"], &["dora"], refused()),
                (0, &[], &[], refused()),
            ],
        )
        .await?;
    }
    Ok(())
}

async fn a_rekey_reports_a_stale_epoch_before_wrong_members(cx: Cx) -> Verdict {
    let store = a_world(&cx).await?;
    refused_rekeys(
        &store,
        "e",
        [
            (1, &[], &["ann", "bob"], stale(2)),
            (3, &[], &["ann", "bob"], stale(2)),
            (0, &[], &["ann", "bob"], stale(2)),
            // These rekeys are wrong in other ways, too: they remove an endpoint that is no member
            // or the owner, or have a key too few or too many.
            (1, &["carl"], &["ann", "bob"], stale(2)),
            (1, &["ann"], &["bob"], stale(2)),
            (1, &[], &["ann"], stale(2)),
            (3, &[], &["ann", "bob", "carl"], stale(2)),
            (3, &["ann", "carl"], &[], stale(2)),
        ],
    )
    .await
}

async fn a_rekey_reports_a_missing_member_before_owner_and_key_conflicts(cx: Cx) -> Verdict {
    let store = a_world(&cx).await?;
    let missed = |who| no_member("e", who);
    refused_rekeys(
        &store,
        "e",
        [
            (2, &["carl"], &["ann", "bob"], missed("carl")),
            (2, &["bob", "carl"], &["ann"], missed("carl")),
            // The error names the first missing member in byte order.
            (2, &["zoe", "carl", "dora"], &["ann", "bob"], missed("carl")),
            (2, &["zoe", "Zoe"], &["ann", "bob"], missed("Zoe")),
            // These rekeys are wrong in other ways, too: they remove the owner, or have a key too
            // few or too many.
            (2, &["ann", "carl"], &["bob"], missed("carl")),
            (2, &["carl"], &["ann"], missed("carl")),
            (2, &["carl"], &["ann", "bob", "dora"], missed("carl")),
            (2, &["ann", "carl"], &["dora"], missed("carl")),
            // Every endpoint to remove is a member, so a conflict is left.
            (2, &["ann"], &["bob"], OWNER_STAYS),
            (2, &["bob"], &[], mismatch(["ann"], [])),
            (2, &[], &["ann", "carl"], mismatch(["bob"], ["carl"])),
        ],
    )
    .await
}

async fn a_rekey_reports_the_last_epoch_after_stale_epoch_and_missing_member(cx: Cx) -> Verdict {
    let (store, e, scope) = (a_world(&cx).await?, room("e"), everything());
    cx.instance().plant_epoch(&e, Epoch::MAX).await?;
    let (last, key) = (Epoch::MAX, |who: &str| (endpoint(who), sealed("next")));
    let both = || [key("ann"), key("bob")];
    let table = [
        (Rekey::new(last, [], both())?, LAST_EPOCH),
        (Rekey::new(epoch(2), [], both())?, stale(last.get())),
        (Rekey::new(last, [endpoint("carl")], both())?, no_member("e", "carl")),
    ];
    for (new, error) in table {
        scope.refuses(&store, store.rekey(&e, new), &error).await?;
    }
    Ok(())
}

/// A bootstrap of a known key is `AlreadyExists` before the first admin, a conflict afterwards.
async fn a_used_bootstrap_is_reported_before_a_known_key(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let scope = everything();
    store.add_user(user(user_key(2))).await?;
    let known = store.bootstrap_admin(admin(user_key(2)));
    scope.refuses(&store, known, &user_exists(user_key(2))).await?;
    store.revoke_user(&user_key(2), at(5)).await?;
    let known = store.bootstrap_admin(admin(user_key(2)));
    scope.refuses(&store, known, &user_exists(user_key(2))).await?;
    store.bootstrap_admin(admin(user_key(1))).await?;
    for number in [1, 2, 9] {
        let late = store.bootstrap_admin(admin(user_key(number)));
        scope.refuses(&store, late, &ADMIN_EXISTS).await?;
    }
    Ok(())
}

async fn adding_or_revoking_a_user_returns_the_first_error_that_applies(cx: Cx) -> Verdict {
    let (store, scope) = (a_world(&cx).await?, everything());
    for number in [1, 2, 3] {
        let key = user_key(number);
        for new in [user(key), admin(key)] {
            scope.refuses(&store, store.add_user(new), &user_exists(key)).await?;
        }
    }
    let (last, unknown) = (user_key(1), user_key(9));
    scope.refuses(&store, store.revoke_user(&last, at(6)), &LAST_ADMIN).await?;
    scope.refuses(&store, store.revoke_user(&unknown, at(6)), &no_user(unknown)).await
}

/// On an open client most of these calls fail too, but with another error. So they show that `Closed` comes
/// first (ERR-4).
async fn a_closed_client_reports_closed_before_any_other_error(cx: Cx) -> Verdict {
    let store = a_world(&cx).await?;
    store.close().await?;
    let (none, carl) = (room("none"), endpoint("carl"));
    let closed = Error::Closed;
    fails(store.create_room(plain("e", "ann")).await, &closed)?;
    fails(store.room(&none).await, &closed)?;
    fails(store.rooms_of(&carl, Page::first()).await, &closed)?;
    fails(store.delete_room(&none).await, &closed)?;
    for id in ["none", "e", "p"].map(room) {
        for new in [joins("ann"), joins_at("ann", 1), joins_at("carl", 7), joins("carl")] {
            fails(store.add_member(&id, new).await, &closed)?;
        }
        fails(store.remove_member(&id, &endpoint("ann")).await, &closed)?;
        fails(store.remove_member(&id, &carl).await, &closed)?;
        for new in [rekey(7, [], ["ann"]), rekey(2, ["carl"], []), rekey(2, ["ann"], ["dora"])] {
            fails(store.rekey(&id, new).await, &closed)?;
        }
        fails(store.key(&id, &carl, Epoch::MAX).await, &closed)?;
        fails(store.latest_key(&id, &carl).await, &closed)?;
        fails(store.member(&id, &carl).await, &closed)?;
    }
    fails(store.members(&none, Page::first()).await, &closed)?;
    fails(store.bootstrap_admin(admin(user_key(1))).await, &closed)?;
    fails(store.add_user(user(user_key(1))).await, &closed)?;
    fails(store.user(&user_key(9)).await, &closed)?;
    fails(store.users(Page::first()).await, &closed)?;
    fails(store.revoke_user(&user_key(9), at(1)).await, &closed)?;
    fails(store.revoke_user(&user_key(1), at(1)).await, &closed)?;
    fails(store.has_admin().await, &closed)?;
    Ok(())
}
