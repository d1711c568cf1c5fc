//! Lists the rooms of which an endpoint is a member.

use rusqlite::Connection;

use super::driver::{Failure, Result};
use super::readers::one_state;
use super::{members, rooms};
use crate::{EndpointId, Error, Page, Room, RoomId};

pub(super) fn rooms_of(
    db: &Connection,
    endpoint: &EndpointId,
    page: &Page<RoomId>,
) -> Result<Vec<Room>> {
    one_state(db, |db| {
        let ids = members::rooms_of(db, endpoint, page)?;
        ids.iter().map(|id| rooms::find(db, id)?.ok_or_else(|| orphan(id, endpoint))).collect()
    })
}

fn orphan(room: &RoomId, endpoint: &EndpointId) -> Failure {
    let key = format!("{room:?} {endpoint:?}");
    Error::corrupt("members", key, "is in a room that is not there").into()
}
