//! The decisions `is_authorized`, `is_admin` and `has_admin`.

use membership::{Decision, DenyReason, Store, UserKey};

use super::users::spellings;
use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, at, user, user_number};
use crate::race::clients;
use crate::transcript::Client;
use crate::verdict::{Verdict, holds, same};

declare! { "decisions";
    an_unknown_key_is_denied_as_unknown: "AUTH-1";
    a_user_is_allowed_as_user_but_not_as_admin: "AUTH-1";
    an_admin_is_allowed_as_user_and_as_admin: "AUTH-1";
    a_bootstrapped_admin_is_allowed_as_user_and_as_admin: "AUTH-1" "USER-1";
    a_revoked_user_is_denied_as_revoked: "AUTH-1" "USER-3";
    a_revoked_admin_is_denied_as_revoked: "AUTH-1" "USER-3";
    every_spelling_of_a_key_gets_the_same_decision: "AUTH-1" "TYPE-2";
    a_key_that_differs_in_one_bit_is_unknown: "AUTH-1" "TYPE-2";
    refused_writes_change_no_decision: "AUTH-1" "ERR-2";
    there_is_no_admin_in_an_empty_store: "AUTH-5";
    has_admin_is_true_exactly_while_an_admin_is_active: "AUTH-5";
    other_clients_see_the_first_admin_as_soon_as_it_is_made: "AUTH-5" "LIN-1", needs Clients;
    no_client_allows_a_user_once_its_revocation_has_returned: "AUTH-3";
    no_client_allows_an_admin_once_its_revocation_has_returned: "AUTH-3" "AUTH-1";
    every_client_allows_a_user_once_its_addition_has_returned: "AUTH-1" "LIN-1";
}

const ANN: UserKey = UserKey::from_bytes([0xa1; 32]);
const BOB: UserKey = UserKey::from_bytes([0xb0; 32]);

const UNKNOWN: Decision = Decision::Deny(DenyReason::Unknown);
const REVOKED: Decision = Decision::Deny(DenyReason::Revoked);
const NOT_ADMIN: Decision = Decision::Deny(DenyReason::NotAdmin);

/// The store's decisions on `key`: `is_authorized` and `is_admin`.
async fn decisions(store: &Client, key: UserKey) -> (Decision, Decision) {
    (store.is_authorized(&key).await, store.is_admin(&key).await)
}

async fn an_unknown_key_is_denied_as_unknown(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    same(decisions(&store, ANN).await, (UNKNOWN, UNKNOWN))?;
    store.bootstrap_admin(admin(BOB)).await?;
    same(decisions(&store, ANN).await, (UNKNOWN, UNKNOWN))
}

async fn a_user_is_allowed_as_user_but_not_as_admin(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(user(ANN)).await?;
    same(decisions(&store, ANN).await, (Decision::Allow, NOT_ADMIN))
}

async fn an_admin_is_allowed_as_user_and_as_admin(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(admin(ANN)).await?;
    same(decisions(&store, ANN).await, (Decision::Allow, Decision::Allow))
}

async fn a_bootstrapped_admin_is_allowed_as_user_and_as_admin(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(user(ANN)).await?;
    same(decisions(&store, ANN).await, (Decision::Allow, Decision::Allow))
}

async fn a_revoked_user_is_denied_as_revoked(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(user(ANN)).await?;
    store.add_user(user(BOB)).await?;
    // A revocation counts at once, also with a time in the future.
    store.revoke_user(&ANN, at(i64::MAX)).await?;
    same(decisions(&store, ANN).await, (REVOKED, REVOKED))?;
    same(decisions(&store, BOB).await, (Decision::Allow, NOT_ADMIN))
}

async fn a_revoked_admin_is_denied_as_revoked(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(admin(ANN)).await?;
    store.add_user(admin(BOB)).await?;
    store.revoke_user(&ANN, at(3)).await?;
    same(decisions(&store, ANN).await, (REVOKED, REVOKED))?;
    same(decisions(&store, BOB).await, (Decision::Allow, Decision::Allow))
}

async fn every_spelling_of_a_key_gets_the_same_decision(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(admin(BOB)).await?;
    for (added, expected) in [
        (user_number(1), (Decision::Allow, NOT_ADMIN)),
        (BOB, (Decision::Allow, Decision::Allow)),
        (user_number(2), (REVOKED, REVOKED)),
        (user_number(3), (UNKNOWN, UNKNOWN)),
    ] {
        if expected.0 != UNKNOWN && added != BOB {
            store.add_user(user(added)).await?;
        }
        if expected.0 == REVOKED {
            store.revoke_user(&added, at(3)).await?;
        }
        for text in spellings(added) {
            same(decisions(&store, text.parse()?).await, expected.clone())?;
        }
    }
    Ok(())
}

