//! Bounded clients: their decisions may be out of date, by at most a bound (clause AUTH-4).

use std::time::{Duration, Instant};

use membership::{Decision, DenyReason, Store, UserKey};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, at, user, user_key, user_number};
use crate::replicated::{each, keep_asking, lead_all, servers};
use crate::show::Show;
use crate::target::{Fault, Harm};
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, denies_as_failed, holds, same};

declare! { "bounded";
    a_bounded_client_allows_authorized_users: "AUTH-1" "AUTH-4", needs Bounded Clients;
    a_bounded_client_denies_a_revoked_user_past_the_bound: "AUTH-4" "AUTH-3", needs Bounded Clients;
    a_bounded_client_denies_a_user_that_it_revoked_past_the_bound: "AUTH-4" "AUTH-3", needs Bounded;
    a_bounded_client_without_contact_denies_past_the_bound: "AUTH-4" "AUTH-2", needs Bounded Faults;
    time_in_suspension_counts_against_the_bound: "TIME-3" "AUTH-4", needs Bounded Faults Suspend;
    a_bounded_client_decides_again_once_it_has_contact: "AUTH-4" "AUTH-2", needs Bounded Faults;
    a_bounded_client_of_a_cut_off_server_denies_past_the_bound:
        "AUTH-4" "AUTH-3", needs Bounded Replicas;
    bounded_staleness_is_off_unless_configured: "AUTH-4" "AUTH-3", needs Bounded Clients;
}

/// The bound of most clients: long enough for decisions within it, and short to wait for.
const BOUND: Duration = Duration::from_millis(500);
/// A bound that no case outlasts.
const LONG: Duration = Duration::from_mins(10);
const ADMIN: UserKey = UserKey::from_bytes([0xad; 32]);
const USER: UserKey = UserKey::from_bytes([0x05; 32]);
const REVOKED: Decision = Decision::Deny(DenyReason::Revoked);

async fn set_up(store: &Client) -> Verdict {
    store.bootstrap_admin(admin(ADMIN)).await?;
    store.add_user(user(USER)).await?;
    Ok(())
}

/// Waits until `store` decides `right`. Until `deadline` it may decide otherwise.
async fn decides(store: &Client, key: &UserKey, right: Decision, deadline: Instant) -> Verdict {
    decides_after(store, key, right, deadline, |_| Ok(())).await
}

/// Waits until `store` denies a user as revoked whose revocation is longer ago than the bound.
///
/// Until then every decision must be a denial with the reason `Failed`: on a busy machine a store
/// may be without contact for longer than the bound, and denies meanwhile.
async fn keeps_out(store: &Client, key: &UserKey) -> Verdict {
    decides_after(store, key, REVOKED, soon(), denies_as_failed).await
}

