//! The end of a process, or of the machine, at every change of a store's files: not at random
//! moments but at each there is.

use membership::Store;

use crate::case::declare;
use crate::child::script::{Acknowledged, Script};
use crate::child::{Job, watched};
use crate::context::Cx;
use crate::make::encrypted;
use crate::power::{Change, Disk, Ending, Event};
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
}

/// How many calls each task makes.
const LEN: usize = 25;

/// How the machine ends, without what it is drawn from.
#[derive(Clone, Copy)]
enum How {
    Killed,
    Cut,
    Torn,
}

impl How {
    /// The moments at which something may be left that was not left at the one before. A cut
    /// leaves only what was synced, but what was acknowledged may be ahead of that.
    fn tells(self, event: &Event) -> bool {
        match (self, event) {
            (Self::Killed | Self::Torn, Event::Told(_)) => false,
            (Self::Killed, Event::Change(change)) => {
                !matches!(change, Change::Sync(_) | Change::SyncFolder)
            }
            (Self::Torn, Event::Change(_)) | (Self::Cut, Event::Told(_)) => true,
            (Self::Cut, Event::Change(change)) => {
                matches!(change, Change::Sync(_) | Change::SyncFolder)
            }
        }
    }

    /// Puts what is left of `disk` into the place of the store of `cx`.
    fn end(self, disk: &Disk, cx: &Cx, moment: u64) -> Result<(), TargetError> {
        let mut rng = cx.rng(moment);
        let left = disk.after(&mut match self {
            Self::Killed => Ending::Killed,
            Self::Cut => Ending::Cut,
            Self::Torn => Ending::Torn(&mut rng),
        });
        let folder = cx.instance().files()?.folder;
        for (name, bytes) in left {
            std::fs::write(folder.join(name), bytes)?;
        }
        Ok(())
    }

    async fn at_any_write(self, cx: Cx) -> Verdict {
        let store = cx.open().await?;
        Script::first_call().apply(&store).await;
        store.close().await?;
        let recording = watched(&cx, Job::Work { seed: cx.seed(), len: LEN }).await?;
        let mut disk = recording.disk();
        let mut acknowledged = Acknowledged::nothing();
        let mut ends = 0;
        for (moment, event) in (0..).zip(&recording.events) {
            match event {
                Event::Change(change) => disk.apply(change),
                Event::Told(line) if line.contains(' ') => acknowledged.hear(line)?,
                Event::Told(_) => continue,
            }
            if self.tells(event) {
                ends += 1;
                let cx = cx.another().await?;
                self.end(&disk, &cx, moment)?;
                let found = async {
                    let store = cx.open().await?;
                    acknowledged.verify(&*store.unrecorded(), cx.seed(), LEN).await
                };
                found.await.map_err(|failure| at_moment(failure, moment, event))?;
                cx.close_all().await;
            }
        }
        enough(ends)
    }
}

/// A recording in which nothing happened would show nothing.
fn enough(ends: usize) -> Verdict {
    holds(ends > 4, "moments at which it can end", &ends)
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
    let mut disk = recording.disk();
    let mut ends = 0;
    for (moment, event) in (0..).zip(&recording.events) {
        let Event::Change(change) = event else { continue };
        disk.apply(change);
        for how in [How::Killed, How::Cut, How::Torn] {
            ends += 1;
            let cx = cx.another().await?;
            how.end(&disk, &cx, moment)?;
            let made = async {
                let store = cx.open().await?;
                same(store.has_admin().await?, false)?;
                let new = encrypted("after", "ann");
                same(store.create_room(new.clone()).await?, new.room())
            };
            made.await.map_err(|failure| at_moment(failure, moment, event))?;
            cx.close_all().await;
        }
    }
    enough(ends)
}
