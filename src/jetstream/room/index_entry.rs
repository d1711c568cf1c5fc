//! Index entries, each of which names a membership that an endpoint may have.

use futures_util::future;
use tokio::time::Instant;

use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::{Entry, Put};
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::{self, Incarnation};
use crate::jetstream::stored::room_records::IndexRecord;
use crate::{Error, RoomId};

/// A membership that an index entry names: planned, existing or ended.
#[derive(Clone)]
pub(super) struct Possible {
    pub(super) key: String,
    pub(super) incarnation: Incarnation,
    pub(super) incarnation_id: String,
    pub(super) membership: String,
    pub(super) record: IndexRecord,
}

impl Possible {
    /// The room and the membership that an index entry names.
    pub(super) fn of(entry: &Entry) -> Result<(RoomId, Self), Error> {
        let place = Bucket::RoomsByMember;
        let parsed = bucket_key::parse_index(&entry.key).ok_or_else(|| {
            Error::corrupt(place.name(), &*entry.key, "a key that this program does not write")
        })?;
        let possible = Self {
            key: entry.key.clone(),
            incarnation: Incarnation::new(&parsed.room, parsed.incarnation),
            incarnation_id: parsed.incarnation.to_owned(),
            membership: parsed.membership.to_owned(),
            record: entry.open(place)?,
        };
        Ok((parsed.room, possible))
    }
}

/// A candidate of a listing that is no room of the endpoint, with the revisions of the room's record and head at that
/// moment.
pub(super) struct Stale {
    pub(super) room: RoomId,
    pub(super) possible: Possible,
    pub(super) revisions: (u64, u64),
}

/// Stores index entries, and then the counters of their endpoints. Each counter must follow its index entry in the
/// stream. Otherwise a listing that misses the entry could read the new counter twice, and would take its answer for
/// complete.
pub(super) async fn publish_index(
    buckets: &BucketClient,
    entries: Vec<Put>,
    counters: Vec<Put>,
    deadline: Instant,
) -> Result<(), Error> {
    if buckets.is(JetStreamDefect::CountsFirst) {
        buckets.gateway.publish_all(Bucket::RoomsByMember, counters, deadline).await?;
        return buckets
            .gateway
            .publish_all(Bucket::RoomsByMember, entries, deadline)
            .await
            .map(drop);
    }
    // Entries and counters are sent together, since they mostly arrive in this order.
    let (stored, counted) = future::try_join(
        buckets.gateway.publish_all(Bucket::RoomsByMember, entries, deadline),
        buckets.gateway.publish_all(Bucket::RoomsByMember, counters.clone(), deadline),
    )
    .await?;
    let counted_first = counted.iter().min() < stored.iter().max();
    if counted_first {
        buckets.gateway.publish_all(Bucket::RoomsByMember, counters, deadline).await?;
    }
    Ok(())
}
