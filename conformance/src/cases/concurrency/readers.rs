//! Reads while a writer changes the data.
//!
//! No order of all calls is searched for. The cases check facts that one answer shows, or two
//! answers in a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::BoxFuture;
use membership::{Epoch, Page, RoomId, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::judge::all_hold;
use crate::make::{
    encrypted, endpoint, epoch, joins, joins_at, key_of, no_key, no_member, plain, rekey, room,
};
use crate::scene::{crew, rooms_of};
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, fails, holds, same};

use super::clients;

declare! { "concurrency";
    a_member_always_has_a_key_at_the_current_epoch: "KEY-1" "KEY-3" "KEY-9";
    a_member_removed_for_good_never_has_a_key_again: "KEY-1" "MEM-3";
    a_page_of_rooms_is_one_consistent_state: "LIST-2" "LIST-4";
    a_reader_never_sees_a_partial_rekey: "KEY-5" "LIST-2";
    a_removal_by_a_rekey_is_not_visible_before_the_new_epoch: "KEY-5" "LIN-1";
    epochs_never_go_back_for_any_reader: "LIN-1" "KEY-4";
    epochs_never_go_back_through_any_client: "LIN-1" "KEY-4", needs Clients;
    a_client_sees_every_rekey_that_another_client_made: "LIN-1", needs Clients;
    a_client_does_not_find_a_member_that_another_client_removed:
        "LIN-1" "MEM-3" "LIST-4", needs Clients;
}

pub(super) type Task = BoxFuture<'static, Verdict>;

/// Runs the writer once, and each reader again and again until the writer has ended.
///
/// Each reader runs at least once after the writer. The first failure ends all of them; otherwise a
/// writer that waits for its readers would wait for a failed one in vain.
pub(super) async fn while_writing(
    writer: impl Future<Output = Verdict> + Send + 'static,
    readers: impl IntoIterator<Item = impl FnMut() -> Task + Send + 'static>,
) -> Verdict {
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let mut tasks: Vec<Task> = vec![Box::pin(async move {
        let verdict = writer.await;
        flag.store(true, Ordering::SeqCst);
        verdict
    })];
    for mut read in readers {
        let done = Arc::clone(&done);
        tasks.push(Box::pin(async move {
            loop {
                let last = done.load(Ordering::SeqCst);
                read().await?;
                if last {
                    return Ok(());
                }
                // Otherwise a store whose calls never wait would keep the writer from running.
                tokio::task::yield_now().await;
            }
        }));
    }
    all_hold(tasks).await
}

/// How many rekeys a writer makes: some hundred milliseconds on a store that syncs.
const REKEYS: u64 = 120;

async fn rekeys(
    client: Client,
    count: u64,
    id: &'static str,
    who: &'static [&'static str],
) -> Verdict {
    for from in 1..=count {
        // Otherwise a store whose calls never wait would keep the readers from running.
        tokio::task::yield_now().await;
        client.rekey(&room(id), rekey(from, [], who.iter().copied())).await?;
    }
    Ok(())
}

async fn a_member_always_has_a_key_at_the_current_epoch(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    crew(&client, "r", &["ann", "bob"]).await?;
    let readers = ["ann", "bob", "bob", "ann"].map(|who| {
        let (store, seen) = (client.unrecorded(), Arc::new(AtomicU64::new(1)));
        move || -> Task {
            let (store, seen) = (Arc::clone(&store), Arc::clone(&seen));
            Box::pin(async move {
                let (r, who) = (room("r"), endpoint(who));
                let current = store.room(&r).await?.epoch;
                let latest = store.latest_key(&r, &who).await?;
                holds(latest.epoch >= current, &format!("a key from epoch {current} on"), &latest)?;
                same(latest.ciphertext, key_of(&who, latest.epoch))?;
                // The key that an earlier read returned stays readable.
                let former = epoch(seen.swap(latest.epoch.get(), Ordering::SeqCst));
                same(store.key(&r, &who, former).await?.ciphertext, key_of(&who, former))
            })
        }
    });
    while_writing(rekeys(client.clone(), cx.rounds(REKEYS), "r", &["ann", "bob"]), readers).await
}

