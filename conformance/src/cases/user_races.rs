//! Concurrent additions and revocations of users.

use membership::{Conflict, NewUser, Page, Store, UserKey};
use rand::seq::SliceRandom;

use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, at, no_user, revoked, user, user_exists, user_number};
use crate::race::{both, clients, together};
use crate::verdict::{Verdict, fails, holds, same};

declare! { "user_races";
    one_of_many_concurrent_adds_of_a_key_wins: "USER-2" "LIN-1";
    concurrent_revocations_of_one_user_agree_on_its_time: "USER-3" "LIN-1";
    two_admins_revoking_each_other_leave_one: "USER-4" "LIN-1";
    any_number_of_admins_revoking_each_other_leave_one: "USER-4" "LIN-1";
    a_revocation_racing_a_new_admin_leaves_an_admin: "USER-4" "LIN-1";
    an_add_racing_a_revocation_is_before_or_after_it: "USER-2" "USER-3" "LIN-1";
}

async fn one_of_many_concurrent_adds_of_a_key_wins(cx: Cx) -> Verdict {
    let clients = clients(&cx, 4).await?;
    for round in 0..cx.rounds(20) {
        let key = user_number(round);
        let racers = (0..16).zip(clients.iter().cycle().cloned()).map(|(number, client)| {
            let new = NewUser { added_at: at(number), admin: number % 2 == 0, ..user(key) };
            async move { client.add_user(new).await }
        });
        let mut winners = Vec::new();
        for result in together(racers).await {
            match result {
                Ok(added) => winners.push(added),
                lost => fails(lost, &user_exists(key))?,
            }
        }
        holds(winners.len() == 1, "one winner", &winners)?;
        for client in &clients {
            same(vec![client.user(&key).await?], winners.clone())?;
        }
    }
    Ok(())
}

async fn concurrent_revocations_of_one_user_agree_on_its_time(cx: Cx) -> Verdict {
    let clients = clients(&cx, 4).await?;
    let Some(first) = clients.first() else { return Ok(()) };
    for round in 0..cx.rounds(20) {
        let key = user_number(round);
        let added = first.add_user(user(key)).await?;
        let racers =
            (0..8).zip(clients.iter().cycle().cloned()).map(|(number, client)| async move {
                client.revoke_user(&key, at(number)).await?;
                // After its own revocation each client reads the revocation that took effect first.
                client.user(&key).await
            });
        let mut seen = Vec::new();
        for result in together(racers).await {
            seen.push(result?);
        }
        let allowed: Vec<_> = (0..8).map(|number| revoked(&added, at(number))).collect();
        let agree = seen.iter().all(|user| Some(user) == seen.first());
        holds(agree, "every client to see the same time", &seen)?;
        let known = seen.first().is_some_and(|user| allowed.contains(user));
        holds(known, "the time of one of the revocations", &seen)?;
    }
    Ok(())
}

async fn two_admins_revoking_each_other_leave_one(cx: Cx) -> Verdict {
    let clients = clients(&cx, 2).await?;
    let [one, two] = clients.as_slice() else { return Ok(()) };
    // The admin that is left after a round meets a new admin in the next.
    let mut survivor = one.unrecorded().bootstrap_admin(admin(user_number(0))).await?.key;
    for round in 1..=200 {
        let rival = one.unrecorded().add_user(admin(user_number(round))).await?.key;
        let attempts = [(one, survivor, rival), (two, rival, survivor)];
        let racers = attempts.map(|(client, by, whom)| {
            let store = client.unrecorded();
            async move { (by, store.revoke_user(&whom, at(3)).await) }
        });
        let mut winners = Vec::new();
        for (by, result) in together(racers).await {
            match result {
                Ok(()) => winners.push(by),
                lost => fails(lost, &Conflict::LastAdmin.into())?,
            }
        }
        holds(winners.len() == 1, "one of the two revocations to succeed", &winners)?;
        let Some(winner) = winners.first().copied() else { continue };
        let loser = if winner == rival { survivor } else { rival };
        for client in [one, two] {
            let store = client.unrecorded();
            same(store.has_admin().await?, true)?;
            same(store.is_admin(&winner).await.is_allowed(), true)?;
            same(store.is_admin(&loser).await.is_allowed(), false)?;
        }
        survivor = winner;
    }
    Ok(())
}

