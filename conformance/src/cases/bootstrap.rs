//! The first admin, whom `bootstrap_admin` makes once in a store's life.

use membership::{Conflict, NewUser, Store, UserKey};
use rand::RngExt;

use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, at, label, user, user_exists, user_key};
use crate::observe::Scope;
use crate::race::{clients, together};
use crate::verdict::{Failure, Verdict, fails, holds, same};

declare! { "bootstrap";
    a_bootstrapped_user_is_an_admin_whatever_the_request_says: "USER-1";
    a_second_bootstrap_is_a_conflict: "USER-1" "ERR-2";
    a_bootstrap_after_an_added_admin_is_a_conflict: "USER-1";
    a_bootstrap_after_the_first_admin_is_revoked_is_a_conflict: "USER-1";
    users_who_are_no_admins_leave_the_bootstrap_free: "USER-1";
    a_bootstrap_refused_for_a_known_user_can_succeed_with_another: "USER-1" "USER-2" "ERR-2";
    a_bootstrap_of_a_known_user_after_an_admin_is_a_conflict: "USER-1" "ERR-4";
    one_of_sixteen_concurrent_bootstraps_wins: "USER-1" "LIN-1";
    one_of_many_concurrent_bootstraps_of_one_key_wins: "USER-1" "LIN-1";
    a_bootstrap_racing_an_added_admin_is_before_it_or_a_conflict: "USER-1" "LIN-1";
    a_bootstrap_racing_an_addition_of_the_same_key_makes_one_user: "USER-1" "USER-2" "LIN-1";
}

const ANN: UserKey = UserKey::from_bytes([0xa1; 32]);
const BOB: UserKey = UserKey::from_bytes([0xb0; 32]);
const EVE: UserKey = UserKey::from_bytes([0xee; 32]);

fn everyone() -> Scope {
    Scope::new(&[], &[]).with_users(&[ANN, BOB, EVE])
}

fn over() -> membership::Error {
    Conflict::AdminExists.into()
}

async fn a_bootstrapped_user_is_an_admin_whatever_the_request_says(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let made = store.bootstrap_admin(NewUser { label: label("first"), ..user(ANN) }).await?;
    same(&made, &NewUser { label: label("first"), ..admin(ANN) }.user())?;
    same(store.user(&ANN).await?, made)?;
    same(store.is_admin(&ANN).await, membership::Decision::Allow)?;
    same(store.has_admin().await?, true)
}

async fn a_second_bootstrap_is_a_conflict(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ANN)).await?;
    for second in [user(BOB), admin(BOB)] {
        everyone().refuses(&store, store.bootstrap_admin(second), &over()).await?;
    }
    Ok(())
}

async fn a_bootstrap_after_an_added_admin_is_a_conflict(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(admin(ANN)).await?;
    everyone().refuses(&store, store.bootstrap_admin(admin(BOB)), &over()).await
}

async fn a_bootstrap_after_the_first_admin_is_revoked_is_a_conflict(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ANN)).await?;
    store.add_user(admin(BOB)).await?;
    store.revoke_user(&ANN, at(3)).await?;
    for key in [ANN, BOB, EVE] {
        everyone().refuses(&store, store.bootstrap_admin(admin(key)), &over()).await?;
    }
    Ok(())
}

async fn users_who_are_no_admins_leave_the_bootstrap_free(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(user(ANN)).await?;
    store.add_user(user(BOB)).await?;
    store.revoke_user(&BOB, at(2)).await?;
    same(store.bootstrap_admin(admin(EVE)).await?, admin(EVE).user())
}

async fn a_bootstrap_refused_for_a_known_user_can_succeed_with_another(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(user(ANN)).await?;
    store.add_user(user(BOB)).await?;
    store.revoke_user(&BOB, at(2)).await?;
    for key in [ANN, BOB] {
        everyone().refuses(&store, store.bootstrap_admin(admin(key)), &user_exists(key)).await?;
    }
    same(store.bootstrap_admin(admin(EVE)).await?, admin(EVE).user())
}

async fn a_bootstrap_of_a_known_user_after_an_admin_is_a_conflict(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ANN)).await?;
    store.add_user(user(BOB)).await?;
    for key in [ANN, BOB] {
        everyone().refuses(&store, store.bootstrap_admin(admin(key)), &over()).await?;
    }
    Ok(())
}

