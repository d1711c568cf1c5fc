//! What a client keeps of the calls that it has answered.

use membership::{Decision, DenyReason, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{at, endpoint, plain, room, user, user_number};
use crate::verdict::{Failure, Verdict, same};

declare! { "time";
    what_a_client_holds_does_not_grow_with_its_calls: "CLOSE-4";
}

/// How many calls, where one costs nothing, and how many before, so that what is filled once is full.
const CALLS: u64 = 240_000;
const BEFORE: u64 = 60_000;
/// The most that may be kept of a call: what an allocator does by itself, shared among so many.
const KEPT: u64 = 24;
/// What a process's memory may grow by without any call.
const BLUR: u64 = 4 << 20;

/// The memory that this process has, in bytes; `None` where the system does not say.
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
                // Each is another one, and nobody's.
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

async fn what_a_client_holds_does_not_grow_with_its_calls(cx: Cx) -> Verdict {
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
    let (Some(before), Some(after)) = (before, resident()) else { return Ok(()) };
    let grown = after.saturating_sub(before);
    let most = BLUR + calls * KEPT;
    if grown > most {
        let expected = format!("at most {most} bytes more after {calls} calls");
        return Err(Failure::new(expected, format!("{grown} bytes more")));
    }
    same(cx.instance().held().await? <= held, true)
}
