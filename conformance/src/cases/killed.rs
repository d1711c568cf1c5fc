//! Processes that are killed (SIGKILL) at any moment.

use std::time::Duration;

use membership::Store;
use rand::RngExt;

use crate::case::declare;
use crate::child::script::{Acknowledged, Killed, Script};
use crate::child::{Job, Process};
use crate::context::Cx;
use crate::make::{encrypted, endpoint, epoch, joins_at, key_of, rekey, room, stale};
use crate::race::joined;
use crate::together::together;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, holds, same};

declare! { "killed";
    a_killed_process_loses_nothing_acknowledged: "DUR-1" "DUR-2", needs Reopen Processes;
    a_process_killed_beside_an_open_client_loses_nothing_acknowledged: "DUR-1" "DUR-2",
        needs Processes;
    a_process_killed_while_others_write_disturbs_none_of_them: "DUR-1" "DUR-2" "LIN-1",
        needs Processes;
    two_processes_killed_at_once_lose_nothing_acknowledged: "DUR-1" "DUR-2",
        needs Reopen Processes;
    a_process_killed_while_it_opens_leaves_a_store_that_opens: "DUR-2", needs Reopen Processes;
    a_rekey_of_a_killed_process_takes_effect_entirely_or_not_at_all: "KEY-1" "KEY-5" "DUR-2",
        needs Reopen Processes;
}

/// How many calls each task of a child has: most children are killed before they made them all.
const LEN: usize = 400;
/// The parent kills a child after fewer acknowledged calls than this.
const LINES: usize = 150;

/// Starts a child and kills it after a number of acknowledged calls, drawn from the seed. Returns
/// what the child acknowledged.
async fn killed_at_work(cx: &Cx, seed: u64) -> Verdict<Acknowledged> {
    let wait_for = cx.rng(seed).random_range(0..LINES);
    let mut child = Process::start(cx, Job::Work { seed, len: LEN })?;
    child.ready().await?;
    let mut lines = Vec::new();
    while lines.len() < wait_for {
        // The child may have ended by itself.
        let Some(line) = child.line().await? else { break };
        lines.push(line);
    }
    lines.extend(child.kill().await?);
    Acknowledged::of(&lines)
}

async fn look(store: &Client, seed: u64, acknowledged: Acknowledged) -> Verdict<Killed> {
    Killed::look(&*store.unrecorded(), seed, LEN, acknowledged).await
}

/// The effects that earlier rounds found must still be there.
async fn still(store: &Client, rounds: &mut [Killed]) -> Verdict {
    for round in rounds {
        round.look_again(&*store.unrecorded()).await?;
    }
    Ok(())
}

async fn begin(cx: &Cx) -> Verdict<Client> {
    let store = cx.open().await?;
    Script::first_call().apply(&store).await;
    Ok(store)
}

async fn a_killed_process_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    begin(&cx).await?.close().await?;
    let mut rounds = Vec::new();
    for round in 0..cx.rounds(25) {
        let seed = cx.seed().wrapping_add(round);
        let counts = killed_at_work(&cx, seed).await?;
        // No client has the store open, so opening it must repair what the kill left.
        let store = cx.open().await?;
        rounds.push(look(&store, seed, counts).await?);
        store.close().await?;
    }
    still(&cx.open().await?, &mut rounds).await
}

async fn a_process_killed_beside_an_open_client_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    let store = begin(&cx).await?;
    let mut rounds = Vec::new();
    for round in 0..cx.rounds(25) {
        let seed = cx.seed().wrapping_add(round);
        let counts = killed_at_work(&cx, seed).await?;
        rounds.push(look(&store, seed, counts).await?);
    }
    still(&store, &mut rounds).await
}

async fn a_process_killed_while_others_write_disturbs_none_of_them(cx: Cx) -> Verdict {
    let store = begin(&cx).await?;
    let mut rounds = Vec::new();
    for round in 0..cx.rounds(15) {
        let (theirs, ours) = (cx.seed().wrapping_add(round), !cx.seed().wrapping_add(round));
        let here = store.unrecorded();
        let work = tokio::spawn(async move {
            let mut model = Script::beginning();
            for call in Script::new(ours, 0, 60).calls() {
                same(call.apply(&*here).await, model.apply(call))?;
                tokio::task::yield_now().await;
            }
            Verdict::Ok(())
        });
        let counts = killed_at_work(&cx, theirs).await?;
        joined(work).await?;
        rounds.push(look(&store, theirs, counts).await?);
        let script = Script::new(ours, 0, 60);
        same(script.verify(&*store.unrecorded(), 60).await?, 60)?;
    }
    still(&store, &mut rounds).await
}

