//! Rosters of the rooms that were rekeyed last, so that the next rekey need not read them again.
//!
//! A roster is kept under the change that made it: the id of a change is random, is used once, and
//! stands in every head as the newest change until the next one. Every change of a roster is a
//! change of its head. So a head that was read, proved fresh, says whether a roster that is kept
//! here is the one that goes with it; nothing else is believed of what is kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::jetstream::core::{Roster, View};
use crate::jetstream::key::Incarnation;

/// Members kept in all: some ten megabytes.
const MEMBERS: usize = 50_000;

/// The rosters, the one that was used last in front.
#[derive(Default)]
pub(super) struct Rosters {
    /// A std lock: held for a moment, never across an await.
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    incarnation: Incarnation,
    /// The change that made it.
    write: String,
    roster: Arc<Roster>,
}

impl Rosters {
    /// The roster of a view, if it is kept.
    pub(super) fn of(&self, view: &View) -> Option<Arc<Roster>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = |kept: &&Kept| kept.incarnation == view.incarnation;
        let found = kept.iter().find(ours)?;
        (found.write == view.head.changes.last()).then(|| Arc::clone(&found.roster))
    }

    /// Keeps the roster that the change `write` made, instead of the incarnation's former one.
    pub(super) fn keep(&self, incarnation: &Incarnation, write: &str, roster: Arc<Roster>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.incarnation != *incarnation);
        // What cannot be read is read again: somebody may have repaired it.
        if roster.values().any(Result::is_err) {
            return;
        }
        let (incarnation, write) = (incarnation.clone(), write.to_owned());
        kept.push_front(Kept { incarnation, write, roster });
        let mut members = 0;
        kept.retain(|kept| {
            members += kept.roster.len();
            members <= MEMBERS
        });
    }
}
