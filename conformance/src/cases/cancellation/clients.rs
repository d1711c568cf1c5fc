//! Clients that are dropped in the middle of a write, with all their background tasks.

use std::time::{Duration, Instant};

use super::writes::{self, Script, seen};
use crate::case::declare;
use crate::context::Cx;
use crate::judge::agree;
use crate::make::{user, user_key};
use crate::model::{Model, Op};
use crate::show::Show;
use crate::verdict::{Failure, Verdict};

declare! { "cancellation";
    a_room_creation_of_a_dropped_client_is_done_entirely_or_not_at_all:
        "CLOSE-3" "ROOM-1" "LIST-4", needs Clients;
    a_room_deletion_of_a_dropped_client_is_done_entirely_or_not_at_all:
        "CLOSE-3" "ROOM-4" "LIST-4", needs Clients;
    a_member_addition_of_a_dropped_client_is_done_entirely_or_not_at_all:
        "CLOSE-3" "MEM-1" "LIST-4", needs Clients;
    a_member_removal_of_a_dropped_client_is_done_entirely_or_not_at_all:
        "CLOSE-3" "MEM-3" "LIST-4", needs Clients;
    a_rekey_of_a_dropped_client_is_done_entirely_or_not_at_all:
        "CLOSE-3" "KEY-5" "LIST-4", needs Clients;
}

/// The number of moments of a call at which its client is dropped.
const MOMENTS: u32 = 24;

/// Drops a client with its call in flight, later in each round, up to the call's usual end.
///
/// Another client then sees the call done entirely or not at all, and can make the call itself.
async fn each(cx: &Cx, script: &Script) -> Verdict {
    let other = cx.open().await?;
    let mut model = Model::new();
    agree(&other, &mut model, &Op::AddUser(user(user_key(0xff)))).await?;
    let mut longest = Duration::ZERO;
    for round in 0..u64::from(MOMENTS) {
        let (call, views) = ((script.call)(round), (script.views)(round));
        for op in (script.before)(round) {
            agree(&other, &mut model, &op).await?;
        }
        let client = cx.open_unheld().await?;
        let (store, op) = (client.unrecorded(), call.clone());
        let began = Instant::now();
        let task = tokio::spawn(async move { op.apply(&*store).await });
        // The first four calls end by themselves, to measure how long a call takes.
        let moment = match round {
            0..4 => Duration::MAX,
            _ => longest * u32::try_from(round).unwrap_or(MOMENTS) / MOMENTS,
        };
        while began.elapsed() < moment && !task.is_finished() {
            tokio::task::yield_now().await;
        }
        longest = longest.max(if round < 4 { began.elapsed() } else { Duration::ZERO });
        task.abort();
        drop(client);
        // `None` if the call was dropped before it had an answer.
        let answer = task.await.ok();
        let (before, mut after) = (model.clone(), model);
        let full = after.apply(&call);
        let may = match &answer {
            Some(answer) if *answer != full => {
                return Err(Failure::answer(full.show(), &answer));
            }
            Some(_) => vec![(after.clone(), true)],
            None => vec![(before, false), (after.clone(), true)],
        };
        cx.within_slow_bound(seen(&other, may, &views)).await??;
        let again = cx.within_slow_bound(call.apply(&other)).await?;
        // The dropped call may have taken effect only now, if its message reached the server late.
        // Then this call is refused.
        let refused = after.clone().apply(&call);
        if again != full && again != refused {
            let expected = format!("{} or {}", full.show(), refused.show());
            return Err(Failure::answer(expected, &again));
        }
        after.apply(&call);
        let settled = cx.within_slow_bound(seen(&other, vec![(after.clone(), true)], &views));
        settled.await??;
        model = after;
    }
    Ok(())
}

async fn a_room_creation_of_a_dropped_client_is_done_entirely_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &writes::CREATION).await
}

async fn a_room_deletion_of_a_dropped_client_is_done_entirely_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &writes::DELETION).await
}

async fn a_member_addition_of_a_dropped_client_is_done_entirely_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &writes::ADDITION).await
}

async fn a_member_removal_of_a_dropped_client_is_done_entirely_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &writes::REMOVAL).await
}

async fn a_rekey_of_a_dropped_client_is_done_entirely_or_not_at_all(cx: Cx) -> Verdict {
    each(&cx, &writes::REKEY).await
}