async fn two_processes_killed_at_once_lose_nothing_acknowledged(cx: Cx) -> Verdict {
    begin(&cx).await?.close().await?;
    let mut rounds = Vec::new();
    for round in 0..cx.rounds(10) {
        let seeds = [cx.seed().wrapping_add(2 * round), cx.seed().wrapping_add(2 * round + 1)];
        let [one, two] = seeds.map(|seed| killed_at_work(&cx, seed));
        let (one, two) = futures::future::try_join(one, two).await?;
        let store = cx.open().await?;
        for (seed, counts) in seeds.into_iter().zip([one, two]) {
            rounds.push(look(&store, seed, counts).await?);
        }
        store.close().await?;
    }
    still(&cx.open().await?, &mut rounds).await
}

async fn a_process_killed_while_it_opens_leaves_a_store_that_opens(cx: Cx) -> Verdict {
    for round in 0..cx.rounds(20) {
        // In every other round the child is the first to open the store.
        let cx = cx.another().await?;
        let made = round % 2 == 0;
        if made {
            begin(&cx).await?.close().await?;
        }
        let child = Process::start(&cx, Job::Ask)?;
        // The kill comes at any moment from before the child runs until after it opened the store.
        tokio::time::sleep(Duration::from_micros(cx.rng(round).random_range(0..15_000))).await;
        child.kill().await?;
        let store = cx.open().await?;
        same(store.has_admin().await?, made)?;
        let new = encrypted("after", "ann");
        same(store.create_room(new.clone()).await?, new.room())?;
        cx.close_all().await;
    }
    Ok(())
}

async fn a_rekey_of_a_killed_process_takes_effect_entirely_or_not_at_all(cx: Cx) -> Verdict {
    const MEMBERS: usize = 200;
    let store = begin(&cx).await?;
    store.create_room(encrypted("large", "ann")).await?;
    let ids: Vec<_> = (0..MEMBERS).map(|number| format!("m{number}")).collect();
    let adds = ids.iter().map(|id| {
        let store = store.unrecorded();
        async move { Ok(store.add_member(&room("large"), joins_at(id, 1)).await?) }
    });
    together(adds).await?;
    store.close().await?;
    let mut last = 1;
    for round in 0..cx.rounds(15) {
        let mut child = Process::start(&cx, Job::Rekey { members: MEMBERS })?;
        child.ready().await?;
        let mut told = Vec::new();
        for _ in 0..cx.rng(round).random_range(0..5) {
            told.extend(child.line().await?);
        }
        told.extend(child.kill().await?);
        if let Some(line) = told.last() {
            last = line.parse().map_err(|_| Failure::new("an epoch", line.clone()))?;
        }
        let store = cx.open().await?;
        let told = last;
        while rekeyed(&store, &ids, &mut last, told + 1).await? {}
        // Remains of a rekey that did not take effect must not hinder the next one. A rekey that
        // was in flight may still take effect first (LIN-1).
        let everyone = || ids.iter().map(String::as_str).chain(["ann"]);
        let mut moved = store.rekey(&room("large"), rekey(last, [], everyone())).await;
        if last == told && moved == Err(stale(last + 1)) {
            rekeyed(&store, &ids, &mut last, told + 1).await?;
            moved = store.rekey(&room("large"), rekey(last, [], everyone())).await;
        }
        last += 1;
        same(moved?.epoch, epoch(last))?;
        store.close().await?;
    }
    Ok(())
}

/// The room `large` must be at epoch `last` or `most`, where each member must have its key.
///
/// Sets `last` to the epoch that it finds. Returns whether the room moved to `most` during the
/// reads; then they must be repeated.
async fn rekeyed(store: &Client, ids: &[String], last: &mut u64, most: u64) -> Verdict<bool> {
    let before = *last;
    let found = store.room(&room("large")).await?.epoch.get();
    let expected = format!("epoch {before} or {most}");
    holds(found == before || found == most, &expected, &found)?;
    *last = found;
    for id in ids.iter().map(String::as_str).chain(["ann"]) {
        let who = endpoint(id);
        let key = store.unrecorded().latest_key(&room("large"), &who).await?;
        if key.epoch.get() == most && found < most {
            return Ok(true);
        }
        same(key.epoch, epoch(found))?;
        same(key.ciphertext, key_of(&who, epoch(found)))?;
    }
    Ok(false)
}