async fn one_of_sixteen_concurrent_bootstraps_wins(cx: Cx) -> Verdict {
    let clients = clients(&cx, 4).await?;
    let racers = (1..=16).zip(clients.iter().cycle().cloned()).map(|(number, client)| async move {
        (user_key(number), client.bootstrap_admin(admin(user_key(number))).await)
    });
    let results = together(racers).await;
    let mut winners = Vec::new();
    for (key, result) in results {
        match result {
            Ok(made) => {
                same(&made, &admin(key).user())?;
                winners.push(made);
            }
            lost => fails(lost, &over())?,
        }
    }
    holds(winners.len() == 1, "one winner", &winners)?;
    for client in &clients {
        same(client.users(membership::Page::first()).await?, winners.clone())?;
    }
    Ok(())
}

async fn one_of_many_concurrent_bootstraps_of_one_key_wins(cx: Cx) -> Verdict {
    let clients = clients(&cx, 4).await?;
    let racers = (0..16).zip(clients.iter().cycle().cloned()).map(|(number, client)| async move {
        client.bootstrap_admin(NewUser { added_at: at(number), ..admin(ANN) }).await
    });
    let mut winners = Vec::new();
    for result in together(racers).await {
        match result {
            Ok(made) => winners.push(made),
            lost => fails(lost, &over())?,
        }
    }
    holds(winners.len() == 1, "one winner", &winners)?;
    for client in &clients {
        same(client.users(membership::Page::first()).await?, winners.clone())?;
    }
    Ok(())
}

/// The rounds of a race, each on a new store, since the bootstrap works once in a store's life.
const ROUNDS: u64 = 12;

async fn a_bootstrap_racing_an_added_admin_is_before_it_or_a_conflict(cx: Cx) -> Verdict {
    for round in 0..cx.rounds(ROUNDS) {
        let cx = cx.another().await?;
        let clients = clients(&cx, 2).await?;
        let adds_first = cx.rng(round).random_bool(0.5);
        let racers = clients.iter().cloned().enumerate().map(|(number, client)| async move {
            if (number == 0) == adds_first {
                (true, client.add_user(admin(ANN)).await)
            } else {
                (false, client.bootstrap_admin(admin(BOB)).await)
            }
        });
        let mut bootstrapped = false;
        for (added, result) in together(racers).await {
            match (added, result) {
                (true, result) => same(result?, admin(ANN).user())?,
                (false, Ok(made)) => {
                    bootstrapped = true;
                    same(made, admin(BOB).user())?;
                }
                (false, lost) => fails(lost, &over())?,
            }
        }
        for client in &clients {
            let bob = client.user(&BOB).await;
            holds(bob.is_ok() == bootstrapped, "bob to exist only if his bootstrap won", &bob)?;
        }
        cx.close_all().await;
    }
    Ok(())
}

async fn a_bootstrap_racing_an_addition_of_the_same_key_makes_one_user(cx: Cx) -> Verdict {
    for round in 0..cx.rounds(ROUNDS) {
        let cx = cx.another().await?;
        let clients = clients(&cx, 2).await?;
        let added_as = if cx.rng(round).random_bool(0.5) { admin(ANN) } else { user(ANN) };
        let new = added_as.clone();
        let racers = clients.iter().cloned().enumerate().map(move |(number, client)| {
            let new = new.clone();
            async move {
                match number {
                    0 => client.add_user(new).await,
                    _ => client.bootstrap_admin(NewUser { added_at: at(7), ..admin(ANN) }).await,
                }
            }
        });
        let results = together(racers).await;
        let [added, bootstrapped] = results.as_slice() else { continue };
        let expected = match (added, bootstrapped) {
            (Ok(added), Err(refused)) => {
                // The bootstrap came second. If ann was added as an admin, an admin exists;
                // otherwise only the key is known.
                let expected = if added_as.admin { over() } else { user_exists(ANN) };
                same(refused, &expected)?;
                same(added, &added_as.user())?;
                added
            }
            (Err(refused), Ok(made)) => {
                same(refused, &user_exists(ANN))?;
                same(made, &NewUser { added_at: at(7), ..admin(ANN) }.user())?;
                made
            }
            _ => return Err(Failure::answer("one of the two calls to succeed", &results)),
        };
        for client in &clients {
            same(&client.user(&ANN).await?, expected)?;
        }
        cx.close_all().await;
    }
    Ok(())
}
