//! Processes killed and power cut at every change of a store's files, not only at random moments.

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
    a_process_killed_at_any_write_loses_nothing_acknowledged: "DUR-1" "DUR-2",
        needs Reopen Processes PowerCuts;
    a_power_cut_at_any_write_loses_nothing_acknowledged: "DUR-1" "DUR-2",
        needs Reopen Processes PowerCuts;
    a_power_cut_that_keeps_some_unsynced_sectors_loses_nothing_acknowledged:
        "DUR-1" "DUR-2", needs Reopen Processes PowerCuts;
    a_store_interrupted_at_any_write_of_its_creation_opens_again: "DUR-2",
        needs Reopen Processes PowerCuts;
    a_power_cut_that_loses_acknowledged_writes_lets_nobody_in: "PAST-1" "AUTH-3" "KEY-1",
        needs Reopen Processes PowerCuts Unsynced;
}

/// How many calls each task of the child makes.
const LEN: usize = 25;

/// An [`Ending`], without its random numbers.
#[derive(Clone, Copy)]
enum How {
    Killed,
    Cut,
    Torn,
    Shortened,
}

impl How {
    /// Whether this ending after `event` can differ from the same ending one event earlier. It can
    /// differ if other files may be left, or if a cut may now lose a write that was acknowledged
    /// and not synced.
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

    /// Replaces the files of the store of `cx` by what this ending leaves of `disk`.
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

    /// Checks this ending at every moment of a recording, or at samples of them on a slow target.
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

    /// Checks the store that this ending leaves after each event that is marked in `ends`.
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

/// How many endings are checked in a round on a slow target, where each starts a server.
const SAMPLE: usize = 24;

/// Returns which of the endings that are marked in `all` are checked in this round, and whether
/// these are all. A slow target gets a sample, drawn from the case's seed.
fn sample(cx: &Cx, all: &[bool], round: u64) -> Verdict<(Vec<bool>, bool)> {
    let mut ends: Vec<_> = (0..all.len()).filter(|at| all.get(*at) == Some(&true)).collect();
    // Otherwise an empty recording would pass.
    holds(ends.len() > 4, "more than four moments to check", &ends.len())?;
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

async fn a_process_killed_at_any_write_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    How::Killed.at_any_write(cx).await
}

async fn a_power_cut_at_any_write_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    How::Cut.at_any_write(cx).await
}

async fn a_power_cut_that_keeps_some_unsynced_sectors_loses_nothing_acknowledged(
    cx: Cx,
) -> Verdict {
    How::Torn.at_any_write(cx).await
}

async fn a_store_interrupted_at_any_write_of_its_creation_opens_again(cx: Cx) -> Verdict {
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

/// Acknowledged writes may be lost here, but no user may get in who should not. Each ending must
/// leave a store that refuses to open, or one that allows no stranger, gives keys to members only
/// and denies the users that it revokes afterwards.
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
                // Most endings cut off the tails of files, which leaves the most different states.
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

/// Whether clause PAST-1 allows this error.
fn fails(error: &Error) -> bool {
    matches!(error, Error::Corrupt(_)) || error.outcome_unknown()
}

async fn lets_nobody_in(cx: &Cx) -> Verdict {
    let store = match cx.instance().open().await {
        Ok(store) => store,
        Err(error) if fails(&error) => return Ok(()),
        Err(error) => return Err(Failure::answer("a store, or an error as in PAST-1", &error)),
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
    holds(!stranger.is_allowed(), "a denial of a stranger", &stranger)?;
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
        holds(is_member || key.is_err(), "no key for an endpoint that is no member", &key)?;
    }
    Ok(())
}

/// A revocation that is acknowledged after the cut must hold for every client.
async fn revoked_stays_out(store: &dyn Store, cx: &Cx, user: &UserKey) -> Verdict {
    match store.revoke_user(user, at(1)).await {
        Ok(()) => {}
        Err(error) if fails(&error) || matches!(error, Error::NotFound(_)) => {
            let decision = store.is_authorized(user).await;
            return holds(!decision.is_allowed(), "a denial where revocation fails", &decision);
        }
        // The last admin cannot be revoked.
        Err(Error::Conflict(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let other = cx.open().await?;
    for decision in [store.is_authorized(user).await, other.is_authorized(user).await] {
        holds(!decision.is_allowed(), "a denial of a user that was revoked", &decision)?;
    }
    Ok(other.close().await?)
}
