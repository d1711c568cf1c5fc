//! Concurrent rekeys.

use membership::{Ciphertext, EndpointId, Error, Rekey, Room, RoomId, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::judge::race;
use crate::make::{at_epoch, endpoint, epoch, rekey, room, sealed, stale};
use crate::scene::{crew, endpoints_of};
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, fails, holds, same};

use super::clients;

declare! { "concurrency";
    one_of_two_concurrent_rekeys_wins: "KEY-7";
    one_of_sixteen_concurrent_rekeys_wins: "KEY-7";
    one_of_sixty_four_concurrent_rekeys_wins: "KEY-7";
    one_of_many_concurrent_rekeys_through_several_clients_wins: "KEY-7" "LIN-1", needs Clients;
    only_the_winner_of_concurrent_rekeys_removes_anybody: "KEY-7" "KEY-5";
    concurrent_rekeys_that_are_retried_win_one_epoch_each: "KEY-4" "KEY-7" "KEY-9";
    rekeys_of_different_rooms_do_not_hinder_each_other: "KEY-5" "ERR-2";
}

const WHO: [&str; 5] = ["ann", "bob", "cid", "dee", "eve"];

/// The key that the contender with this number stores for `who`. Every contender's key differs.
fn contended(number: usize, from: u64, who: &str) -> Ciphertext {
    sealed(format!("contender {number}, {who}@{}", from + 1))
}

fn contender(number: usize, from: u64, who: &[&str]) -> Verdict<Rekey> {
    let keys = who.iter().map(|who| (endpoint(who), contended(number, from, who)));
    Ok(Rekey::new(epoch(from), [], keys)?)
}

/// The number of the winner: exactly one result must be the room at epoch 2, the others stale.
fn one_winner(results: &[Result<Room, Error>], before: &Room) -> Verdict<usize> {
    let mut winner = None;
    for (number, result) in results.iter().enumerate() {
        match result {
            Ok(room) if winner.is_none() => {
                same(room, &at_epoch(before, 2))?;
                winner = Some(number);
            }
            Ok(_) => return Err(Failure::new("one winner", results.to_vec().show())),
            Err(_) => fails(result.clone(), &stale(2))?,
        }
    }
    winner.ok_or_else(|| Failure::new("one winner", results.to_vec().show()))
}

/// Every member's key at epoch 2 must be the one from the contender with this number.
async fn keys_are_all_of(store: &dyn Store, id: &RoomId, winner: usize, who: &[&str]) -> Verdict {
    for who in who {
        let ours = contended(winner, 1, who);
        same(store.key(id, &endpoint(who), epoch(2)).await?.ciphertext, ours.clone())?;
        same(store.latest_key(id, &endpoint(who)).await?.ciphertext, ours)?;
    }
    Ok(())
}

async fn contend(clients: &[Client], count: usize, rounds: u64) -> Verdict {
    let Some(client) = clients.first() else { return Ok(()) };
    for round in 0..rounds {
        let id = format!("r{round}");
        let before = crew(client, &id, &WHO).await?;
        let mut calls = Vec::new();
        for (number, client) in (0..count).zip(clients.iter().cycle()) {
            let (client, id, rekey) = (client.clone(), room(&id), contender(number, 1, &WHO)?);
            calls.push(async move { client.rekey(&id, rekey).await });
        }
        let winner = one_winner(&race(calls).await?, &before)?;
        for client in clients {
            keys_are_all_of(client, &room(&id), winner, &WHO).await?;
        }
    }
    Ok(())
}

async fn one_of_two_concurrent_rekeys_wins(cx: Cx) -> Verdict {
    contend(&[cx.open().await?], 2, cx.rounds(40)).await
}

async fn one_of_sixteen_concurrent_rekeys_wins(cx: Cx) -> Verdict {
    contend(&[cx.open().await?], 16, cx.rounds(10)).await
}

async fn one_of_sixty_four_concurrent_rekeys_wins(cx: Cx) -> Verdict {
    contend(&[cx.open().await?], 64, cx.rounds(4)).await
}