async fn a_member_removed_for_good_never_has_a_key_again(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    let names: Vec<_> = (0..24).map(|number| format!("e{number:02}")).collect();
    let who: Vec<&str> = std::iter::once("ann").chain(names.iter().map(String::as_str)).collect();
    crew(&client, "r", &who).await?;
    // How many of `names` are removed for certain.
    let gone = Arc::new(AtomicU64::new(0));
    let (writer, removed, left) = (client.clone(), Arc::clone(&gone), names.clone());
    let write = async move {
        for (from, name) in (1..).zip(&left) {
            tokio::task::yield_now().await;
            let stay = left.iter().map(String::as_str).filter(|other| *other > name.as_str());
            let stay = stay.chain(["ann"]);
            if from % 2 == 0 {
                writer.remove_member(&room("r"), &endpoint(name)).await?;
                removed.fetch_add(1, Ordering::SeqCst);
                writer.rekey(&room("r"), rekey(from, [], stay)).await?;
            } else {
                writer.rekey(&room("r"), rekey(from, [name.as_str()], stay)).await?;
                removed.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    };
    let readers = (0..3).map(|_| {
        let (store, gone, names) = (client.unrecorded(), Arc::clone(&gone), names.clone());
        move || -> Task {
            let (store, gone, names) = (Arc::clone(&store), Arc::clone(&gone), names.clone());
            Box::pin(async move {
                let count = gone.load(Ordering::SeqCst);
                let lately = (1..=count).zip(&names).skip_while(|(number, _)| number + 3 <= count);
                for (_, name) in lately {
                    let (r, who) = (room("r"), endpoint(name));
                    fails(store.member(&r, &who).await, &no_member("r", name))?;
                    fails(store.latest_key(&r, &who).await, &no_key("r", name, None))?;
                    for number in [1, 2, count, count + 1] {
                        let found = store.key(&r, &who, epoch(number)).await;
                        fails(found, &no_key("r", name, number))?;
                    }
                    same(store.rooms_of(&who, Page::first()).await?, vec![])?;
                }
                Ok(())
            })
        }
    });
    while_writing(write, readers).await
}

async fn a_page_of_rooms_is_one_consistent_state(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    client.create_room(plain("home", "bob")).await?;
    let (writer, rounds) = (client.clone(), cx.rounds(40));
    let write = async move {
        for _ in 0..rounds {
            tokio::task::yield_now().await;
            // Bob joins a, b and c in this order and leaves them in the opposite order. So he is
            // never in a later room without the earlier ones.
            writer.create_room(plain("a", "bob")).await?;
            writer.create_room(encrypted("b", "ann")).await?;
            writer.add_member(&room("b"), joins_at("bob", 1)).await?;
            writer.create_room(plain("c", "ann")).await?;
            writer.add_member(&room("c"), joins("bob")).await?;
            writer.delete_room(&room("c")).await?;
            writer.rekey(&room("b"), rekey(1, ["bob"], ["ann"])).await?;
            writer.delete_room(&room("b")).await?;
            writer.delete_room(&room("a")).await?;
        }
        Ok(())
    };
    let readers = (0..3).map(|_| {
        let store = client.unrecorded();
        move || -> Task {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let seen = rooms_of(&*store, "bob").await?;
                let names: Vec<_> = seen.iter().map(RoomId::as_str).collect();
                let states: [&[&str]; 4] =
                    [&["home"], &["a", "home"], &["a", "b", "home"], &["a", "b", "c", "home"]];
                holds(states.contains(&names.as_slice()), "home alone or with a, ab or abc", &seen)
            })
        }
    });
    while_writing(write, readers).await
}

async fn a_reader_never_sees_a_partial_rekey(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    crew(&client, "r", &["ann"]).await?;
    let writer = client.clone();
    let write = async move {
        for from in 1..=60 {
            tokio::task::yield_now().await;
            writer.add_member(&room("r"), joins_at("bob", from)).await?;
            if from % 2 == 0 {
                writer.rekey(&room("r"), rekey(from, ["bob"], ["ann"])).await?;
            } else {
                writer.remove_member(&room("r"), &endpoint("bob")).await?;
                writer.rekey(&room("r"), rekey(from, [], ["ann"])).await?;
            }
        }
        Ok(())
    };
    let readers = (0..3).map(|_| {
        let store = client.unrecorded();
        move || -> Task {
            let store = Arc::clone(&store);
            Box::pin(async move {
                // `remove_member` is called at odd epochs only. So a room at an even epoch with a
                // rekey due is a mixture of two states.
                let mut views = vec![store.room(&room("r")).await?];
                views.extend(store.rooms_of(&endpoint("ann"), Page::first()).await?);
                same(views.len(), 2)?;
                for seen in views {
                    let due = seen.rekey_due && seen.epoch.get() % 2 == 0;
                    holds(!due, "a rekey due only at an odd epoch", &seen)?;
                }
                // No listed member joined at an epoch that the room has not reached.
                for member in store.members(&room("r"), Page::first()).await? {
                    let now = store.room(&room("r")).await?.epoch;
                    holds(member.joined_epoch <= now, &format!("epoch {now} at most"), &member)?;
                }
                Ok(())
            })
        }
    });
    while_writing(write, readers).await
}

