//! Which rosters a client is writing under a new generation, and which it tries again later.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::RoomId;

/// How many rooms are remembered because a renewal of them was given up.
const REMEMBERED: usize = 1024;

/// The renewals of one client.
#[derive(Default)]
pub(super) struct Renewals {
    /// A std lock: held for a moment, never across an await.
    rooms: Mutex<HashMap<RoomId, Renewal>>,
}

enum Renewal {
    UnderWay,
    /// A renewal was given up. The next one begins when the roster has this many tombstones, so that the cost of all
    /// renewals stays in proportion to the number of removals.
    NotBefore(u64),
}

impl Renewals {
    /// Whether the caller shall renew the room now; if so, no other caller does meanwhile.
    pub(super) fn begin(&self, room: &RoomId, tombstones: u64) -> bool {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        match rooms.get(room) {
            Some(Renewal::UnderWay) => false,
            Some(Renewal::NotBefore(more)) if tombstones < *more => false,
            _ => {
                if rooms.len() >= REMEMBERED {
                    rooms.retain(|_, renewal| matches!(renewal, Renewal::UnderWay));
                }
                rooms.insert(room.clone(), Renewal::UnderWay);
                true
            }
        }
    }

    pub(super) fn end(&self, room: &RoomId, not_before: Option<u64>) {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        match not_before {
            Some(tombstones) => rooms.insert(room.clone(), Renewal::NotBefore(tombstones)),
            None => rooms.remove(room),
        };
    }
}
