//! Histories of concurrent clients: one order of all calls must explain every answer.
//!
//! The clients play for as long as the run says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use membership::{Error, Store};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use crate::case::declare;
use crate::context::Cx;
use crate::history::nemesis::{FAULTS, Nemesis, inject};
use crate::history::reached::{
    CONTENDED_REKEYS, DECISIONS_BESIDE_REVOCATIONS, LISTS_BESIDE_CHANGES, MEMBERS_BESIDE_REKEYS,
    RETRIES, REVOKED_KEPT_OUT, STALE_EPOCHS, STALE_REPLIES, UNKNOWN_OUTCOMES,
};
use crate::history::{Call, Mix, Play, Playing, Reached, judge};
use crate::model::Answer;
use crate::soak;
use crate::target::{Claim, Instance, Need};
use crate::verdict::{Failure, Verdict};

declare! { "histories";
    concurrent_calls_on_rooms_members_and_keys_are_linearizable:
        "LIN-1" "KEY-1" "KEY-4" "KEY-7" "KEY-8" "MEM-2" "ROOM-2" "ROOM-5";
    concurrent_listings_and_room_changes_are_linearizable: "LIN-1" "LIST-2" "LIST-4" "ROOM-4";
    concurrent_decisions_and_changes_of_users_are_linearizable:
        "LIN-1" "AUTH-3" "USER-1" "USER-2" "USER-3" "USER-4";
    dropped_calls_take_effect_once_or_never: "LIN-1" "TIME-2" "ERR-2";
    concurrent_calls_during_faults_are_linearizable:
        "LIN-1" "ERR-2" "AUTH-2" "AUTH-3", needs Faults;
    concurrent_calls_during_server_failures_are_linearizable:
        "LIN-1" "AUTH-3" "FAULT-1" "ERR-2" "KEY-7", needs Replicas;
}

/// How long a case goes on after the run's time has passed while an event that it needs has not
/// happened.
const PATIENCE: Duration = Duration::from_mins(1);

/// A kind of histories.
#[derive(Clone, Copy)]
struct Kind {
    /// Which calls the clients make.
    mix: Mix,
    /// How many of a hundred calls are dropped.
    dropped: u32,
    /// The events that must happen: without them the histories show nothing.
    needs: &'static [&'static str],
}

async fn concurrent_calls_on_rooms_members_and_keys_are_linearizable(cx: Cx) -> Verdict {
    let needs = &[CONTENDED_REKEYS, MEMBERS_BESIDE_REKEYS, STALE_EPOCHS];
    play(&cx, Kind { mix: Mix::Rooms, dropped: 0, needs }).await
}

async fn concurrent_listings_and_room_changes_are_linearizable(cx: Cx) -> Verdict {
    play(&cx, Kind { mix: Mix::Lists, dropped: 0, needs: &[LISTS_BESIDE_CHANGES] }).await
}

async fn concurrent_decisions_and_changes_of_users_are_linearizable(cx: Cx) -> Verdict {
    let needs = &[DECISIONS_BESIDE_REVOCATIONS, REVOKED_KEPT_OUT];
    play(&cx, Kind { mix: Mix::Users, dropped: 0, needs }).await
}

async fn dropped_calls_take_effect_once_or_never(cx: Cx) -> Verdict {
    let needs = &[UNKNOWN_OUTCOMES, CONTENDED_REKEYS, DECISIONS_BESIDE_REVOCATIONS];
    play(&cx, Kind { mix: Mix::All, dropped: 10, needs }).await
}

/// Plays one history after the other, each on its own store.
async fn play(cx: &Cx, kind: Kind) -> Verdict {
    until_met(cx, kind.needs, move |cx, number| one(cx, kind, number).boxed()).await
}

