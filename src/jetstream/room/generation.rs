//! A new generation of a roster that has many more tombstones than members.

use tokio::time::Instant;

use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::Put;
use crate::jetstream::room::commit::PlannedChange;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::roster;
use crate::jetstream::room::view::View;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::random_id;
use crate::{Error, RoomId};

/// How many more tombstones than members a roster keeps before it is written anew.
const TOMBSTONES: u64 = 128;

/// Writes the roster under a new generation, in the background, if it has many more tombstones than members.
pub(super) fn renew_if_due(rooms: &RoomClient, view: &View) {
    if view.head.ended > view.head.count.saturating_add(TOMBSTONES) {
        let room = view.id.clone();
        rooms.in_background(
            |buckets, deadline| async move { renew(&buckets, &room, deadline).await },
        );
    }
}

async fn renew(buckets: &BucketClient, room: &RoomId, deadline: Instant) -> Result<(), Error> {
    let view = View::read(buckets, room, |_| Vec::new(), deadline).await?;
    if view.head.ended <= TOMBSTONES {
        return Ok(());
    }
    let Some(roster) = roster::read(buckets, &view, deadline).await? else { return Ok(()) };
    let write = random_id::fresh()?;
    let mut head = view.head.next(&write);
    head.generation = random_id::fresh()?;
    head.ended = 0;
    let members = roster.iter().map(|(endpoint, record)| {
        let key = view.incarnation.member(&head.generation, endpoint);
        Put::record(Bucket::Members, key, record.as_ref().map_err(Error::clone)?)
    });
    let members = members.collect::<Result<Vec<_>, _>>()?;
    buckets.publish_first(Bucket::Members, members, deadline).await?;
    let (old, new) = (view.head.generation.clone(), head.generation.clone());
    let change = PlannedChange { view: &view, head, puts: Vec::new() };
    let over = if change.commit(buckets, deadline).await? { old } else { new };
    let filter = format!("{}.>", view.incarnation.roster(&over));
    buckets.gateway.purge(Bucket::Members, &filter, None, deadline).await
}
