//! Stores the tombstone over a deleted room's head.

use tokio::time::Instant;

use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::{Put, WriteError};
use crate::jetstream::room::decode::head_record;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::Incarnation;
use crate::jetstream::stored::random_id;
use crate::jetstream::stored::room_records::{HeadGone, RoomGone};
use crate::{Error, RoomId};

/// Stores the tombstone over a deleted room's head before anybody hears of the deletion. Otherwise a client with a
/// stale room record would still see a live head.
pub(super) async fn end_room(
    buckets: &BucketClient,
    room: &RoomId,
    gone: Option<&RoomGone>,
    deadline: Instant,
) -> Result<(), Error> {
    let Some(gone) = gone.filter(|_| !buckets.is(JetStreamDefect::EndsHeadsLater)) else {
        return Ok(());
    };
    let incarnation = Incarnation::new(room, &gone.incarnation);
    end_head(buckets, &incarnation, deadline).await.map(drop)
}

/// Stores the tombstone over a deleted room's head, if there is a head. Returns the tombstone and its revision, unless
/// all garbage of the room was collected already.
pub(super) async fn end_head(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    deadline: Instant,
) -> Result<Option<(u64, HeadGone)>, Error> {
    let key = incarnation.head();
    if buckets.is(JetStreamDefect::RemovesHeads) {
        buckets.gateway.purge(Bucket::Members, &key, None, deadline).await?;
    }
    let mut pause = Pause::new(deadline);
    // A read without a proof suffices. A tombstone counts however old the state is, and the write expects the head's
    // revision, so a stale head is not replaced.
    let mut now =
        buckets.read_unproved(Bucket::Members, std::slice::from_ref(&key), deadline).await?;
    if now.find(&key).is_none() {
        now = buckets.read_few(Bucket::Members, std::slice::from_ref(&key), deadline).await?;
    }
    loop {
        let Some(entry) = now.find(&key) else { return Ok(None) };
        if entry.removal {
            let gone: HeadGone = entry.open(Bucket::Members)?;
            return Ok((!gone.collected).then_some((entry.sequence, gone)));
        }
        // A head that cannot be decoded is replaced by the tombstone all the same.
        let head = head_record(entry).ok().flatten();
        let changes = head.map(|head| head.changes).unwrap_or_default().next(&random_id::fresh()?);
        let gone = HeadGone { changes, collected: false };
        let put = Put::tombstone(Bucket::Members, key.clone(), &gone)?.expecting(entry.sequence);
        let error = match buckets.gateway.publish(Bucket::Members, put, deadline).await {
            Ok(revision) => return Ok(Some((revision, gone))),
            Err(WriteError::Refused) => Error::Timeout,
            Err(WriteError::Unknown(error) | WriteError::Failed(error)) => error,
        };
        pause.after(error).await?;
        now = buckets.read_few(Bucket::Members, std::slice::from_ref(&key), deadline).await?;
    }
}
