//! Clients of different servers: each sees every write that was acknowledged to another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use membership::{Decision, DenyReason, Error, Page, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, joins_at, no_key, no_room, rekey, room, sealed_key, user,
    user_number,
};
use crate::race::joined;
use crate::replicated::{lead_all, servers};
use crate::target::Harm;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, fails, same};

declare! { "in_step";
    a_decision_on_another_server_sees_every_acknowledged_write: "AUTH-3" "LIN-1", needs Replicas;
    a_read_on_another_server_sees_every_acknowledged_write: "LIN-1", needs Replicas;
    a_server_that_resumes_after_a_pause_gives_no_stale_decision: "AUTH-3" "LIN-1", needs Replicas;
    a_slow_server_gives_no_stale_decision: "AUTH-3" "LIN-1", needs Replicas;
}

const REVOKED: Decision = Decision::Deny(DenyReason::Revoked);

/// One client of each server.
async fn clients(cx: &Cx) -> Verdict<Vec<Client>> {
    let mut clients = Vec::new();
    for server in 0..servers(cx)?.count() {
        clients.push(cx.open_at(server).await?);
    }
    Ok(clients)
}

/// Every ordered pair of two clients.
fn pairs(clients: &[Client]) -> Vec<(Client, Client)> {
    let each = clients.iter().enumerate();
    let pairs = each.clone().flat_map(|(i, one)| {
        let others = each.clone().filter(move |(j, _)| i != *j);
        others.map(move |(_, two)| (one.clone(), two.clone()))
    });
    pairs.collect()
}

/// `one` adds a user, which `two` must allow; then `two` revokes it, and `one` must deny it.
async fn added_and_revoked(one: &dyn Store, two: &dyn Store, number: u64) -> Verdict {
    let key = user_number(number);
    one.add_user(user(key)).await?;
    same(two.is_authorized(&key).await, Decision::Allow)?;
    two.revoke_user(&key, at(3)).await?;
    same(one.is_authorized(&key).await, REVOKED)
}

/// All pairs run at the same time, so that each works under the load of the others.
async fn a_decision_on_another_server_sees_every_acknowledged_write(cx: Cx) -> Verdict {
    let clients = clients(&cx).await?;
    let Some(first) = clients.first() else { return Ok(()) };
    first.bootstrap_admin(admin(user_number(u64::MAX))).await?;
    let running = (0u64..).zip(pairs(&clients)).map(|(pair, (one, two))| {
        let (one, two) = (one.unrecorded(), two.unrecorded());
        tokio::spawn(async move {
            for round in 0..100 {
                added_and_revoked(&*one, &*two, pair * 1_000_000 + round).await?;
            }
            Verdict::Ok(())
        })
    });
    for pair in running.collect::<Vec<_>>() {
        joined(pair).await?;
    }
    Ok(())
}

/// The life of a room. Each client reads what the other has just written.
async fn one_life(one: &dyn Store, two: &dyn Store, id: &str) -> Verdict {
    let (ann, bob) = (format!("ann of {id}"), format!("bob of {id}"));
    let (ann, bob) = (ann.as_str(), bob.as_str());
    let new = encrypted(id, ann);
    one.create_room(new.clone()).await?;
    same(two.room(&room(id)).await?, new.room())?;
    two.add_member(&room(id), joins_at(bob, 1)).await?;
    same(one.latest_key(&room(id), &endpoint(bob)).await?, sealed_key(id, bob, 1))?;
    one.rekey(&room(id), rekey(1, [], [ann, bob])).await?;
    same(two.latest_key(&room(id), &endpoint(bob)).await?, sealed_key(id, bob, 2))?;
    two.remove_member(&room(id), &endpoint(bob)).await?;
    fails(one.latest_key(&room(id), &endpoint(bob)).await, &no_key(id, bob, None))?;
    same(one.members(&room(id), Page::first()).await?.len(), 1)?;
    same(one.rooms_of(&endpoint(bob), Page::first()).await?.len(), 0)?;
    one.delete_room(&room(id)).await?;
    fails(two.room(&room(id)).await, &no_room(id))?;
    same(two.rooms_of(&endpoint(ann), Page::first()).await?.len(), 0)
}

async fn a_read_on_another_server_sees_every_acknowledged_write(cx: Cx) -> Verdict {
    let clients = clients(&cx).await?;
    let running = pairs(&clients).into_iter().enumerate().map(|(pair, (one, two))| {
        let (one, two) = (one.unrecorded(), two.unrecorded());
        tokio::spawn(async move {
            for round in 0..15 {
                one_life(&*one, &*two, &format!("{pair} {round}")).await?;
            }
            Verdict::Ok(())
        })
    });
    for pair in running.collect::<Vec<_>>() {
        joined(pair).await?;
    }
    Ok(())
}

