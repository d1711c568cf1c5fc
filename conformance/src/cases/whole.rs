//! Readers that never stop see each write as a whole or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use membership::{Error, Page, Role};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{encrypted, joins, joins_at, no_room, plain, rekey, room};
use crate::verdict::{Failure, Verdict, fails, holds};

declare! { "concurrency";
    a_room_being_deleted_has_all_its_members_or_none: "ROOM-4" "LIST-2";
    a_page_read_while_members_change_is_one_consistent_state: "LIST-2" "KEY-5";
}

const GUESTS: [&str; 6] = ["bob", "cat", "dan", "eve", "fay", "gus"];

async fn a_room_being_deleted_has_all_its_members_or_none(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    let store = client.unrecorded();
    for _ in 0..cx.rounds(20) {
        store.create_room(plain("r", "ann")).await?;
        for guest in GUESTS {
            store.add_member(&room("r"), joins(guest)).await?;
        }
        let deleter = Arc::clone(&store);
        let deletion = tokio::spawn(async move { deleter.delete_room(&room("r")).await });
        let last = loop {
            match store.members(&room("r"), Page::first()).await {
                Ok(all) => holds(all.len() == GUESTS.len() + 1, "all members, or no room", &all)?,
                gone => break gone,
            }
            // Otherwise a refused deletion would leave the room, and the loop would never end.
            if deletion.is_finished() {
                break store.members(&room("r"), Page::first()).await;
            }
            tokio::task::yield_now().await;
        };
        fails(last, &no_room("r"))?;
        ended(deletion.await)?;
    }
    Ok(())
}

/// `z` always joins before `a` and is removed together with it. A page with `a` and without `z`, or
/// with the two from different epochs, mixes two states.
async fn a_page_read_while_members_change_is_one_consistent_state(cx: Cx) -> Verdict {
    let (enough_reads, enough_writes) = (cx.rounds(300), cx.rounds(40));
    let client = cx.open().await?;
    let store = client.unrecorded();
    store.create_room(encrypted("r", "m")).await?;
    let (steps, reads) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (writer, taken, enough) = (Arc::clone(&store), Arc::clone(&steps), Arc::clone(&reads));
    // The writer ends only after enough writes and enough reads, whichever of the two is slower.
    let writing = tokio::spawn(async move {
        let mut epoch = 1;
        while epoch <= enough_writes || enough.load(Ordering::Relaxed) < enough_reads {
            for who in ["z", "a"] {
                writer.add_member(&room("r"), joins_at(who, epoch)).await?;
                taken.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            // One rekey removes the first and the last member of a page.
            writer.rekey(&room("r"), rekey(epoch, ["a", "z"], ["m"])).await?;
            taken.fetch_add(1, Ordering::Relaxed);
            // Otherwise a reader in the writer's rhythm would meet the same step each time.
            for _ in 0..=epoch % 3 {
                tokio::task::yield_now().await;
            }
            epoch += 1;
        }
        Ok(())
    });
    let mut before = 0;
    while !writing.is_finished() {
        let page = store.members(&room("r"), Page::first()).await?;
        let ids: Vec<_> = page.iter().map(|member| member.endpoint.as_str()).collect();
        let states: [&[&str]; 3] = [&["m"], &["m", "z"], &["a", "m", "z"]];
        let guests: Vec<_> = page.iter().filter(|member| member.role == Role::Member).collect();
        let at_once = guests.iter().all(|member| {
            guests.first().is_some_and(|first| first.joined_epoch == member.joined_epoch)
        });
        let whole = states.contains(&ids.as_slice()) && at_once;
        // Otherwise the writer would wait for ever for more reads.
        if let Err(torn) = holds(whole, "m; or m and z; or a, m and z of one epoch", &page) {
            writing.abort();
            return Err(torn);
        }
        // A read counts only if the writer has made a step since the last read that counted.
        // Otherwise all reads could happen while a busy machine keeps the writer from running.
        let now = steps.load(Ordering::Relaxed);
        if now != before {
            before = now;
            reads.fetch_add(1, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
    ended(writing.await)
}

fn ended(task: Result<Result<(), Error>, tokio::task::JoinError>) -> Verdict {
    match task {
        Ok(done) => Ok(done?),
        Err(panic) => Err(Failure::new("no panic", panic.to_string())),
    }
}
