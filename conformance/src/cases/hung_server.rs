//! The time that calls take while a server hangs.

use std::time::{Duration, Instant};

use crate::case::declare;
use crate::cases::failover::{decisions, reads, set_up};
use crate::context::Cx;
use crate::model::Op;
use crate::replicated::{heal_and_work, in_time, servers, unanswered, works};
use crate::target::Harm;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, holds};

declare! { "time";
    calls_do_not_wait_for_a_server_that_hangs: "FAULT-1", needs Replicas;
}

/// How often each call is timed.
const TIMES: u32 = 40;

/// A server that the client is not connected to hangs: its connections stay open, and it answers nothing. For some time
/// the other servers go on passing requests to it. Calls must not wait for it, one after the other.
///
/// Each call is made many times. The time that a tenth of them exceed is compared with that of the same call before.
async fn calls_do_not_wait_for_a_server_that_hangs(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    set_up(&store).await?;
    let servers = servers(&cx)?;
    let hung = (servers.connected().await? + 1) % servers.count();
    let before = slow_tenths(&cx, &store).await?;
    for (harm, number) in [(Harm::Pause, 1_000_000), (Harm::Blackhole, 2_000_000)] {
        servers.harm(hung, harm).await?;
        let deadline = Instant::now() + servers.failover();
        works(&cx, &*store.unrecorded(), number, deadline).await?;
        let after = slow_tenths(&cx, &store).await?;
        for ((call, before), (_, after)) in before.iter().zip(&after) {
            let most = 4 * *before + cx.op_timeout() / 20;
            if *after > most {
                let expected = format!("{call:?} in {most:?} while a server hangs ({harm:?})");
                return Err(Failure::new(expected, format!("{after:?}")).of_deadline());
            }
        }
        heal_and_work(&cx, &*store.unrecorded(), number + 500_000).await?;
    }
    Ok(())
}

/// Makes each read and decision many times. Returns, of each, the time that a tenth of its times exceed.
async fn slow_tenths(cx: &Cx, store: &Client) -> Verdict<Vec<(Op, Duration)>> {
    let store = store.unrecorded();
    let mut found = Vec::new();
    for call in reads().into_iter().chain(decisions()) {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let began = Instant::now();
            let answer = in_time(cx, &*store, &call).await?;
            times.push(began.elapsed());
            holds(!unanswered(&answer), "an answer", &answer)?;
        }
        times.sort_unstable();
        let tenth = times.len() - times.len() / 10 - 1;
        found.extend(times.get(tenth).map(|time| (call, *time)));
    }
    Ok(found)
}
