//! A cache of the rosters that were read last, for rekeys and renewals.
//!
//! A roster is cached under the id of the change that made it. Ids are random and used once, the head has the id of its
//! newest change, and every change of a roster changes the head. So a proved read of the head shows whether a cached
//! roster belongs to it. Nothing else is taken from the cache.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::jetstream::room::roster::Roster;
use crate::jetstream::room::view::View;
use crate::jetstream::stored::bucket_key::Incarnation;

/// The number of members in the cache, at most: some ten megabytes.
const MEMBERS: usize = 50_000;

/// The rosters, the last used one first.
#[derive(Default)]
pub(super) struct RosterCache {
    /// A std lock: held for a moment, never across an await.
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    incarnation: Incarnation,
    /// The change that made the roster.
    write: String,
    roster: Arc<Roster>,
}

impl RosterCache {
    /// The roster of a view, if the cache has it.
    pub(super) fn of(&self, view: &View) -> Option<Arc<Roster>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = |kept: &&Kept| kept.incarnation == view.incarnation;
        let found = kept.iter().find(ours)?;
        (found.write == view.head.changes.last()).then(|| Arc::clone(&found.roster))
    }

    /// Records that the change `write`, made on the view, also made this change of its roster.
    pub(super) fn change(&self, view: &View, write: &str, change: impl FnOnce(&mut Roster)) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = |kept: &&mut Kept| {
            kept.incarnation == view.incarnation && kept.write == view.head.changes.last()
        };
        if let Some(found) = kept.iter_mut().find(ours) {
            change(Arc::make_mut(&mut found.roster));
            write.clone_into(&mut found.write);
        }
    }

    /// Keeps the roster that the change `write` made, in place of the incarnation's former one.
    pub(super) fn keep(&self, incarnation: &Incarnation, write: &str, roster: Arc<Roster>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.incarnation != *incarnation);
        // A roster with unreadable records is not kept: somebody may repair them.
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
