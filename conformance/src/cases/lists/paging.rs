//! Walks through all pages of a listing.

use std::sync::Arc;

use membership::{Member, NewUser, Page, Room, Store, User};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::case::declare;
use crate::context::Cx;
use crate::make::{endpoint, joins, label, page, plain, room, user, user_key, user_number};
use crate::together::together;
use crate::verdict::{Verdict, same};

declare! { "lists";
    walking_up_to_2500_members_gives_each_once: "LIST-1" "LIST-2";
    walking_up_to_2500_rooms_of_an_endpoint_gives_each_once: "LIST-1" "LIST-2";
    walking_up_to_2500_users_gives_each_once: "LIST-1" "USER-5";
    pages_of_one_record_give_every_record_once: "LIST-1";
    pages_of_random_sizes_give_every_record_once: "LIST-1";
}

/// How many records the store has when its pages are walked; it grows from one size to the next.
const SIZES: [usize; 6] = [0, 1, 999, 1000, 1001, 2500];

/// Ids that sort as their numbers and differ only at their ends.
fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("id.{number:05}")).collect()
}

/// The sizes, each with the ids to add to reach it, in a random order.
fn growth(cx: &Cx) -> Vec<(usize, Vec<String>)> {
    let mut rng = cx.rng(0);
    let mut before = 0;
    let step = |size| {
        let mut new = names(before, size);
        before = size;
        new.shuffle(&mut rng);
        (size, new)
    };
    SIZES.into_iter().map(step).collect()
}

/// The lengths of the pages of `size` records at 1000 a page. The last page is empty: it begins
/// after the last record.
fn lengths(size: usize) -> Vec<usize> {
    let mut left = size;
    let mut lengths = Vec::new();
    while left > 0 {
        lengths.push(left.min(1000));
        left = left.saturating_sub(1000);
    }
    lengths.push(0);
    lengths
}

async fn walking_up_to_2500_members_gives_each_once(cx: Cx) -> Verdict {
    let (store, r) = (cx.open().await?.unrecorded(), room("r"));
    let owner = plain("r", "id.").owner_member();
    store.create_room(plain("r", "id.")).await?;
    for (size, new) in growth(&cx) {
        let adding = new.into_iter().map(|id| {
            let (store, r) = (Arc::clone(&store), r.clone());
            async move { Ok(store.add_member(&r, joins(&id)).await?) }
        });
        together(adding).await?;
        // The owner sorts first, so the pages that begin after it have exactly `size` members.
        same(store.members(&r, page(None, 1)).await?, vec![owner.clone()])?;
        let (mut all, mut after) = (Vec::<Member>::new(), owner.endpoint.clone());
        for length in lengths(size) {
            let got = store.members(&r, Page::after_id(after.clone())).await?;
            same(got.len(), length)?;
            after = got.last().map_or(after, |member| member.endpoint.clone());
            all.extend(got);
        }
        let expected = names(0, size).into_iter();
        let expected = expected.map(|id| crate::make::member_of("r", &id, 0)).collect();
        same(all, expected)?;
    }
    Ok(())
}

async fn walking_up_to_2500_rooms_of_an_endpoint_gives_each_once(cx: Cx) -> Verdict {
    let (store, ann) = (cx.open().await?.unrecorded(), endpoint("ann"));
    for (size, new) in growth(&cx) {
        let creating = new.into_iter().map(|id| {
            let store = Arc::clone(&store);
            async move { Ok(store.create_room(plain(&id, "ann")).await?) }
        });
        together(creating).await?;
        let (mut all, mut from) = (Vec::<Room>::new(), Page::first());
        for length in lengths(size) {
            let got = store.rooms_of(&ann, from.clone()).await?;
            same(got.len(), length)?;
            from = got.last().map_or(from, |room| Page::after_id(room.id.clone()));
            all.extend(got);
        }
        let expected = names(0, size).into_iter().map(|id| plain(&id, "ann").room()).collect();
        same(all, expected)?;
    }
    Ok(())
}

async fn walking_up_to_2500_users_gives_each_once(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let number = |id: &str| id.trim_start_matches("id.").parse::<u64>().unwrap_or_default();
    let user_of = move |id: &str| NewUser { label: label(id), ..user(user_number(number(id))) };
    for (size, new) in growth(&cx) {
        let adding = new.into_iter().map(|id| {
            let store = Arc::clone(&store);
            async move { Ok(store.add_user(user_of(&id)).await?) }
        });
        together(adding).await?;
        let (mut all, mut from) = (Vec::<User>::new(), Page::first());
        for length in lengths(size) {
            let got = store.users(from.clone()).await?;
            same(got.len(), length)?;
            from = got.last().map_or(from, |user| Page::after_id(user.key));
            all.extend(got);
        }
        let expected = names(0, size).iter().map(|id| user_of(id).user()).collect();
        same(all, expected)?;
    }
    Ok(())
}

async fn pages_of_one_record_give_every_record_once(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ids = ["a", "b", "c", "d", "e"];
    for (number, id) in (1..).zip(ids) {
        store.create_room(plain(id, "a")).await?;
        store.add_user(user(user_key(number))).await?;
    }
    for id in ids.into_iter().skip(1) {
        store.add_member(&room("a"), joins(id)).await?;
    }
    let (mut who, mut which, mut key) = (None, None, None);
    for (number, id) in (1..).zip(ids) {
        let members = store.members(&room("a"), page(who, 1)).await?;
        same(members.iter().map(|m| &m.endpoint).collect::<Vec<_>>(), vec![&endpoint(id)])?;
        let rooms = store.rooms_of(&endpoint("a"), page(which, 1)).await?;
        same(rooms.iter().map(|r| &r.id).collect::<Vec<_>>(), vec![&room(id)])?;
        let users = store.users(page(key, 1)).await?;
        same(users.iter().map(|u| u.key).collect::<Vec<_>>(), vec![user_key(number)])?;
        (who, which, key) = (Some(endpoint(id)), Some(room(id)), Some(user_key(number)));
    }
    same(store.members(&room("a"), page(who, 1)).await?, vec![])?;
    same(store.rooms_of(&endpoint("a"), page(which, 1)).await?, vec![])?;
    same(store.users(page(key, 1)).await?, vec![])
}

async fn pages_of_random_sizes_give_every_record_once(cx: Cx) -> Verdict {
    let (store, r) = (cx.open().await?.unrecorded(), room("r"));
    store.create_room(plain("r", "id.")).await?;
    let adding = names(0, 300).into_iter().map(|id| {
        let (store, r) = (Arc::clone(&store), r.clone());
        async move { Ok(store.add_member(&r, joins(&id)).await?) }
    });
    together(adding).await?;
    let mut rng = cx.rng(1);
    for _ in 0..8 {
        let (mut all, mut after) = (Vec::new(), endpoint("id."));
        loop {
            let limit = rng.random_range(1..=100);
            let got = store.members(&r, page(Some(after.clone()), limit)).await?;
            same(got.len(), limit.min(300 - all.len()))?;
            let Some(last) = got.last() else { break };
            after = last.endpoint.clone();
            all.extend(got.into_iter().map(|member| member.endpoint.as_str().to_owned()));
        }
        same(all, names(0, 300))?;
    }
    Ok(())
}
