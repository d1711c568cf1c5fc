//! The end of a process, or of the machine, at every change of a store's files: not at random
//! moments but at each there is.

use std::time::Instant;

use membership::{EndpointId, Error, Page, RoomId, Store, UserKey};
use rand::seq::SliceRandom;

use crate::case::declare;
use crate::child::script::{Acknowledged, Script};
use crate::child::{Job, watched};
use crate::context::Cx;
use crate::make::{at, encrypted};
use crate::power::{Change, Disk, Ending, Event, Recording};
use crate::soak;
use crate::target::TargetError;
use crate::verdict::{Failure, Verdict, holds, same};

declare! { "power_cuts";
    a_process_that_ends_at_any_write_loses_nothing_acknowledged: "DUR-1" "DUR-2",
        needs Reopen Processes PowerCuts;
    a_power_cut_at_any_write_loses_nothing_acknowledged: "DUR-1" "DUR-2",
        needs Reopen Processes PowerCuts;
    a_power_cut_that_keeps_any_part_of_what_was_not_synced_loses_nothing_acknowledged:
        "DUR-1" "DUR-2", needs Reopen Processes PowerCuts;
    a_store_cut_off_at_any_write_of_its_making_opens_again: "DUR-2",
        needs Reopen Processes PowerCuts;
    a_power_cut_that_loses_acknowledged_writes_lets_nobody_in: "PAST-1" "AUTH-3" "KEY-1",
        needs Reopen Processes PowerCuts Unsynced;
}

/// How many calls each task makes.
const LEN: usize = 25;

/// How the machine ends, without what it is drawn from.
#[derive(Clone, Copy)]
enum How {
    Killed,
    Cut,
    Torn,
    Shortened,
}

impl How {
    /// The moments at which something may be left that was not left at the one before. A cut
    /// leaves only what was synced, but what was acknowledged may be ahead of that.
    fn tells(self, event: &Event) -> bool {
        match (self, event) {
            (Self::Killed | Self::Torn | Self::Shortened, Event::Told(_)) => false,
            (Self::Killed, Event::Change(change)) => {
                !matches!(change, Change::Sync(_) | Change::SyncFolder)
            }
            (Self::Torn | Self::Shortened, Event::Change(_)) | (Self::Cut, Event::Told(_)) => true,
            (Self::Cut, Event::Change(change)) => {
                matches!(change, Change::Sync(_) | Change::SyncFolder)
            }
        }
    }

    /// Puts what is left of `disk` into the place of the store of `cx`.
    async fn end(self, disk: &Disk, cx: &Cx, moment: u64) -> Result<(), TargetError> {
        let left = {
            let mut rng = cx.rng(moment);
            disk.after(&mut match self {
                Self::Killed => Ending::Killed,
                Self::Cut => Ending::Cut,
                Self::Torn => Ending::Torn(&mut rng),
                Self::Shortened => Ending::Shortened(&mut rng),
            })
        };
        cx.instance().put_back(&left).await
    }

    async fn at_any_write(self, cx: Cx) -> Verdict {
        let recording = worked(&cx).await?;
        let all: Vec<_> = recording.events.iter().map(|event| self.tells(event)).collect();
        let began = Instant::now();
        for round in 0.. {
            let (ends, complete) = sample(&cx, &all, round)?;
            self.at_these(&cx, &recording, &ends).await?;
            if complete || began.elapsed() > soak::length() {
                break;
            }
        }
        Ok(())
    }

    /// Ends it after each event that is marked.
    async fn at_these(self, cx: &Cx, recording: &Recording, ends: &[bool]) -> Verdict {
        let mut disk = recording.disk();
        let mut acknowledged = Acknowledged::nothing();
        for ((moment, event), end) in (0..).zip(&recording.events).zip(ends) {
            match event {
                Event::Change(change) => disk.apply(change),
                Event::Told(line) if line.contains(' ') => acknowledged.hear(line)?,
                Event::Told(_) => continue,
            }
            if *end {
                let cx = cx.another().await?;
                let found = async {
                    self.end(&disk, &cx, moment).await?;
                    let store = cx.open().await?;
                    acknowledged.verify(&*store.unrecorded(), cx.seed(), LEN).await
                };
                found.await.map_err(|failure| at_moment(failure, moment, event))?;
                cx.close_all().await;
            }
        }
        Ok(())
    }
}

/// Has a child process run the scripts on a store with one admin, and records its writes.
async fn worked(cx: &Cx) -> Verdict<Recording> {
    let store = cx.open().await?;
    Script::first_call().apply(&store).await;
    store.close().await?;
    watched(cx, Job::Work { seed: cx.seed(), len: LEN }).await
}

/// How many ends are looked at in a round, where each needs a server.
const SAMPLE: usize = 24;

/// Which of the ends that are marked are looked at in this round, and whether that is all of them: where
/// calls cost little it is; else a draw from the case's seed.
fn sample(cx: &Cx, all: &[bool], round: u64) -> Verdict<(Vec<bool>, bool)> {
    let mut ends: Vec<_> = (0..all.len()).filter(|at| all.get(*at) == Some(&true)).collect();
    // A recording in which nothing happened would show nothing.
    holds(ends.len() > 4, "moments at which it can end", &ends.len())?;
    if cx.target().pace() == 1 || ends.len() <= SAMPLE {
        return Ok((all.to_vec(), true));
    }
    let (chosen, _) = ends.partial_shuffle(&mut cx.rng(round), SAMPLE);
    Ok(((0..all.len()).map(|at| chosen.contains(&at)).collect(), false))
}