/// Waits until `store` decides `right`, until `deadline`. Judges each earlier decision by `before`.
async fn decides_after(
    store: &Client,
    key: &UserKey,
    right: Decision,
    deadline: Instant,
    before: fn(&Decision) -> Verdict,
) -> Verdict {
    loop {
        let decision = store.unrecorded().is_authorized(key).await;
        if decision == right {
            return Ok(());
        }
        before(&decision)?;
        holds(Instant::now() < deadline, &format!("{} by the deadline", right.show()), &decision)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn a_bounded_client_allows_authorized_users(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let bounded = cx.open_bounded(BOUND).await?;
    decides(&bounded, &USER, Decision::Allow, soon()).await?;
    for number in 0..20 {
        let key = user_number(number);
        store.add_user(user(key)).await?;
        decides(&bounded, &key, Decision::Allow, soon()).await?;
        same(bounded.is_admin(&key).await, Decision::Deny(DenyReason::NotAdmin))?;
    }
    same(bounded.is_admin(&ADMIN).await, Decision::Allow)?;
    same(bounded.is_authorized(&user_key(0x77)).await, Decision::Deny(DenyReason::Unknown))
}

/// Revokes users. `bounded` must deny each, as soon as its revocation is longer ago than the bound.
async fn revoked_in_time(revoker: &Client, bounded: &Client, users: u64) -> Verdict {
    let rounds = (0..users).map(|number| async move {
        let key = user_number(number);
        revoker.unrecorded().add_user(user(key)).await?;
        decides(bounded, &key, Decision::Allow, soon()).await?;
        revoker.unrecorded().revoke_user(&key, at(3)).await?;
        tokio::time::sleep(BOUND).await;
        keeps_out(bounded, &key).await
    });
    futures::future::try_join_all(rounds).await?;
    Ok(())
}

async fn a_bounded_client_denies_a_revoked_user_past_the_bound(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let bounded = cx.open_bounded(BOUND).await?;
    revoked_in_time(&store, &bounded, 100).await
}

async fn a_bounded_client_denies_a_user_that_it_revoked_past_the_bound(cx: Cx) -> Verdict {
    let bounded = cx.open_bounded(BOUND).await?;
    set_up(&bounded).await?;
    revoked_in_time(&bounded, &bounded, 100).await
}

/// The faults during which no read is answered.
fn silences(cx: &Cx) -> Vec<Fault> {
    cx.target().faults().iter().filter(|fault| fault.stops_reads).copied().collect()
}

/// The client must deny a user, an admin and an unknown key, each with the reason `Failed`.
async fn denies_everybody(cx: &Cx, bounded: &Client) -> Verdict {
    for key in [USER, ADMIN, user_key(0x77)] {
        denies_as_failed(&cx.within_bound(bounded.is_authorized(&key)).await?)?;
        denies_as_failed(&cx.within_bound(bounded.is_admin(&key)).await?)?;
    }
    Ok(())
}

async fn a_bounded_client_without_contact_denies_past_the_bound(cx: Cx) -> Verdict {
    each(&cx, &silences(&cx), |cx, fault| async move {
        let bounded = cx.open_bounded(BOUND).await?;
        set_up(&bounded).await?;
        decides(&bounded, &USER, Decision::Allow, soon()).await?;
        cx.instance().inject(&fault).await?;
        // Within the bound the client may allow from memory. Past the bound, which a slow machine
        // may reach, it denies.
        let decision = cx.within_bound(bounded.is_authorized(&USER)).await?;
        if decision != Decision::Allow {
            denies_as_failed(&decision)?;
        }
        tokio::time::sleep(BOUND).await;
        denies_everybody(&cx, &bounded).await
    })
    .await
}

async fn time_in_suspension_counts_against_the_bound(cx: Cx) -> Verdict {
    each(&cx, &silences(&cx), |cx, fault| async move {
        let bounded = cx.open_bounded(LONG).await?;
        set_up(&bounded).await?;
        decides(&bounded, &USER, Decision::Allow, soon()).await?;
        cx.instance().inject(&fault).await?;
        cx.instance().suspend(LONG).await?;
        // The bound is over, though no timer ran meanwhile. A client that allowed now would allow a
        // user who was revoked during the suspension.
        denies_everybody(&cx, &bounded).await
    })
    .await
}

async fn a_bounded_client_decides_again_once_it_has_contact(cx: Cx) -> Verdict {
    each(&cx, &silences(&cx), |cx, fault| async move {
        let bounded = cx.open_bounded(BOUND).await?;
        set_up(&bounded).await?;
        cx.instance().inject(&fault).await?;
        tokio::time::sleep(BOUND).await;
        denies_as_failed(&cx.within_bound(bounded.is_authorized(&USER)).await?)?;
        cx.instance().heal().await?;
        let deadline = Instant::now() + Duration::from_secs(20);
        decides(&bounded, &USER, Decision::Allow, deadline).await?;
        while bounded.unrecorded().revoke_user(&USER, at(3)).await.is_err() {
            if Instant::now() > deadline {
                return Err(Failure::new("a revocation to succeed again", "none did").of_deadline());
            }
        }
        tokio::time::sleep(BOUND).await;
        keeps_out(&bounded, &USER).await
    })
    .await
}

/// The role that the server had before it was cut off.
#[derive(Clone, Copy, Debug)]
enum Was {
    Leader,
    Follower,
}

async fn a_bounded_client_of_a_cut_off_server_denies_past_the_bound(cx: Cx) -> Verdict {
    each(&cx, &[Was::Leader, Was::Follower], |cx, was| async move {
        let there = cx.open_at(1).await?;
        set_up(&there).await?;
        let bounded = cx.open_bounded_at(0, BOUND).await?;
        lead_all(&cx, usize::from(matches!(was, Was::Follower))).await?;
        decides(&bounded, &USER, Decision::Allow, soon()).await?;
        let servers = servers(&cx)?;
        servers.harm(0, Harm::Isolate).await?;
        let cut = Instant::now();
        let store = bounded.unrecorded();
        // The client must deny whether or not the user was revoked, since without contact it cannot
        // know.
        let ask = keep_asking(cut + Duration::from_secs(10), || async {
            let late = cut.elapsed() >= BOUND;
            let decision = cx.within_bound(store.is_authorized(&USER)).await?;
            if late { denies_as_failed(&decision) } else { Ok(()) }
        });
        let revoke = async {
            let deadline = cut + servers.failover();
            let call = crate::model::Op::RevokeUser(USER, at(3));
            crate::replicated::achieve(&there, &call, deadline).await
        };
        let (asked, gone) = futures::join!(ask, revoke);
        asked?;
        gone?;
        servers.heal().await?;
        decides(&bounded, &USER, REVOKED, Instant::now() + servers.failover()).await
    })
    .await
}

/// A client opened without a bound is never out of date, though another one has a bound.
async fn bounded_staleness_is_off_unless_configured(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let _bounded = cx.open_bounded(Duration::from_mins(1)).await?;
    let other = cx.open().await?;
    for number in 0..50 {
        let key = user_number(number);
        store.unrecorded().add_user(user(key)).await?;
        same(other.unrecorded().is_authorized(&key).await, Decision::Allow)?;
        store.unrecorded().revoke_user(&key, at(3)).await?;
        same(other.unrecorded().is_authorized(&key).await, REVOKED)?;
    }
    Ok(())
}
