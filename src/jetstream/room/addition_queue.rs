//! The additions of members that wait for a commit, by room.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::{Error, Member, NewMember, RoomId};

/// The most additions in one commit: far below the limits of a batch and a read.
const MOST: usize = 256;

/// The waiting additions by room. A room in this map has a task at work.
#[derive(Default)]
pub(super) struct AdditionQueue {
    /// A std lock: held to insert or to take, never across an await.
    rooms: Mutex<HashMap<RoomId, Vec<Addition>>>,
}

pub(super) struct Addition {
    pub(super) new: NewMember,
    pub(super) answer: oneshot::Sender<Result<Member, Error>>,
}

impl AdditionQueue {
    fn rooms(&self) -> MutexGuard<'_, HashMap<RoomId, Vec<Addition>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an addition. Returns whether the room has no task at work yet.
    pub(super) fn push(&self, room: &RoomId, addition: Addition) -> bool {
        let mut rooms = self.rooms();
        match rooms.get_mut(room) {
            Some(all) => {
                all.push(addition);
                false
            }
            None => {
                rooms.insert(room.clone(), vec![addition]);
                true
            }
        }
    }

    /// Drops the room's additions, which fails them.
    pub(super) fn forget(&self, room: &RoomId) {
        self.rooms().remove(room);
    }

    /// Takes the next additions; without any, the room's task ends.
    pub(super) fn take(&self, room: &RoomId) -> Vec<Addition> {
        let mut rooms = self.rooms();
        let Some(all) = rooms.get_mut(room) else { return Vec::new() };
        all.retain(|addition| !addition.answer.is_closed());
        if all.is_empty() {
            rooms.remove(room);
            return Vec::new();
        }
        let rest = all.split_off(all.len().min(MOST));
        std::mem::replace(all, rest)
    }
}
