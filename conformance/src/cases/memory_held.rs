//! The memory that a client holds after many calls.

use membership::{Decision, DenyReason, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{at, endpoint, plain, room, user, user_number};
use crate::verdict::{Failure, Verdict, holds, same};

declare! { "time";
    the_resources_of_a_client_do_not_grow_with_its_calls: "CLOSE-4";
}

/// How many calls are measured; fewer on a slow target.
const CALLS: u64 = 240_000;
/// How many calls come before the measurement; fewer on a slow target. These calls fill the caches
/// that have a limit.
const BEFORE: u64 = 60_000;
/// How many bytes memory may grow by for each call: an allocator needs some by itself.
const KEPT: u64 = 24;
/// How many bytes a process's memory may grow by without any call.
const BLUR: u64 = 4 << 20;

/// The resident memory of this process in bytes; `None` if the system does not tell it.
fn resident() -> Option<u64> {
    let page = 4096;
    let said = std::fs::read_to_string("/proc/self/statm").ok()?;
    said.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * page)
}

async fn asked(store: &dyn Store, calls: u64) -> Verdict {
    let [here, gone] = [1, 2].map(user_number);
    for call in 0..calls {
        match call % 4 {
            0 => same(store.is_authorized(&here).await, Decision::Allow)?,
            1 => same(store.is_authorized(&gone).await, Decision::Deny(DenyReason::Revoked))?,
            2 => {
                // Another unknown key in each call: a cache of all answers would grow.
                let decision = store.is_authorized(&user_number(1_000 + call)).await;
                same(decision, Decision::Deny(DenyReason::Unknown))?;
            }
            _ => same(store.member(&room("r"), &endpoint("ann")).await?.endpoint, endpoint("ann"))?,
        }
        if call % 1_000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

async fn the_resources_of_a_client_do_not_grow_with_its_calls(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    store.create_room(plain("r", "ann")).await?;
    for key in [1, 2].map(user_number) {
        store.add_user(user(key)).await?;
    }
    store.revoke_user(&user_number(2), at(3)).await?;
    asked(&*store, cx.rounds(BEFORE)).await?;
    let calls = cx.rounds(CALLS);
    let (held, before) = (cx.instance().held().await?, resident());
    asked(&*store, calls).await?;
    let now = cx.instance().held().await?;
    holds(now <= held, "no more open than before the calls", &(held, now))?;
    let (Some(before), Some(after)) = (before, resident()) else { return Ok(()) };
    let grown = after.saturating_sub(before);
    let most = BLUR + calls * KEPT;
    if grown > most {
        let expected = format!("at most {most} bytes more after {calls} calls");
        return Err(Failure::new(expected, format!("{grown} bytes more")));
    }
    Ok(())
}
