//! Concurrent rekeys, half of which are dropped.

use membership::{Ciphertext, Rekey, Store};

use super::cut_here;
use crate::case::declare;
use crate::context::Cx;
use crate::judge::race;
use crate::make::{at_epoch, endpoint, epoch, sealed, stale};
use crate::scene::crew;
use crate::verdict::{Failure, Verdict, fails, holds, same};

declare! { "cancellation";
    one_of_many_concurrent_rekeys_wins_though_half_are_dropped: "TIME-2" "KEY-7";
}

async fn one_of_many_concurrent_rekeys_wins_though_half_are_dropped(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let who = ["ann", "bob", "cid"];
    let key = |number: usize, who: &str| -> Ciphertext { sealed(format!("{number} to {who}")) };
    for round in 0..cx.rounds(12) {
        let before = crew(&store, &format!("r{round}"), &who).await?;
        let mut calls = Vec::new();
        for number in 0..16 {
            let keys = who.map(|who| (endpoint(who), key(number, who)));
            let (store, id) = (store.clone(), before.id.clone());
            let rekey = Rekey::new(epoch(1), [], keys)?;
            // The rekeys with even numbers are dropped after one poll or three.
            calls.push(async move {
                let call = store.rekey(&id, rekey);
                if number % 2 == 0 {
                    cut_here(call, 1 + u64::try_from(number % 4).unwrap_or(0)).await
                } else {
                    Some(call.await)
                }
            });
        }
        let mut winners = Vec::new();
        for (number, result) in race(calls).await?.into_iter().enumerate() {
            match result {
                Some(Ok(moved)) => {
                    same(moved, at_epoch(&before, 2))?;
                    winners.push(number);
                }
                Some(refused) => fails(refused, &stale(2))?,
                None => {}
            }
        }
        holds(winners.len() <= 1, "one winner at most", &winners)?;
        // The rekeys that were not dropped had answers, so one rekey won, perhaps a dropped one.
        same(store.room(&before.id).await?, at_epoch(&before, 2))?;
        let found = store.latest_key(&before.id, &endpoint("ann")).await?.ciphertext;
        let winner = (0..16).find(|number| key(*number, "ann") == found);
        let winner = winner.ok_or_else(|| Failure::answer("a key of one of the rekeys", &found))?;
        let waited = winners.first().copied();
        let told = waited.is_none_or(|told| told == winner);
        holds(told, &format!("success for rekey {winner} alone, whose keys are stored"), &winners)?;
        holds(waited.is_some() || winner % 2 == 0, "a winner dropped or answered Ok", &winner)?;
        for who in who {
            let latest = store.latest_key(&before.id, &endpoint(who)).await?;
            same(latest.ciphertext, key(winner, who))?;
        }
    }
    Ok(())
}
