//! Several processes on one store.

use std::collections::BTreeMap;

use membership::{Decision, DenyReason, Store};

use crate::case::declare;
use crate::child::script::Script;
use crate::child::{Job, Process};
use crate::context::Cx;
use crate::make::{admin, at, encrypted, endpoint, epoch, room, sealed, user, user_number};
use crate::show::Show;
use crate::verdict::{Failure, Verdict, holds, same};

declare! { "processes";
    two_processes_write_one_store: "LIN-1" "DUR-1", needs Processes;
    another_process_and_this_one_write_one_store: "LIN-1" "DUR-1", needs Processes Clients;
    one_of_two_processes_rekeying_a_room_wins_each_epoch: "KEY-7" "LIN-1", needs Processes;
    no_other_process_allows_once_a_revocation_has_returned: "AUTH-3", needs Processes;
    other_processes_go_on_when_this_one_closes: "CLOSE-2", needs Processes;
    another_process_finds_the_data_of_a_closed_store: "DUR-1", needs Reopen Processes;
}

/// How many calls each task makes.
const LEN: usize = 60;

async fn two_processes_write_one_store(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    Script::first_call().apply(&store).await;
    let seeds = [cx.seed() ^ 1, cx.seed() ^ 2];
    let mut children = Vec::new();
    for seed in seeds {
        children.push(Process::start(&cx, Job::Work { seed, len: LEN })?);
    }
    for mut child in children {
        child.ready().await?;
        child.finish().await?;
    }
    for seed in seeds {
        all_done(&store, seed).await?;
    }
    Ok(())
}

/// Every call of the scripts of `seed` must have taken effect.
async fn all_done(store: &crate::transcript::Client, seed: u64) -> Verdict {
    for task in 0..Script::TASKS {
        let script = Script::new(seed, task, LEN);
        same(script.verify(&*store.unrecorded(), LEN).await?, LEN)?;
    }
    Ok(())
}

async fn another_process_and_this_one_write_one_store(cx: Cx) -> Verdict {
    let (store, other) = (cx.open().await?, cx.open().await?);
    Script::first_call().apply(&store).await;
    let (theirs, ours) = (cx.seed() ^ 1, cx.seed() ^ 2);
    let mut child = Process::start(&cx, Job::Work { seed: theirs, len: LEN })?;
    child.ready().await?;
    let tasks: Vec<_> = (0..Script::TASKS)
        .map(|task| {
            let store = store.unrecorded();
            tokio::spawn(async move {
                let mut model = Script::beginning();
                for call in Script::new(ours, task, LEN).calls() {
                    same(call.apply(&*store).await, model.apply(call))?;
                }
                Verdict::Ok(())
            })
        })
        .collect();
    for task in tasks {
        crate::race::joined(task).await?;
    }
    child.finish().await?;
    for seed in [theirs, ours] {
        all_done(&other, seed).await?;
    }
    Ok(())
}

async fn one_of_two_processes_rekeying_a_room_wins_each_epoch(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(encrypted("contested", "ann")).await?;
    let mut children = Vec::new();
    for seed in [1, 2] {
        children.push((seed, Process::start(&cx, Job::Race { seed })?));
    }
    let mut winners: BTreeMap<u64, u64> = BTreeMap::new();
    for (seed, mut child) in children {
        child.ready().await?;
        for line in child.finish().await? {
            let won: u64 = line.parse().map_err(|_| Failure::new("an epoch", line.clone()))?;
            let other = winners.insert(won, seed);
            holds(other.is_none(), "one winner of each epoch", &format!("two of {won}"))?;
        }
    }
    let last = store.room(&room("contested")).await?.epoch;
    let epochs: Vec<_> = winners.keys().copied().collect();
    same(epochs, (2..=last.get()).collect())?;
    for (number, seed) in winners {
        let key = store.key(&room("contested"), &endpoint("ann"), epoch(number)).await?;
        same(key.ciphertext, sealed(format!("{seed} won epoch {number}")))?;
    }
    Ok(())
}

async fn no_other_process_allows_once_a_revocation_has_returned(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(user_number(u64::MAX))).await?;
    let mut children = vec![Process::start(&cx, Job::Ask)?, Process::start(&cx, Job::Ask)?];
    for child in &mut children {
        child.ready().await?;
    }
    let revoked = Decision::Deny(membership::DenyReason::Revoked);
    for round in 0..cx.rounds(50) {
        let key = user_number(round);
        store.unrecorded().add_user(user(key)).await?;
        for child in &mut children {
            same(child.ask(&key.to_string()).await?, Decision::Allow.show())?;
        }
        store.unrecorded().revoke_user(&key, at(3)).await?;
        for child in &mut children {
            same(child.ask(&key.to_string()).await?, revoked.show())?;
        }
    }
    Ok(())
}

async fn other_processes_go_on_when_this_one_closes(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let key = user_number(1);
    store.add_user(user(key)).await?;
    let mut child = Process::start(&cx, Job::Ask)?;
    child.ready().await?;
    store.close().await?;
    drop(store);
    same(child.ask(&key.to_string()).await?, Decision::Allow.show())?;
    let unknown = Decision::Deny(membership::DenyReason::Unknown);
    same(child.ask(&user_number(2).to_string()).await?, unknown.show())
}

/// This process could find data again that it only keeps in memory; another process could not.
async fn another_process_finds_the_data_of_a_closed_store(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let [here, gone, never] = [1, 2, 3].map(user_number);
    store.bootstrap_admin(admin(here)).await?;
    store.add_user(user(gone)).await?;
    store.revoke_user(&gone, at(3)).await?;
    store.create_room(encrypted("r", "ann")).await?;
    store.close().await?;
    let mut child = Process::start(&cx, Job::Ask)?;
    child.ready().await?;
    for key in [here, gone, never] {
        let told = child.ask(&key.to_string()).await?;
        let expected = match key {
            key if key == here => Decision::Allow,
            key if key == gone => Decision::Deny(DenyReason::Revoked),
            _ => Decision::Deny(DenyReason::Unknown),
        };
        same(told, expected.show())?;
    }
    child.kill().await?;
    let store = cx.open().await?;
    same(store.room(&room("r")).await?, encrypted("r", "ann").room())?;
    same(store.is_authorized(&gone).await, Decision::Deny(DenyReason::Revoked))
}