async fn one_of_many_concurrent_rekeys_through_several_clients_wins(cx: Cx) -> Verdict {
    contend(&clients(&cx, 4).await?, 16, cx.rounds(10)).await
}

async fn only_the_winner_of_concurrent_rekeys_removes_anybody(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let r = room("r");
    for _ in 0..cx.rounds(8) {
        let before = crew(&store, "r", &WHO).await?;
        // Each contender removes a different member.
        let mut calls = Vec::new();
        for (number, victim) in WHO.iter().enumerate().skip(1) {
            let keys = WHO.iter().filter(|who| *who != victim);
            let keys = keys.map(|who| (endpoint(who), contended(number, 1, who)));
            let rekey = Rekey::new(epoch(1), [endpoint(victim)], keys)?;
            let (client, id) = (store.clone(), r.clone());
            calls.push(async move { client.rekey(&id, rekey).await });
        }
        let winner = one_winner(&race(calls).await?, &before)? + 1;
        let stay: Vec<_> = (0..).zip(WHO).filter(|(n, _)| *n != winner).map(|(_, w)| w).collect();
        let expected: Vec<EndpointId> = stay.iter().map(|who| endpoint(who)).collect();
        same(endpoints_of(&store, &r).await?, expected)?;
        keys_are_all_of(&store, &r, winner, &stay).await?;
        store.delete_room(&r).await?;
    }
    Ok(())
}

async fn concurrent_rekeys_that_are_retried_win_one_epoch_each(cx: Cx) -> Verdict {
    const WORKERS: usize = 8;
    const EACH: usize = 6;
    let client = cx.open().await?;
    crew(&client, "r", &["ann", "bob"]).await?;
    let calls = (0..WORKERS).map(|number| {
        let store = client.unrecorded();
        async move {
            let (r, mut won, mut from) = (room("r"), Vec::new(), 1);
            while won.len() < EACH {
                let rekey = contender(number, from, &["ann", "bob"])?;
                match store.rekey(&r, rekey).await {
                    Ok(room) => {
                        same(room.epoch, epoch(from + 1))?;
                        won.push(room.epoch);
                        from += 1;
                    }
                    Err(Error::StaleEpoch { current }) => {
                        // Another rekey won meanwhile, so the room must be at a later epoch.
                        holds(current > epoch(from), "a later epoch than the rekey's", &current)?;
                        from = current.get();
                    }
                    Err(error) => return Err(Failure::from(error)),
                }
            }
            Ok(won)
        }
    });
    let mut wins = Vec::new();
    for (number, won) in race(calls).await?.into_iter().enumerate() {
        wins.extend(won?.into_iter().map(|epoch| (epoch, number)));
    }
    wins.sort_unstable();
    let expected: Vec<_> = (2..).take(WORKERS * EACH).map(epoch).collect();
    same(wins.iter().map(|(epoch, _)| *epoch).collect(), expected)?;
    for (epoch, winner) in wins {
        for who in ["ann", "bob"] {
            let found = client.key(&room("r"), &endpoint(who), epoch).await?;
            same(found.ciphertext, contended(winner, epoch.get() - 1, who))?;
        }
    }
    Ok(())
}

async fn rekeys_of_different_rooms_do_not_hinder_each_other(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ids: Vec<_> = (0..16).map(|number| format!("r{number}")).collect();
    for id in &ids {
        crew(&store, id, &["ann", "bob"]).await?;
    }
    // Half of the rekeys are stale. Their refusal must not affect the others.
    let calls = ids.iter().enumerate().map(|(number, id)| {
        let (store, id, from) = (store.clone(), room(id), 1 + (number as u64 % 2));
        async move { store.rekey(&id, rekey(from, [], ["ann", "bob"])).await }
    });
    for (number, result) in race(calls).await?.into_iter().enumerate() {
        if number % 2 == 0 {
            same(result?.epoch, epoch(2))?;
        } else {
            fails(result, &stale(1))?;
        }
    }
    Ok(())
}