/// A server is paused several times, too briefly for an election, while other servers' clients
/// revoke users. Its own client asks for decisions meanwhile: the questions reach the server when
/// it resumes, while its data are still stale.
async fn a_server_that_resumes_after_a_pause_gives_no_stale_decision(cx: Cx) -> Verdict {
    let clients = clients(&cx).await?;
    let [one, two, lagging, ..] = clients.as_slice() else {
        return Err(Failure::new("three servers", clients.len().to_string()));
    };
    one.bootstrap_admin(admin(user_number(u64::MAX))).await?;
    lead_all(&cx, 0).await?;
    let servers = servers(&cx)?;
    let (mut number, mut asked) = (0, 0);
    for _ in 0..5 {
        let keys: Vec<_> = (0..32).map(|key| user_number(1_000_000 + number + key)).collect();
        for key in &keys {
            one.unrecorded().add_user(user(*key)).await?;
            same(lagging.unrecorded().is_authorized(key).await, Decision::Allow)?;
        }
        servers.harm(2, Harm::Pause).await?;
        let mut revoked = 0;
        for key in &keys {
            if !done(one.unrecorded().revoke_user(key, at(3)).await)? {
                break;
            }
            revoked += 1;
        }
        // The server gets these questions when it resumes.
        let waiting: Vec<_> = keys
            .iter()
            .take(revoked)
            .map(|key| {
                let (store, key) = (lagging.unrecorded(), *key);
                tokio::spawn(async move { store.is_authorized(&key).await })
            })
            .collect();
        asked += waiting.len();
        let until = Instant::now() + Duration::from_millis(200);
        while Instant::now() < until {
            let key = user_number(number);
            number += 1;
            if !done(one.unrecorded().add_user(user(key)).await.map(drop))?
                || !done(two.unrecorded().revoke_user(&key, at(3)).await)?
            {
                break;
            }
        }
        servers.heal().await?;
        for asked in waiting {
            is_revoked(joined(asked).await)?;
        }
        number += 100;
    }
    if asked == 0 {
        return Err(Failure::new("a user to be revoked during a pause", "none in five rounds"));
    }
    Ok(())
}

/// A client asks for decisions all the time, through slow links, while another client revokes
/// users. So questions are in flight at each revocation. A question after a revocation must not
/// share the answer to a question before it.
async fn a_slow_server_gives_no_stale_decision(cx: Cx) -> Verdict {
    let clients = clients(&cx).await?;
    let [one, _, slow, ..] = clients.as_slice() else {
        return Err(Failure::new("three servers", clients.len().to_string()));
    };
    one.bootstrap_admin(admin(user_number(0))).await?;
    let keys: Vec<_> = (1..=16).map(user_number).collect();
    for key in &keys {
        one.add_user(user(*key)).await?;
    }
    lead_all(&cx, 0).await?;
    let servers = servers(&cx)?;
    servers.harm(2, Harm::Slow).await?;
    let over = AtomicBool::new(false);
    // The questions are staggered, so that some are at every point of the slow round trip.
    let asking = join_all((0..16).map(|number| {
        let (slow, over) = (slow.unrecorded(), &over);
        async move {
            tokio::time::sleep(Duration::from_millis(number * 25)).await;
            while !over.load(Ordering::Relaxed) {
                let _ = slow.is_authorized(&user_number(0)).await;
                // Otherwise a decision without an await would keep the other futures from running.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }));
    let revoking = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let all = keys.iter().zip(0..).map(async |(key, number)| {
            tokio::time::sleep(Duration::from_millis(number * 30)).await;
            if !done(one.revoke_user(key, at(3)).await)? {
                return Ok(false);
            }
            is_revoked(slow.is_authorized(key).await)
        });
        let all = try_join_all(all).await;
        over.store(true, Ordering::Relaxed);
        all
    };
    let (answered, _) = tokio::join!(revoking, asking);
    let answered = answered?.into_iter().filter(|answered| *answered).count();
    servers.heal().await?;
    if answered < keys.len() / 2 {
        let some = format!("at least half of {} decisions in time", keys.len());
        return Err(Failure::new(some, answered.to_string()));
    }
    Ok(())
}

/// Whether the decision denies because the user is revoked. The decision may also deny because it
/// failed. Any other decision fails the case.
fn is_revoked(decision: Decision) -> Verdict<bool> {
    match decision {
        Decision::Deny(DenyReason::Failed(error)) if error.outcome_unknown() => Ok(false),
        decision => same(decision, REVOKED).map(|()| true),
    }
}

/// Whether the write took effect for sure. `Timeout` and `Unavailable` are no failure: the client
/// may depend on the paused server.
fn done(outcome: Result<(), Error>) -> Verdict<bool> {
    match outcome {
        Err(error) if error.outcome_unknown() => Ok(false),
        outcome => Ok(outcome.map(|()| true)?),
    }
}
