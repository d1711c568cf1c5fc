//! The records in a listing.

use membership::{EndpointId, Page, RoomId, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, encrypted, endpoint, joins, joins_at, no_room, page, plain, rekey, revoked, room, user,
    user_key,
};
use crate::observe::Scope;
use crate::verdict::{Verdict, fails, same};

declare! { "lists";
    members_of_a_missing_room_are_not_found: "LIST-3";
    rooms_of_an_endpoint_without_rooms_are_an_empty_page: "LIST-3";
    users_of_an_empty_store_are_an_empty_page: "LIST-1";
    the_index_is_right_after_each_kind_of_write: "LIST-4";
    a_listed_room_has_its_current_epoch_and_rekey_due: "LIST-2" "ROOM-3";
    revoked_users_keep_their_place_in_the_listing: "LIST-1" "USER-5";
}

async fn members_of_a_missing_room_are_not_found(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for page in [Page::first(), page(Some(endpoint("zz")), 1)] {
        fails(store.members(&room("none"), page).await, &no_room("none"))?;
    }
    // In a room that exists, a page past the last member is empty and no error.
    store.create_room(plain("r", "ann")).await?;
    same(store.members(&room("r"), Page::after_id(endpoint("zz"))).await?, vec![])
}

async fn rooms_of_an_endpoint_without_rooms_are_an_empty_page(cx: Cx) -> Verdict {
    let (store, bob) = (cx.open().await?, endpoint("bob"));
    same(store.rooms_of(&bob, Page::first()).await?, vec![])?;
    store.create_room(plain("r", "ann")).await?;
    same(store.rooms_of(&bob, Page::first()).await?, vec![])?;
    same(store.rooms_of(&bob, page(Some(room("a")), 1)).await?, vec![])?;
    store.add_member(&room("r"), joins("bob")).await?;
    store.remove_member(&room("r"), &bob).await?;
    same(store.rooms_of(&bob, Page::first()).await?, vec![])
}

async fn users_of_an_empty_store_are_an_empty_page(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    same(store.users(Page::first()).await?, vec![])?;
    same(store.users(page(Some(user_key(0)), 1)).await?, vec![])
}

async fn rooms_by_name(store: &dyn Store, who: &EndpointId) -> Verdict<Vec<RoomId>> {
    Ok(store.rooms_of(who, Page::first()).await?.into_iter().map(|room| room.id).collect())
}

async fn the_index_is_right_after_each_kind_of_write(cx: Cx) -> Verdict {
    let (store, bob) = (cx.open().await?, endpoint("bob"));
    let scope = Scope::new(&["r", "s", "t"], &["ann", "bob", "carl"]);
    let (r, s) = (room("r"), room("s"));
    store.create_room(encrypted("r", "ann")).await?;
    scope.observe(&store).await?;
    store.create_room(plain("s", "bob")).await?;
    scope.observe(&store).await?;
    store.add_member(&r, joins_at("bob", 1)).await?;
    same(rooms_by_name(&store, &bob).await?, vec![r.clone(), s.clone()])?;
    scope.observe(&store).await?;
    store.add_member(&s, joins("carl")).await?;
    scope.observe(&store).await?;
    store.rekey(&r, rekey(1, [], ["ann", "bob"])).await?;
    same(rooms_by_name(&store, &bob).await?, vec![r.clone(), s.clone()])?;
    scope.observe(&store).await?;
    store.remove_member(&r, &bob).await?;
    same(rooms_by_name(&store, &bob).await?, vec![s.clone()])?;
    scope.observe(&store).await?;
    store.add_member(&r, joins_at("bob", 2)).await?;
    same(rooms_by_name(&store, &bob).await?, vec![r.clone(), s.clone()])?;
    store.add_member(&r, joins_at("carl", 2)).await?;
    scope.observe(&store).await?;
    store.rekey(&r, rekey(2, ["bob", "carl"], ["ann"])).await?;
    same(rooms_by_name(&store, &bob).await?, vec![s.clone()])?;
    same(rooms_by_name(&store, &endpoint("carl")).await?, vec![s.clone()])?;
    scope.observe(&store).await?;
    store.delete_room(&s).await?;
    same(rooms_by_name(&store, &bob).await?, vec![])?;
    same(rooms_by_name(&store, &endpoint("ann")).await?, vec![r])?;
    scope.observe(&store).await?;
    Ok(())
}

async fn a_listed_room_has_its_current_epoch_and_rekey_due(cx: Cx) -> Verdict {
    let (store, r, bob) = (cx.open().await?, room("r"), endpoint("bob"));
    let mut now = store.create_room(encrypted("r", "ann")).await?;
    store.add_member(&r, joins_at("bob", 1)).await?;
    store.add_member(&r, joins_at("carl", 1)).await?;
    same(store.rooms_of(&bob, Page::first()).await?, vec![now.clone()])?;
    for from in 1..4 {
        now = store.rekey(&r, rekey(from, [], ["ann", "bob", "carl"])).await?;
        same(store.rooms_of(&bob, Page::first()).await?, vec![now.clone()])?;
    }
    store.remove_member(&r, &endpoint("carl")).await?;
    now.rekey_due = true;
    same(store.rooms_of(&bob, Page::first()).await?, vec![now])
}

async fn revoked_users_keep_their_place_in_the_listing(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut expected = Vec::new();
    for byte in 1..=6 {
        expected.push(store.add_user(user(user_key(byte))).await?);
    }
    for user in expected.iter_mut().skip(1).step_by(2) {
        store.revoke_user(&user.key, at(7)).await?;
        *user = revoked(user, at(7));
    }
    same(store.users(Page::first()).await?, expected.clone())?;
    same(
        store.users(page(Some(user_key(1)), 2)).await?,
        expected.get(1..3).unwrap_or_default().to_vec(),
    )
}
