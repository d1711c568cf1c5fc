//! The records of a room in messages of the bucket `members`, each of which may be a tombstone.

use crate::Error;
use crate::jetstream::gateway::exchange::Entry;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::changes::Changes;
use crate::jetstream::stored::room_records::{Head, HeadGone, MemberGone, MemberRecord};

/// The head; `None` for the tombstone of a deleted room's head.
pub(super) fn head_record(entry: &Entry) -> Result<Option<Head>, Error> {
    if entry.removal { Ok(None) } else { entry.open(Bucket::Members).map(Some) }
}

/// The changes of an incarnation, also of a deleted room.
pub(super) fn head_changes(entry: &Entry) -> Result<Changes, Error> {
    if entry.removal {
        entry.open::<HeadGone>(Bucket::Members).map(|gone| gone.changes)
    } else {
        entry.open::<Head>(Bucket::Members).map(|head| head.changes)
    }
}

/// The membership; `None` for the tombstone of an ended one.
pub(super) fn member_record(entry: &Entry) -> Result<Option<MemberRecord>, Error> {
    if entry.removal {
        let _: MemberGone = entry.open(Bucket::Members)?;
        return Ok(None);
    }
    entry.open(Bucket::Members).map(Some)
}