async fn any_number_of_admins_revoking_each_other_leave_one(cx: Cx) -> Verdict {
    const ADMINS: u64 = 8;
    let clients = clients(&cx, 4).await?;
    let Some(first) = clients.first() else { return Ok(()) };
    let mut survivor: Option<UserKey> = None;
    for round in 0..cx.rounds(10) {
        let mut admins: Vec<_> = survivor.into_iter().collect();
        while admins.len() < 8 {
            let key = user_number(round * ADMINS + admins.len() as u64);
            admins.push(first.unrecorded().add_user(admin(key)).await?.key);
        }
        // Each racer revokes every admin, in its own random order.
        let racers = (0..ADMINS).zip(clients.iter().cycle()).map(|(number, client)| {
            let (store, mut victims) = (client.unrecorded(), admins.clone());
            victims.shuffle(&mut cx.rng(round * ADMINS + number));
            async move {
                let mut results = Vec::new();
                for whom in victims {
                    results.push((whom, store.revoke_user(&whom, at(3)).await));
                }
                results
            }
        });
        for (_, result) in together(racers).await.into_iter().flatten() {
            if result.is_err() {
                fails(result, &Conflict::LastAdmin.into())?;
            }
        }
        let users = first.unrecorded().users(Page::first()).await?;
        let active: Vec<_> = users.into_iter().filter(|user| !user.revoked).collect();
        holds(active.len() == 1, "one active admin", &active)?;
        survivor = active.first().map(|user| user.key);
    }
    Ok(())
}

async fn a_revocation_racing_a_new_admin_leaves_an_admin(cx: Cx) -> Verdict {
    let clients = clients(&cx, 2).await?;
    let [one, two] = clients.as_slice() else { return Ok(()) };
    let mut last = one.bootstrap_admin(admin(user_number(0))).await?.key;
    for round in 1..=50 {
        let new = user_number(round);
        let (here, there) = (one.unrecorded(), two.unrecorded());
        let add = async move { here.add_user(admin(new)).await.map(|_| ()) };
        let revoke = async move { there.revoke_user(&last, at(3)).await };
        let (added, gone) = both(add, revoke).await;
        added?;
        if gone.is_ok() {
            same(one.unrecorded().is_admin(&last).await.is_allowed(), false)?;
        } else {
            fails(gone, &Conflict::LastAdmin.into())?;
            same(two.unrecorded().is_admin(&last).await.is_allowed(), true)?;
            // The revocation came before the new admin. Now it succeeds, so that the next round
            // begins with a single admin, too.
            one.unrecorded().revoke_user(&last, at(4)).await?;
        }
        same(two.unrecorded().is_admin(&new).await.is_allowed(), true)?;
        same(two.unrecorded().has_admin().await?, true)?;
        last = new;
    }
    Ok(())
}

async fn an_add_racing_a_revocation_is_before_or_after_it(cx: Cx) -> Verdict {
    let clients = clients(&cx, 2).await?;
    let [one, two] = clients.as_slice() else { return Ok(()) };
    for round in 0..cx.rounds(50) {
        let key = user_number(round);
        let (here, there) = (one.unrecorded(), two.unrecorded());
        let add = async move { here.add_user(user(key)).await };
        let revoke = async move { there.revoke_user(&key, at(3)).await };
        let (added, gone) = both(add, revoke).await;
        let added = added?;
        let expected = match gone {
            Ok(()) => revoked(&added, at(3)),
            missed => {
                fails(missed, &no_user(key))?;
                added
            }
        };
        same(two.unrecorded().user(&key).await?, expected)?;
    }
    Ok(())
}