async fn a_key_that_differs_in_one_bit_is_unknown(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(admin(ANN)).await?;
    for bit in 0..256 {
        let mut bytes = *ANN.as_bytes();
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        same(decisions(&store, UserKey::from_bytes(bytes)).await, (UNKNOWN, UNKNOWN))?;
    }
    Ok(())
}

async fn refused_writes_change_no_decision(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ANN)).await?;
    let eve = user_number(0xee);
    same(store.bootstrap_admin(admin(eve)).await.is_err(), true)?;
    same(store.revoke_user(&eve, at(1)).await.is_err(), true)?;
    same(store.revoke_user(&ANN, at(1)).await.is_err(), true)?;
    same(store.add_user(user(ANN)).await.is_err(), true)?;
    same(decisions(&store, eve).await, (UNKNOWN, UNKNOWN))?;
    same(decisions(&store, ANN).await, (Decision::Allow, Decision::Allow))
}

async fn there_is_no_admin_in_an_empty_store(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    same(store.has_admin().await?, false)
}

async fn has_admin_is_true_exactly_while_an_admin_is_active(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(user(user_number(1))).await?;
    same(store.has_admin().await?, false)?;
    store.bootstrap_admin(admin(ANN)).await?;
    same(store.has_admin().await?, true)?;
    store.add_user(admin(BOB)).await?;
    store.revoke_user(&ANN, at(3)).await?;
    same(store.has_admin().await?, true)?;
    same(store.revoke_user(&BOB, at(3)).await.is_err(), true)?;
    same(store.has_admin().await?, true)
}

async fn other_clients_see_the_first_admin_as_soon_as_it_is_made(cx: Cx) -> Verdict {
    let (one, two) = (cx.open().await?, cx.open().await?);
    // A client that caches this answer must drop it at the bootstrap.
    same(two.has_admin().await?, false)?;
    one.bootstrap_admin(admin(ANN)).await?;
    same(two.has_admin().await?, true)?;
    same(decisions(&two, ANN).await, (Decision::Allow, Decision::Allow))
}

async fn no_client_allows_a_user_once_its_revocation_has_returned(cx: Cx) -> Verdict {
    let clients = clients(&cx, 4).await?;
    for (round, revoker) in (0..cx.rounds(100)).zip(clients.iter().cycle()) {
        let key = user_number(round);
        let adder = clients.last().unwrap_or(revoker);
        adder.unrecorded().add_user(user(key)).await?;
        // Each client decides once before the revocation, so that a cached decision would be stale.
        for client in &clients {
            same(client.unrecorded().is_authorized(&key).await, Decision::Allow)?;
        }
        revoker.unrecorded().revoke_user(&key, at(3)).await?;
        for client in &clients {
            let store = client.unrecorded();
            same(store.is_authorized(&key).await, REVOKED)?;
            let user = store.user(&key).await?;
            holds(user.revoked, "a revoked user", &user)?;
        }
    }
    Ok(())
}

async fn no_client_allows_an_admin_once_its_revocation_has_returned(cx: Cx) -> Verdict {
    let clients = clients(&cx, 4).await?;
    let Some(first) = clients.first() else { return Ok(()) };
    first.bootstrap_admin(admin(ANN)).await?;
    for (round, revoker) in (0..cx.rounds(50)).zip(clients.iter().cycle()) {
        let key = user_number(round);
        first.unrecorded().add_user(admin(key)).await?;
        for client in &clients {
            same(client.unrecorded().is_admin(&key).await, Decision::Allow)?;
        }
        revoker.unrecorded().revoke_user(&key, at(3)).await?;
        for client in &clients {
            same(client.unrecorded().is_admin(&key).await, REVOKED)?;
            same(client.unrecorded().is_authorized(&key).await, REVOKED)?;
        }
    }
    Ok(())
}

async fn every_client_allows_a_user_once_its_addition_has_returned(cx: Cx) -> Verdict {
    let clients = clients(&cx, 4).await?;
    for (round, adder) in (0..cx.rounds(100)).zip(clients.iter().cycle()) {
        let key = user_number(round);
        // Each client decides once before the addition, so that a cached denial would be stale.
        for client in &clients {
            same(client.unrecorded().is_authorized(&key).await, UNKNOWN)?;
        }
        adder.unrecorded().add_user(user(key)).await?;
        for client in &clients {
            same(client.unrecorded().is_authorized(&key).await, Decision::Allow)?;
        }
    }
    Ok(())
}
