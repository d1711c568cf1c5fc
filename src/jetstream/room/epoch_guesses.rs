//! The last known epochs of rooms: guesses with which a key is read before the room's epoch is known. A wrong guess
//! costs a round trip and changes no answer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::{Epoch, RoomId};

/// The number of rooms that are kept; one more clears the others.
const ROOMS: usize = 10_000;

#[derive(Default)]
pub(super) struct EpochGuesses {
    /// A std lock: held for a moment, never across an await.
    seen: Mutex<HashMap<RoomId, Epoch>>,
}

impl EpochGuesses {
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
