use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::RoomId;

/// Lets the calls of one client change a room one after the other.
///
/// They would exclude each other all the same, by the head's revision; but of many at once all but
/// one would have planned and written for nothing, again and again. Other clients are not waited
/// for, and nothing depends on this.
#[derive(Default)]
pub(super) struct Turns {
    /// A std lock: held to look one room up.
    rooms: Mutex<HashMap<RoomId, Weak<Turn<()>>>>,
}

/// From so many rooms on, those that nobody changes are forgotten first.
const MANY: usize = 1024;

impl Turns {
    /// Waits for this call's turn, in the order of asking.
    pub(super) async fn wait(&self, room: &RoomId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            if rooms.len() >= MANY {
                rooms.retain(|_, turn| turn.strong_count() > 0);
            }
            match rooms.get(room).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::new(Turn::new(()));
                    rooms.insert(room.clone(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}