/// Plays histories for as long as the run says, and until each event of `needs` has happened.
///
/// Fails if one has not happened [`PATIENCE`] later.
async fn until_met(
    cx: &Cx,
    needs: &[&'static str],
    history: impl Fn(Cx, u64) -> BoxFuture<'static, Verdict>,
) -> Verdict {
    let began = Instant::now();
    for number in 0.. {
        history(cx.clone(), number).await?;
        cx.reached(&Reached::from([("histories", 1)]));
        if began.elapsed() < soak::length() {
            continue;
        }
        let met = cx.met();
        match needs.iter().find(|need| never(&met, need)) {
            None => break,
            Some(what) if began.elapsed() > soak::length() + PATIENCE => {
                return Err(Failure::new(
                    format!("histories with some {what}"),
                    format!("none in {} histories, so they test nothing", number + 1),
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn never(met: &Reached, what: &str) -> bool {
    met.get(what).is_none_or(|times| *times == 0)
}

async fn one(cx: Cx, kind: Kind, number: u64) -> Verdict {
    let mut rng = cx.rng(number);
    let instance = cx.target().create().await?;
    let stores = clients(&cx, &*instance, rng.random_range(1..=4)).await?;
    let play = Play {
        mix: kind.mix,
        seed: rng.random(),
        clients: rng.random_range(4..=12),
        calls: 400,
        turn: 200,
        dropped: kind.dropped,
        rest: Duration::ZERO,
    };
    end(&cx, &*instance, play.begin(&stores), stores, |_| false).await
}

/// Waits until the clients have made their calls, and judges the history.
///
/// Leaves out the calls whose answer `says_nothing`.
async fn end(
    cx: &Cx,
    instance: &dyn Instance,
    playing: Playing,
    stores: Vec<Arc<dyn Store>>,
    says_nothing: impl Fn(&Answer) -> bool,
) -> Verdict {
    let mut history = playing.end().await?;
    for store in stores {
        store.close().await?;
    }
    let ended = |call: &Call| call.ended.as_ref().is_some_and(|(_, answer)| says_nothing(answer));
    history.calls.retain(|call| !ended(call));
    cx.reached(&instance.reached());
    judge(cx, history).await.map(drop)
}

/// Opens `count` clients of the same data; only one if the target cannot have several.
async fn clients(cx: &Cx, instance: &dyn Instance, count: usize) -> Verdict<Vec<Arc<dyn Store>>> {
    let several = cx.target().claims(Need::Clients) == Claim::Claimed;
    let mut stores = Vec::new();
    for _ in 0..if several { count } else { 1 } {
        stores.push(instance.open().await?);
    }
    Ok(stores)
}

/// Clients that go on until they are stopped, and rest between two calls.
///
/// During a fault the time matters, not the number of calls; the rests keep the history short.
fn patient(rng: &mut ChaCha8Rng, clients: usize) -> Play {
    Play {
        mix: Mix::All,
        seed: rng.random(),
        clients,
        calls: usize::MAX,
        turn: 400,
        dropped: 0,
        rest: Duration::from_millis(20),
    }
}

async fn concurrent_calls_during_faults_are_linearizable(cx: Cx) -> Verdict {
    let history = |cx, number| with_faults(cx, number).boxed();
    until_met(&cx, &[FAULTS, UNKNOWN_OUTCOMES], history).await
}

async fn with_faults(cx: Cx, number: u64) -> Verdict {
    let mut rng = cx.rng(number);
    let instance = cx.target().create_for(&[Need::Faults]).await?;
    let stores = clients(&cx, &*instance, 3).await?;
    let playing = patient(&mut rng, 8).begin(&stores);
    // Two faults in each history. The histories of a run go through all faults in one random order.
    let mut faults = cx.target().faults().to_vec();
    faults.shuffle(&mut cx.rng(u64::MAX));
    let first = usize::try_from(number * 2).unwrap_or_default() % faults.len().max(1);
    for fault in faults.iter().cycle().skip(first).take(2) {
        cx.reached(&inject(&*instance, fault, &playing, cx.slow_bound()).await?);
    }
    // During a fault, stored data may be corrupt. `Corrupt` says that the call changed nothing, and
    // says nothing about the order of the calls.
    let spoilt = |answer: &Answer| matches!(answer.error(), Some(Error::Corrupt(_)));
    playing.stop();
    end(&cx, &*instance, playing, stores, spoilt).await
}

async fn concurrent_calls_during_server_failures_are_linearizable(cx: Cx) -> Verdict {
    // A store that counts its retries and the stale replies that it refused must have had some.
    let counted = cx.target().create().await?.reached();
    let mut needs = vec![FAULTS, UNKNOWN_OUTCOMES];
    needs.extend([RETRIES, STALE_REPLIES].iter().filter(|what| counted.contains_key(**what)));
    let history = |cx, number| with_a_nemesis(cx, number).boxed();
    until_met(&cx, &needs, history).await
}

async fn with_a_nemesis(cx: Cx, number: u64) -> Verdict {
    let mut rng = cx.rng(number);
    let instance = cx.target().create_for(&[Need::Replicas]).await?;
    let servers = instance.replicas()?;
    // Two clients that may go to another server, and for each server one that stays with it.
    let mut stores = clients(&cx, &*instance, 2).await?;
    for server in 0..servers.count() {
        stores.push(servers.open_at(server).await?);
    }
    let playing = patient(&mut rng, 2 * stores.len()).begin(&stores);
    let mut nemesis = Nemesis { servers, slow_bound: cx.slow_bound(), rng };
    for _ in 0..3 {
        cx.reached(&nemesis.strike(&playing).await?);
    }
    playing.stop();
    end(&cx, &*instance, playing, stores, |_| false).await
}