/// Bob is removed only by rekeys. Once he is gone, the room has left the epoch at which he joined.
async fn a_removal_by_a_rekey_is_not_visible_before_the_new_epoch(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    crew(&client, "r", &["ann"]).await?;
    let (writer, rounds) = (client.clone(), cx.rounds(120));
    let write = async move {
        for from in 1..=rounds {
            writer.add_member(&room("r"), joins_at("bob", from)).await?;
            tokio::task::yield_now().await;
            writer.rekey(&room("r"), rekey(from, ["bob"], ["ann"])).await?;
        }
        Ok(())
    };
    let readers = (0..3).map(|_| {
        let store = client.unrecorded();
        move || -> Task {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let (r, bob) = (room("r"), endpoint("bob"));
                let Ok(member) = store.member(&r, &bob).await else { return Ok(()) };
                while store.member(&r, &bob).await.is_ok_and(|again| again == member) {
                    tokio::task::yield_now().await;
                }
                let (joined, now) = (member.joined_epoch, store.room(&r).await?);
                holds(now.epoch > joined, &format!("an epoch after {joined}"), &now)
            })
        }
    });
    while_writing(write, readers).await
}

/// One writer rekeys. No reader sees an earlier epoch than a read that ended before its own began.
///
/// The readers share the highest epoch that any of them has seen.
async fn epochs_grow(cx: &Cx, clients: &[Client]) -> Verdict {
    let Some(client) = clients.first() else { return Ok(()) };
    crew(client, "r", &["ann"]).await?;
    let highest = Arc::new(AtomicU64::new(1));
    let readers = clients.iter().cycle().take(6).enumerate().map(|(number, client)| {
        let (store, highest) = (client.unrecorded(), Arc::clone(&highest));
        move || -> Task {
            let (store, highest) = (Arc::clone(&store), Arc::clone(&highest));
            Box::pin(async move {
                let floor = highest.load(Ordering::SeqCst);
                let (r, ann) = (room("r"), endpoint("ann"));
                let seen: Epoch = match number % 3 {
                    0 => store.room(&r).await?.epoch,
                    1 => store.latest_key(&r, &ann).await?.epoch,
                    _ => match store.rooms_of(&ann, Page::first()).await?.as_slice() {
                        [room] => room.epoch,
                        other => return Err(Failure::answer("one room", &other)),
                    },
                };
                highest.fetch_max(seen.get(), Ordering::SeqCst);
                holds(seen.get() >= floor, &format!("epoch {floor} or a later one"), &seen)
            })
        }
    });
    while_writing(rekeys(client.clone(), cx.rounds(REKEYS), "r", &["ann"]), readers).await
}

async fn epochs_never_go_back_for_any_reader(cx: Cx) -> Verdict {
    epochs_grow(&cx, &[cx.open().await?]).await
}

async fn epochs_never_go_back_through_any_client(cx: Cx) -> Verdict {
    epochs_grow(&cx, &clients(&cx, 3).await?).await
}

async fn a_client_sees_every_rekey_that_another_client_made(cx: Cx) -> Verdict {
    let clients = clients(&cx, 3).await?;
    let tasks = (0..3).map(|room_number| {
        let clients = clients.clone();
        async move {
            let id = format!("r{room_number}");
            let Some(first) = clients.first() else { return Ok(()) };
            crew(first, &id, &["ann"]).await?;
            for (from, client) in (1..=30).zip(clients.iter().cycle()) {
                client.rekey(&room(&id), rekey(from, [], ["ann"])).await?;
                for reader in &clients {
                    let ann = endpoint("ann");
                    same(reader.room(&room(&id)).await?.epoch, epoch(from + 1))?;
                    same(reader.latest_key(&room(&id), &ann).await?.epoch, epoch(from + 1))?;
                }
            }
            Ok::<(), Failure>(())
        }
    });
    all_hold(tasks).await
}

async fn a_client_does_not_find_a_member_that_another_client_removed(cx: Cx) -> Verdict {
    let clients = clients(&cx, 2).await?;
    let [one, two] = clients.as_slice() else { return Ok(()) };
    let (r, bob) = (room("r"), endpoint("bob"));
    crew(one, "r", &["ann"]).await?;
    for round in 0..cx.rounds(30) {
        let (writer, reader) = if round % 2 == 0 { (one, two) } else { (two, one) };
        writer.add_member(&r, joins_at("bob", 1)).await?;
        same(reader.latest_key(&r, &bob).await?.ciphertext, key_of(&bob, epoch(1)))?;
        same(rooms_of(reader, "bob").await?, vec![r.clone()])?;
        writer.remove_member(&r, &bob).await?;
        fails(reader.member(&r, &bob).await, &no_member("r", "bob"))?;
        fails(reader.latest_key(&r, &bob).await, &no_key("r", "bob", None))?;
        same(rooms_of(reader, "bob").await?, vec![])?;
        same(reader.members(&r, Page::first()).await?.len(), 1)?;
    }
    Ok(())
}
