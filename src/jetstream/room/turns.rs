use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::RoomId;

/// A queue of each room's changes by one client, which makes them one after the other.
///
/// The head's revision excludes concurrent changes anyway. But without this queue, all but one of many concurrent
/// changes would plan and write in vain, again and again. Other clients' changes are not queued, and correctness does
/// not depend on the queue.
#[derive(Default)]
pub(super) struct Turns {
    /// A std lock: held to look up one room.
    rooms: Mutex<HashMap<RoomId, Weak<Turn<()>>>>,
}

/// The number of rooms from which on idle rooms are removed from the map.
const MANY: usize = 1024;

impl Turns {
    /// Waits for this call's turn, first come, first served.
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
