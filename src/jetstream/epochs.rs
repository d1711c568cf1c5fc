//! The epochs rooms were seen at last: guesses, by which a key is asked for before it is known
//! which one it is. A wrong guess costs a round trip and changes no answer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::{Epoch, RoomId};

/// Rooms that are remembered; with one more, all others are forgotten.
const ROOMS: usize = 10_000;

#[derive(Default)]
pub(super) struct Epochs {
    /// A std lock: held for a moment, never across an await.
    seen: Mutex<HashMap<RoomId, Epoch>>,
}

impl Epochs {
    pub(super) fn guess(&self, room: &RoomId) -> Option<Epoch> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(room).copied()
    }

    pub(super) fn saw(&self, room: &RoomId, epoch: Epoch) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(room) {
            Some(seen) => *seen = epoch,
            None => {
                if seen.len() >= ROOMS {
                    seen.clear();
                }
                seen.insert(room.clone(), epoch);
            }
        }
    }
}
