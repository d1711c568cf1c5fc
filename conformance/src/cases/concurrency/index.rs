//! `rooms_of` an endpoint while its memberships change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use membership::{Page, Store};

use super::readers::{Task, while_writing};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{encrypted, endpoint, epoch, joins, joins_at, plain, room};
use crate::race::clients;
use crate::scene::rooms_of;
use crate::transcript::Client;
use crate::verdict::{Verdict, holds, same};

declare! { "concurrency";
    rooms_of_lists_a_room_as_soon_as_its_new_member_is_seen: "LIST-4" "LIN-1";
    an_endpoint_that_moves_between_two_rooms_is_always_listed_in_one: "LIST-2" "LIST-4" "LIN-1";
    additions_concurrent_with_listings_are_all_listed_afterwards: "LIST-4" "KEY-1";
    a_member_removed_and_immediately_added_again_is_listed: "LIST-4" "MEM-5";
}

fn id(number: u64) -> String {
    format!("r{number:03}")
}

/// A writer adds bob to one room after the other, while readers list his rooms.
///
/// Half of the readers first wait until bob is a member of the next room.
async fn rooms_of_lists_a_room_as_soon_as_its_new_member_is_seen(cx: Cx) -> Verdict {
    let clients = clients(&cx, 3).await?;
    let rounds = cx.rounds(60);
    for (number, client) in (0..rounds).zip(clients.iter().cycle()) {
        client.unrecorded().create_room(encrypted(&id(number), "ann")).await?;
    }
    let Some(writer) = clients.first().map(Client::unrecorded) else { return Ok(()) };
    let write = async move {
        for number in 0..rounds {
            writer.add_member(&room(&id(number)), joins_at("bob", 1)).await?;
        }
        Ok(())
    };
    let readers = clients.iter().cycle().take(6).enumerate().map(|(number, client)| {
        let (store, mut next, waits) = (client.unrecorded(), 0, number % 2 == 0);
        move || -> Task {
            let (store, at) = (Arc::clone(&store), next);
            next = (next + 1).min(rounds - 1);
            Box::pin(async move {
                let r = room(&id(at));
                let mut tries = 0..if waits { 1000 } else { 0 };
                while store.member(&r, &endpoint("bob")).await.is_err() && tries.next().is_some() {
                    tokio::task::yield_now().await;
                }
                let there = store.member(&r, &endpoint("bob")).await.is_ok();
                let listed = rooms_of(&*store, "bob").await?;
                holds(!there || listed.contains(&r), &format!("{r:?} among bob's"), &listed)
            })
        }
    });
    while_writing(write, readers).await?;
    let Some(store) = clients.last() else { return Ok(()) };
    let all: Vec<_> = (0..rounds).map(|number| room(&id(number))).collect();
    same(rooms_of(store, "bob").await?, all.clone())?;
    for id in &all {
        same(store.latest_key(id, &endpoint("bob")).await?.epoch, epoch(1))?;
    }
    Ok(())
}

/// Bob moves between the rooms a and b: he joins the next room before he leaves the other.
///
/// After each move the writer waits for a listing. Otherwise a store that reads again after each
/// concurrent change could be kept from ever answering.
async fn an_endpoint_that_moves_between_two_rooms_is_always_listed_in_one(cx: Cx) -> Verdict {
    let clients = clients(&cx, 3).await?;
    let Some(writer) = clients.first().map(Client::unrecorded) else { return Ok(()) };
    for number in 0..20 {
        writer.create_room(plain(&id(number), "bob")).await?;
    }
    for id in ["a", "b"] {
        writer.create_room(plain(id, "ann")).await?;
    }
    writer.add_member(&room("a"), joins("bob")).await?;
    let (listings, rounds) = (Arc::new(AtomicU64::new(0)), cx.rounds(160));
    let seen = Arc::clone(&listings);
    let write = async move {
        for round in 0..rounds {
            let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
            let before = seen.load(Ordering::SeqCst);
            writer.add_member(&room(to), joins("bob")).await?;
            writer.remove_member(&room(from), &endpoint("bob")).await?;
            let until = Instant::now() + Duration::from_secs(10);
            while seen.load(Ordering::SeqCst) == before && Instant::now() < until {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    };
    let readers = clients.iter().cycle().take(4).map(|client| {
        let (store, listings) = (client.unrecorded(), Arc::clone(&listings));
        move || -> Task {
            let (store, listings) = (Arc::clone(&store), Arc::clone(&listings));
            Box::pin(async move {
                let listed = rooms_of(&*store, "bob").await;
                listings.fetch_add(1, Ordering::SeqCst);
                let listed = listed?;
                let in_one = listed.contains(&room("a")) || listed.contains(&room("b"));
                holds(in_one, "a or b among bob's rooms", &listed)
            })
        }
    });
    while_writing(write, readers).await
}

/// A writer adds bob to one room after the other, while readers list his rooms without a pause.
async fn additions_concurrent_with_listings_are_all_listed_afterwards(cx: Cx) -> Verdict {
    let clients = clients(&cx, 3).await?;
    let Some(writer) = clients.first().map(Client::unrecorded) else { return Ok(()) };
    let rounds = cx.rounds(160);
    for number in 0..rounds {
        writer.create_room(encrypted(&id(number), "ann")).await?;
    }
    let adding = Arc::clone(&writer);
    let write = async move {
        for number in 0..rounds {
            adding.add_member(&room(&id(number)), joins_at("bob", 1)).await?;
        }
        Ok(())
    };
    let readers = clients.iter().skip(1).map(|client| {
        let store = client.unrecorded();
        move || -> Task {
            let store = Arc::clone(&store);
            Box::pin(async move {
                // The listing may fail: a store may give up on it while additions go on.
                let _ = store.rooms_of(&endpoint("bob"), Page::first()).await;
                Ok(())
            })
        }
    });
    while_writing(write, readers).await?;
    let all: Vec<_> = (0..rounds).map(|number| room(&id(number))).collect();
    same(rooms_of(&*writer, "bob").await?, all.clone())?;
    for id in &all {
        same(writer.latest_key(id, &endpoint("bob")).await?.epoch, epoch(1))?;
    }
    Ok(())
}

/// Bob leaves several rooms and returns at once.
///
/// The cleanup after a removal must not remove the new membership, its key or its index entry.
async fn a_member_removed_and_immediately_added_again_is_listed(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let rooms: Vec<_> = (0..8).map(id).collect();
    for id in &rooms {
        store.create_room(encrypted(id, "ann")).await?;
        store.add_member(&room(id), joins_at("bob", 1)).await?;
    }
    let all: Vec<_> = rooms.iter().map(|id| room(id)).collect();
    for _ in 0..cx.rounds(40) {
        let moves = all.iter().map(|id| async {
            store.remove_member(id, &endpoint("bob")).await?;
            store.add_member(id, joins_at("bob", 1)).await
        });
        join_all(moves).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        same(rooms_of(&*store, "bob").await?, all.clone())?;
        for id in &all {
            same(store.latest_key(id, &endpoint("bob")).await?.epoch, epoch(1))?;
        }
    }
    Ok(())
}