fn at_moment(failure: Failure, moment: u64, event: &Event) -> Failure {
    let what = match event {
        Event::Change(Change::Write { name, offset, bytes }) => {
            format!("writing {} bytes of {name} at {offset}", bytes.len())
        }
        other => format!("{other:?}"),
    };
    Failure { got: format!("{}, when it ended at event {moment}, {what}", failure.got), ..failure }
}

async fn a_process_that_ends_at_any_write_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    How::Killed.at_any_write(cx).await
}

async fn a_power_cut_at_any_write_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    How::Cut.at_any_write(cx).await
}

async fn a_power_cut_that_keeps_any_part_of_what_was_not_synced_loses_nothing_acknowledged(
    cx: Cx,
) -> Verdict {
    How::Torn.at_any_write(cx).await
}

async fn a_store_cut_off_at_any_write_of_its_making_opens_again(cx: Cx) -> Verdict {
    let recording = watched(&cx, Job::Open).await?;
    let changes: Vec<_> =
        recording.events.iter().map(|event| matches!(event, Event::Change(_))).collect();
    let (ends, _) = sample(&cx, &changes, 0)?;
    let mut disk = recording.disk();
    for ((moment, event), end) in (0..).zip(&recording.events).zip(ends) {
        let Event::Change(change) = event else { continue };
        disk.apply(change);
        for how in [How::Killed, How::Cut, How::Torn].into_iter().filter(|_| end) {
            let cx = cx.another().await?;
            let made = async {
                how.end(&disk, &cx, moment).await?;
                let store = cx.open().await?;
                same(store.has_admin().await?, false)?;
                let new = encrypted("after", "ann");
                same(store.create_room(new.clone()).await?, new.room())
            };
            made.await.map_err(|failure| at_moment(failure, moment, event))?;
            cx.close_all().await;
        }
    }
    Ok(())
}

/// What was acknowledged and lost is out of the store's hands; what it says then is not. Each end leaves a
/// store that does not open, or that lets nobody in who should not be; and what it acknowledges afterwards
/// holds.
async fn a_power_cut_that_loses_acknowledged_writes_lets_nobody_in(cx: Cx) -> Verdict {
    let recording = worked(&cx).await?;
    let changes: Vec<_> =
        recording.events.iter().map(|event| matches!(event, Event::Change(_))).collect();
    let began = Instant::now();
    for round in 0.. {
        let (ends, complete) = sample(&cx, &changes, round)?;
        let mut disk = recording.disk();
        for ((moment, event), end) in (0..).zip(&recording.events).zip(ends) {
            let Event::Change(change) = event else { continue };
            disk.apply(change);
            if end {
                // Of these, tails that are cut off at different places leave most.
                let how = if moment % 4 == 0 { How::Torn } else { How::Shortened };
                let cx = cx.another().await?;
                let found = async {
                    how.end(&disk, &cx, moment).await?;
                    lets_nobody_in(&cx).await
                };
                found.await.map_err(|failure| at_moment(failure, moment, event))?;
                cx.close_all().await;
            }
        }
        if complete || began.elapsed() > soak::length() {
            break;
        }
    }
    Ok(())
}

/// Whether an answer fails as one may where data went back.
fn fails(error: &Error) -> bool {
    matches!(error, Error::Corrupt(_)) || error.outcome_unknown()
}

async fn lets_nobody_in(cx: &Cx) -> Verdict {
    let store = match cx.instance().open().await {
        Ok(store) => store,
        Err(error) if fails(&error) => return Ok(()),
        Err(error) => return Err(Failure::answer("a store, or that it is corrupt", &error)),
    };
    for task in 0..Script::TASKS {
        let script = Script::new(cx.seed(), task, LEN);
        let (rooms, endpoints, users) = script.names();
        for room in rooms {
            only_members_have_keys(&*store, room, endpoints).await?;
        }
        for user in users {
            revoked_stays_out(&*store, cx, user).await?;
        }
    }
    let stranger = store.is_authorized(&UserKey::from_bytes([0xee; 32])).await;
    holds(!stranger.is_allowed(), "no way in for a stranger", &stranger)?;
    store.close().await?;
    Ok(())
}

async fn only_members_have_keys(
    store: &dyn Store,
    room: &RoomId,
    endpoints: &[EndpointId],
) -> Verdict {
    let members = match store.members(room, Page::first()).await {
        Ok(members) => members,
        Err(Error::NotFound(_)) => Vec::new(),
        Err(error) if fails(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for endpoint in endpoints {
        let is_member = members.iter().any(|member| member.endpoint == *endpoint);
        let key = store.latest_key(room, endpoint).await;
        holds(is_member || key.is_err(), "no key for whom the room does not list", &key)?;
    }
    Ok(())
}

/// A revocation that is acknowledged after the cut holds for whoever asks.
async fn revoked_stays_out(store: &dyn Store, cx: &Cx, user: &UserKey) -> Verdict {
    match store.revoke_user(user, at(1)).await {
        Ok(()) => {}
        Err(error) if fails(&error) || matches!(error, Error::NotFound(_)) => {
            let decision = store.is_authorized(user).await;
            return holds(!decision.is_allowed(), "a denial of whom nobody can revoke", &decision);
        }
        // The last admin stays.
        Err(Error::Conflict(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let other = cx.open().await?;
    for decision in [store.is_authorized(user).await, other.is_authorized(user).await] {
        holds(!decision.is_allowed(), "a denial of whom was revoked", &decision)?;
    }
    Ok(other.close().await?)
}
