//! Revocations while many tasks ask for decisions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use membership::{Decision, DenyReason, Store, UserKey};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, at, user, user_number};
use crate::race::{both, clients, joined, together};
use crate::verdict::{Failure, Verdict, same};

declare! { "stale_allows";
    a_revoked_user_gets_no_stale_allow_under_load: "AUTH-3";
    a_revoked_admin_gets_no_stale_allow_under_load: "AUTH-3" "USER-4";
    a_revocation_that_one_client_saw_is_seen_by_every_client: "AUTH-3" "LIN-1";
    many_users_revoked_at_once_get_no_stale_allow: "AUTH-3" "LIN-1";
    a_revocation_denies_nobody_else: "AUTH-1" "LIN-1";
}

const REVOKED: Decision = Decision::Deny(DenyReason::Revoked);
const READERS: usize = 8;

/// The state that the tasks of a case share: one revokes a user, the others ask for its decisions.
#[derive(Default)]
struct Watch {
    /// How many of the asking tasks have an answer.
    readers: AtomicUsize,
    /// Set when the revocation has returned: a decision that starts later must deny.
    returned: AtomicBool,
    /// Set when the asking tasks may end.
    over: AtomicBool,
}

/// Asks until `over` is set, and then once more. Fails on an `Allow` to a question that began after
/// the revocation returned, or after this reader got a denial.
async fn reads(
    store: Arc<dyn Store>,
    key: UserKey,
    as_admin: bool,
    watch: Arc<Watch>,
) -> Verdict<u64> {
    let (mut denied, mut asked) = (false, 0);
    loop {
        let last = watch.over.load(Ordering::SeqCst);
        let too_late = watch.returned.load(Ordering::SeqCst);
        let decision =
            if as_admin { store.is_admin(&key).await } else { store.is_authorized(&key).await };
        asked += 1;
        if asked == 1 {
            watch.readers.fetch_add(1, Ordering::SeqCst);
        }
        match decision {
            Decision::Allow if too_late || denied => {
                let when = if too_late { "its revocation returned" } else { "it was denied" };
                let expected = format!("no Allow for {key} once {when}");
                return Err(Failure::new(expected, format!("Allow, after {asked} questions")));
            }
            Decision::Allow => {}
            other @ Decision::Deny(_) => {
                same(other, REVOKED)?;
                denied = true;
            }
        }
        if last {
            return Ok(asked);
        }
        tokio::task::yield_now().await;
    }
}

/// Revokes a user in each round while readers on every client ask about it.
async fn revoked_under_load(cx: &Cx, rounds: u64, as_admin: bool) -> Verdict {
    let clients = clients(cx, 3).await?;
    let Some(first) = clients.first() else { return Ok(()) };
    first.bootstrap_admin(admin(user_number(u64::MAX))).await?;
    for (round, revoker) in (0..rounds).zip(clients.iter().cycle()) {
        let key = user_number(round);
        let new = if as_admin { admin(key) } else { user(key) };
        first.unrecorded().add_user(new).await?;
        let watch = Arc::new(Watch::default());
        let readers: Vec<_> = clients
            .iter()
            .cycle()
            .take(READERS)
            .map(|client| reads(client.unrecorded(), key, as_admin, Arc::clone(&watch)))
            .map(tokio::spawn)
            .collect();
        while watch.readers.load(Ordering::SeqCst) < READERS {
            tokio::task::yield_now().await;
        }
        let gone = revoker.unrecorded().revoke_user(&key, at(3)).await;
        watch.returned.store(true, Ordering::SeqCst);
        watch.over.store(true, Ordering::SeqCst);
        for reader in readers {
            joined(reader).await?;
        }
        gone?;
    }
    Ok(())
}

async fn a_revoked_user_gets_no_stale_allow_under_load(cx: Cx) -> Verdict {
    revoked_under_load(&cx, cx.rounds(60), false).await
}

async fn a_revoked_admin_gets_no_stale_allow_under_load(cx: Cx) -> Verdict {
    revoked_under_load(&cx, cx.rounds(40), true).await
}

/// As soon as one client gets a denial, another client asks and must be denied, too.
async fn a_revocation_that_one_client_saw_is_seen_by_every_client(cx: Cx) -> Verdict {
    let clients = clients(&cx, 3).await?;
    let [one, two, three] = clients.as_slice() else { return Ok(()) };
    for round in 0..cx.rounds(60) {
        let key = user_number(round);
        one.unrecorded().add_user(user(key)).await?;
        let (first, second, third) = (one.unrecorded(), two.unrecorded(), three.unrecorded());
        let revoke = async move { first.revoke_user(&key, at(3)).await };
        let watch = cx.clone();
        let see = async move {
            let denied = || async { second.is_authorized(&key).await != Decision::Allow };
            watch.until("a denial of the user that is revoked", denied).await?;
            Verdict::Ok(third.is_authorized(&key).await)
        };
        let (gone, after) = both(revoke, see).await;
        gone?;
        same(after?, REVOKED)?;
    }
    Ok(())
}

async fn many_users_revoked_at_once_get_no_stale_allow(cx: Cx) -> Verdict {
    let clients = clients(&cx, 4).await?;
    let Some(first) = clients.first() else { return Ok(()) };
    for round in 0..cx.rounds(5) {
        let keys: Vec<_> = (0..64).map(|number| user_number(round * 64 + number)).collect();
        for key in &keys {
            first.unrecorded().add_user(user(*key)).await?;
        }
        // Another client than the revoker asks about each user as soon as it is revoked.
        let racers = keys.iter().enumerate().map(|(number, key)| {
            let client = |n: usize| clients.get(n % clients.len()).unwrap_or(first).unrecorded();
            let (revoker, asker, key) = (client(number), client(number + 1), *key);
            async move {
                revoker.revoke_user(&key, at(3)).await?;
                Ok::<_, membership::Error>(asker.is_authorized(&key).await)
            }
        });
        for decision in together(racers).await {
            same(decision?, REVOKED)?;
        }
    }
    Ok(())
}

async fn a_revocation_denies_nobody_else(cx: Cx) -> Verdict {
    let clients = clients(&cx, 2).await?;
    let [one, two] = clients.as_slice() else { return Ok(()) };
    let (stays, stays_admin) = (user_number(u64::MAX), user_number(u64::MAX - 1));
    one.add_user(user(stays)).await?;
    one.bootstrap_admin(admin(stays_admin)).await?;
    let (here, there) = (one.unrecorded(), two.unrecorded());
    let revoke = async move {
        for number in 0..100 {
            here.add_user(admin(user_number(number))).await?;
            here.revoke_user(&user_number(number), at(3)).await?;
        }
        Ok::<_, membership::Error>(())
    };
    let ask = async move {
        for _ in 0..500 {
            let seen = (there.is_authorized(&stays).await, there.is_admin(&stays_admin).await);
            if seen != (Decision::Allow, Decision::Allow) || there.has_admin().await != Ok(true) {
                return Err(Failure::answer("Allow for users that were never revoked", &seen));
            }
        }
        Ok(())
    };
    let (gone, seen) = both(revoke, ask).await;
    gone?;
    seen
}
