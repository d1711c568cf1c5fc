//! Reads all members of a room, in parts of which all have the same head.

use std::collections::BTreeMap;

use futures_util::future;
use tokio::time::Instant;

use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::{Entry, Fresh, ReadError};
use crate::jetstream::room::decode::{head_record, member_record};
use crate::jetstream::room::view::View;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::{self, Parts};
use crate::jetstream::stored::room_records::MemberRecord;
use crate::{EndpointId, Error};

/// The members of a view's generation. A member whose record cannot be decoded is in the map with
/// its error.
pub(in crate::jetstream) type Roster = BTreeMap<EndpointId, Result<MemberRecord, Error>>;

/// All members of a view's room; `None` if the room has changed since.
pub(in crate::jetstream) async fn read(
    buckets: &BucketClient,
    view: &View,
    deadline: Instant,
) -> Result<Option<Roster>, Error> {
    let prefix = view.incarnation.roster(&view.head.generation);
    let head = view.incarnation.head();
    let mut parts = Parts::for_count(view.head.count.saturating_add(view.head.ended));
    let snapshots = loop {
        let reads = parts.filters(&prefix).into_iter().map(|filter| {
            let filters = [filter, head.clone()];
            async move {
                // A state with this head also has every record that was stored with the head.
                let fresh = Fresh::Since(view.revision);
                buckets.gateway.read(Bucket::Members, &filters, fresh, deadline).await
            }
        });
        match future::try_join_all(reads).await {
            Ok(snapshots) => break snapshots,
            Err(ReadError::TooMany) if let Some(finer) = parts.finer() => parts = finer,
            Err(error) => return Err(error.for_few_keys(Bucket::Members)),
        }
    };
    let mut roster = Roster::new();
    for snapshot in snapshots {
        // The heads' contents are compared, too: servers that lost messages assign the same
        // sequences again.
        let same = |entry: &Entry| {
            entry.sequence == view.revision
                && head_record(entry).is_ok_and(|head| head.as_ref() == Some(&view.head))
        };
        if !snapshot.find(&head).is_some_and(same) {
            return Ok(None);
        }
        for entry in snapshot.entries.iter().filter(|entry| entry.key != head) {
            let endpoint = bucket_key::parse_member(&entry.key).ok_or_else(|| {
                let problem = "a key that this program does not write";
                Error::corrupt(Bucket::Members.name(), &*entry.key, problem)
            })?;
            if let Some(record) = member_record(entry).transpose() {
                roster.insert(endpoint, record);
            }
        }
    }
    if u64::try_from(roster.len()) != Ok(view.head.count) {
        let (found, count) = (roster.len(), view.head.count);
        let problem = format!("says {count} members, but there are {found}");
        return Err(Error::corrupt(Bucket::Members.name(), head, problem));
    }
    Ok(Some(roster))
}
