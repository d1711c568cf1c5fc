//! Clients that may be out of date, and by how much at most (clause AUTH-4).

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
    it_lets_in_who_may_come_in: "AUTH-1" "AUTH-4", needs Bounded Clients;
    a_revocation_counts_once_the_bound_is_over: "AUTH-4" "AUTH-3", needs Bounded Clients;
    its_own_revocations_count_once_the_bound_is_over: "AUTH-4" "AUTH-3", needs Bounded;
    without_contact_it_denies_once_the_bound_is_over: "AUTH-4" "AUTH-2", needs Bounded Faults;
    time_in_suspension_counts: "TIME-3" "AUTH-4", needs Bounded Faults Suspend;
    with_contact_again_it_decides_again: "AUTH-4" "AUTH-2", needs Bounded Faults;
    a_cut_off_server_lets_nobody_in_past_the_bound: "AUTH-4" "AUTH-3", needs Bounded Replicas;
    it_is_off_unless_it_is_asked_for: "AUTH-4" "AUTH-3", needs Bounded Clients;
}

/// Long enough to see answers within it, short beside everything else.
const BOUND: Duration = Duration::from_millis(500);
/// Longer than a case takes.
const LONG: Duration = Duration::from_mins(10);
const ADMIN: UserKey = UserKey::from_bytes([0xad; 32]);
const USER: UserKey = UserKey::from_bytes([0x05; 32]);
const REVOKED: Decision = Decision::Deny(DenyReason::Revoked);

async fn set_up(store: &Client) -> Verdict {
    store.bootstrap_admin(admin(ADMIN)).await?;
    store.add_user(user(USER)).await?;
    Ok(())
}

/// Waits until `store` decides so; it may be out of date, or without contact, until `deadline`.
async fn decides(store: &Client, key: &UserKey, right: Decision, deadline: Instant) -> Verdict {
    decides_after(store, key, right, deadline, |_| Ok(())).await
}

/// The bound is over since the user was revoked: nothing lets that user in any more. A busy machine
/// may have the store without contact for longer than the bound; then it denies, and decides later.
async fn keeps_out(store: &Client, key: &UserKey) -> Verdict {
    decides_after(store, key, REVOKED, soon(), denies_as_failed).await
}

/// Waits until `store` decides so, at the latest at `deadline`; whatever it decides `before` is judged,
/// too.
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
        holds(Instant::now() < deadline, &format!("{} by now", right.show()), &decision)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn it_lets_in_who_may_come_in(cx: Cx) -> Verdict {
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

/// Revokes users and asks `bounded` about each from a bound after the revocation has returned.
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

async fn a_revocation_counts_once_the_bound_is_over(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let bounded = cx.open_bounded(BOUND).await?;
    revoked_in_time(&store, &bounded, 100).await
}

async fn its_own_revocations_count_once_the_bound_is_over(cx: Cx) -> Verdict {
    let bounded = cx.open_bounded(BOUND).await?;
    set_up(&bounded).await?;
    revoked_in_time(&bounded, &bounded, 100).await
}

/// The faults under which no read is answered.
fn silences(cx: &Cx) -> Vec<Fault> {
    cx.target().faults().iter().filter(|fault| fault.stops_reads).copied().collect()
}

/// Nobody is let in, whether known or not, and each denial says that the question failed.
async fn denies_everybody(cx: &Cx, bounded: &Client) -> Verdict {
    for key in [USER, ADMIN, user_key(0x77)] {
        denies_as_failed(&cx.within_bound(bounded.is_authorized(&key)).await?)?;
        denies_as_failed(&cx.within_bound(bounded.is_admin(&key)).await?)?;
    }
    Ok(())
}

async fn without_contact_it_denies_once_the_bound_is_over(cx: Cx) -> Verdict {
    each(&cx, &silences(&cx), |cx, fault| async move {
        let bounded = cx.open_bounded(BOUND).await?;
        set_up(&bounded).await?;
        decides(&bounded, &USER, Decision::Allow, soon()).await?;
        cx.instance().inject(&fault).await?;
        // From memory, while the bound allows it; that is right, for nobody was revoked.
        let decision = cx.within_bound(bounded.is_authorized(&USER)).await?;
        if decision != Decision::Allow {
            denies_as_failed(&decision)?;
        }
        tokio::time::sleep(BOUND).await;
        denies_everybody(&cx, &bounded).await
    })
    .await
}

async fn time_in_suspension_counts(cx: Cx) -> Verdict {
    each(&cx, &silences(&cx), |cx, fault| async move {
        let bounded = cx.open_bounded(LONG).await?;
        set_up(&bounded).await?;
        decides(&bounded, &USER, Decision::Allow, soon()).await?;
        cx.instance().inject(&fault).await?;
        cx.instance().suspend(LONG).await?;
        // Whoever was revoked meanwhile would be let in by anything else.
        denies_everybody(&cx, &bounded).await
    })
    .await
}

async fn with_contact_again_it_decides_again(cx: Cx) -> Verdict {
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

/// What the server that is cut off was before.
#[derive(Clone, Copy, Debug)]
enum Was {
    Leader,
    Follower,
}

async fn a_cut_off_server_lets_nobody_in_past_the_bound(cx: Cx) -> Verdict {
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
        // Nobody has to be revoked for it: without contact it cannot know.
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

/// Clients that were not asked to be out of date are not, beside one that was.
async fn it_is_off_unless_it_is_asked_for(cx: Cx) -> Verdict {
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
