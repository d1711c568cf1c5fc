//! Garbage collection: keys and index entries of ended memberships, of attempts that lost, of writers that crashed, and
//! of deleted rooms.
//!
//! Each step is safe however late it runs. A step names an incarnation, attempt or membership that is over or can never
//! begin, or it stops at a sequence below everything that is valid. The record that names the garbage is removed last.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, future, stream};
use tokio::time::Instant;

use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::{Put, ReadError, WriteError};
use crate::jetstream::room::decode::{head_record, member_record};
use crate::jetstream::room::end_head::end_head;
use crate::jetstream::room::index_entry::Stale;
use crate::jetstream::room::occupant::Occupant;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::view::View;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::{self, Incarnation, Parts, REMOVALS};
use crate::jetstream::stored::random_id;
use crate::jetstream::stored::room_records::{
    AttemptRecord, EpochRecord, Fence, Head, HeadGone, Ticket,
};
use crate::{EndpointId, Epoch, Error, RoomId};

/// Purges in flight at once.
const AT_ONCE: usize = 4;
/// Up to this many members, index entries are purged one by one. With more members, one request purges all index
/// entries of the room, and the server scans the whole bucket.
const ONE_BY_ONE: usize = 256;

/// Collects a creation that was not made.
pub(super) async fn unmade_room(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    owner: &EndpointId,
    membership: &str,
    deadline: Instant,
) -> Result<(), Error> {
    everything(buckets, incarnation, deadline).await?;
    let entry = incarnation.index(owner, membership);
    buckets.gateway.purge(Bucket::RoomsByMember, &entry, None, deadline).await
}

/// Collects an incarnation that is over, without its index entries.
async fn everything(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    deadline: Instant,
) -> Result<(), Error> {
    let filter = incarnation.everything();
    buckets.gateway.purge(Bucket::RoomKeys, &filter, None, deadline).await?;
    buckets.gateway.purge(Bucket::Members, &filter, None, deadline).await
}

/// Collects a deleted room.
pub(super) async fn deleted_room(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    deadline: Instant,
) -> Result<(), Error> {
    // Nobody can join the room any more, so its roster names all index entries.
    let ended = end_head(buckets, incarnation, deadline).await?;
    let entries = index_entries(buckets, incarnation, deadline).await?;
    buckets.gateway.purge(Bucket::RoomKeys, &incarnation.everything(), None, deadline).await?;
    let entries = entries.unwrap_or_else(|| vec![incarnation.index_of_all()]);
    remove_index_entries(buckets, [REMOVALS.to_owned()], entries, deadline).await?;
    buckets.gateway.purge(Bucket::Members, &incarnation.all_but_the_head(), None, deadline).await?;
    let Some((revision, gone)) = ended else { return Ok(()) };
    let collected = HeadGone { collected: true, ..gone };
    let collected = Put::tombstone(Bucket::Members, incarnation.head(), &collected)?;
    match buckets.gateway.publish(Bucket::Members, collected.expecting(revision), deadline).await {
        // The publish was refused, so another client has collected the room, too.
        Ok(_) | Err(WriteError::Refused) => Ok(()),
        Err(WriteError::Unknown(error) | WriteError::Failed(error)) => Err(error),
    }
}

/// Returns the index entries of an incarnation's members; `None` if there are many.
async fn index_entries(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    deadline: Instant,
) -> Result<Option<Vec<String>>, Error> {
    let filters = Parts::One.filters(&incarnation.roster("*"));
    let snapshot = match buckets.read(Bucket::Members, &filters, deadline).await {
        Ok(snapshot) if snapshot.entries.len() <= ONE_BY_ONE => snapshot,
        Ok(_) | Err(ReadError::TooMany) => return Ok(None),
        Err(error) => return Err(error.for_few_keys(Bucket::Members)),
    };
    let mut entries = Vec::new();
    for entry in snapshot.entries.iter().filter(|entry| !entry.removal) {
        if let (Some(endpoint), Ok(Some(record))) =
            (bucket_key::parse_member(&entry.key), member_record(entry))
        {
            entries.push(incarnation.index(&endpoint, &record.id));
        }
    }
    Ok(Some(entries))
}

/// Removes index entries of memberships that are over. Before that, rewrites these counters of removals.
///
/// A membership may begin and end between a listing's two looks at the index. Then neither look finds its entry, and only
/// the changed counter tells the listing that it may have missed one.
async fn remove_index_entries(
    buckets: &BucketClient,
    counters: impl IntoIterator<Item = String>,
    entries: Vec<String>,
    deadline: Instant,
) -> Result<(), Error> {
    let id = random_id::fresh()?;
    let counters = counters.into_iter().map(|key| Put::record(Bucket::RoomsByMember, key, &id));
    let counters = counters.collect::<Result<Vec<_>, _>>()?;
    buckets.gateway.publish_all(Bucket::RoomsByMember, counters, deadline).await?;
    purge_all(buckets, Bucket::RoomsByMember, entries, None, deadline).await
}

async fn purge_all(
    buckets: &BucketClient,
    bucket: Bucket,
    filters: Vec<String>,
    up_to: Option<u64>,
    deadline: Instant,
) -> Result<(), Error> {
    stream::iter(filters)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, |filter| async move {
            buckets.gateway.purge(bucket, &filter, up_to, deadline).await
        })
        .await
}

/// How many tombstones of heads are kept for a room id. The newest ones are kept: no call should span eight later
/// deletions of the id.
const ENDED: usize = 8;

/// Collects former incarnations of a room that a crash left, and old tombstones.
pub(super) async fn leftovers(
    buckets: &BucketClient,
    room: &RoomId,
    deadline: Instant,
) -> Result<(), Error> {
    let heads =
        buckets.read_few(Bucket::Members, &[Incarnation::any(room).head()], deadline).await?;
    // The room's record is read after the heads. An incarnation that was planned on an older revision than this one,
    // and that this record does not name, is over or will never be a room.
    let occupant = Occupant::read(buckets, room, deadline).await?;
    let mut ended = Vec::new();
    for entry in &heads.entries {
        let Some(id) = bucket_key::incarnation_of(&entry.key) else { continue };
        let incarnation = Incarnation::new(room, id);
        let over = match head_record(entry)? {
            Some(head) => is_over(&occupant, id, head.planned),
            None => !entry.open::<HeadGone>(Bucket::Members)?.collected,
        };
        if over {
            deleted_room(buckets, &incarnation, deadline).await?;
        } else if entry.removal {
            ended.push((entry.sequence, incarnation));
        }
    }
    ended.sort_unstable_by_key(|(ended_at, _)| Reverse(*ended_at));
    for (_, incarnation) in ended.iter().skip(ENDED) {
        everything(buckets, incarnation, deadline).await?;
    }
    Ok(())
}

/// Whether the room's record can never name an incarnation that was planned on this revision of it.
pub(super) fn is_over(occupant: &Occupant, incarnation: &str, planned: u64) -> bool {
    let named = matches!(occupant, Occupant::Room(room, _) if room.incarnation == incarnation);
    !named && occupant.revision() > planned
}

/// Collects an addition that was not made.
pub(super) async fn unmade_member(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    endpoint: &EndpointId,
    membership: &str,
    epoch: Epoch,
    deadline: Instant,
) -> Result<(), Error> {
    let key = incarnation.sealed(endpoint, epoch, membership);
    buckets.gateway.purge(Bucket::RoomKeys, &key, None, deadline).await?;
    let entry = incarnation.index(endpoint, membership);
    buckets.gateway.purge(Bucket::RoomsByMember, &entry, None, deadline).await
}

/// Collects the tickets of a view, in the background.
pub(super) fn tickets_of(rooms: &RoomClient, view: &View) {
    let below = view.incarnation.ticket("");
    for entry in view.entries_below(&below) {
        if let Ok(ticket) = entry.open::<Ticket>(Bucket::Members) {
            self::ticket(rooms, &view.incarnation, entry.key.clone(), ticket);
        }
    }
}

/// Collects the garbage that a ticket names, in the background.
pub(super) fn ticket(rooms: &RoomClient, incarnation: &Incarnation, key: String, ticket: Ticket) {
    let incarnation = incarnation.clone();
    rooms.in_background(|buckets, deadline| async move {
        collect(&buckets, &incarnation, &key, ticket, deadline).await
    });
}

async fn collect(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    ticket_key: &str,
    ticket: Ticket,
    deadline: Instant,
) -> Result<(), Error> {
    let filters = [ticket_key.to_owned(), incarnation.head()];
    let now = buckets.read_few(Bucket::Members, &filters, deadline).await?;
    let head = now.find(&incarnation.head()).map_or(Ok(None), head_record)?;
    let (Some(_), Some(Head { generation, .. })) = (now.find(ticket_key), head) else {
        return Ok(());
    };
    let mut entries = Vec::new();
    let mut keys = Vec::new();
    let mut counters = BTreeSet::new();
    for member in &ticket.gone {
        let Ok(endpoint) = EndpointId::new(&member.endpoint) else { continue };
        counters.insert(bucket_key::removals(&endpoint));
        entries.push(incarnation.index(&endpoint, &member.id));
        keys.push(incarnation.sealed_to(&endpoint));
    }
    let fenced = !buckets.is(JetStreamDefect::CollectsWithoutAFence);
    let keys_up_to = fenced.then_some(ticket.keys_up_to);
    // If the head has another generation, the ticket's generation is purged whole. Tombstones of the current generation
    // stay.
    let over = (generation != ticket.generation)
        .then(|| format!("{}.>", incarnation.roster(&ticket.generation)));
    future::try_join3(
        remove_index_entries(buckets, counters, entries, deadline),
        purge_all(buckets, Bucket::RoomKeys, keys, keys_up_to, deadline),
        purge_all(buckets, Bucket::Members, over.into_iter().collect(), None, deadline),
    )
    .await?;
    buckets.gateway.purge(Bucket::Members, ticket_key, None, deadline).await
}

/// Collects the keys of a rekey that was not made.
pub(super) async fn lost_attempt(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    epoch: Epoch,
    attempt: &str,
    deadline: Instant,
) -> Result<(), Error> {
    buckets
        .gateway
        .purge(Bucket::RoomKeys, &incarnation.sealed_by(epoch, attempt), None, deadline)
        .await?;
    buckets.gateway.purge(Bucket::RoomKeys, &incarnation.attempt(attempt), None, deadline).await
}

/// Collects every attempt that lost. Once an epoch is made, every other attempt at that epoch or at an earlier one has
/// lost.
pub(super) async fn attempts(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    epoch: Epoch,
    winner: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let began = buckets.read_few(Bucket::RoomKeys, &[incarnation.attempt("*")], deadline).await?;
    for entry in &began.entries {
        let attempt = bucket_key::last_token(&entry.key);
        let record: AttemptRecord = entry.open(Bucket::RoomKeys)?;
        if record.epoch > epoch.get() {
            continue;
        }
        let won = if record.epoch == epoch.get() {
            attempt == winner
        } else {
            won(buckets, incarnation, attempt, record.epoch, deadline).await?
        };
        if won {
            buckets.gateway.purge(Bucket::RoomKeys, &entry.key, None, deadline).await?;
        } else {
            let epoch = Epoch::new(record.epoch)?;
            lost_attempt(buckets, incarnation, epoch, attempt, deadline).await?;
        }
    }
    Ok(())
}

/// Whether an attempt made its epoch, which is no longer the current one.
async fn won(
    buckets: &BucketClient,
    incarnation: &Incarnation,
    attempt: &str,
    epoch: u64,
    deadline: Instant,
) -> Result<bool, Error> {
    let key = incarnation.epoch(Epoch::new(epoch)?);
    let made = buckets.read_few(Bucket::Members, std::slice::from_ref(&key), deadline).await?;
    let Some(entry) = made.find(&key) else {
        // The incarnation is over, and another step collects it as a whole.
        return Ok(true);
    };
    Ok(entry.open::<EpochRecord>(Bucket::Members)?.attempt == attempt)
}

/// Collects index entries that a listing found to name no membership, if they never will name one.
pub(super) async fn stale_entries(
    buckets: &BucketClient,
    endpoint: &EndpointId,
    stale: Vec<Stale>,
    deadline: Instant,
) -> Result<(), Error> {
    for Stale { room, possible, .. } in stale {
        let incarnation = &possible.incarnation;
        let (head_key, any) = (incarnation.head(), incarnation.member("*", endpoint));
        let members = buckets.read_few(Bucket::Members, &[head_key.clone(), any], deadline).await?;
        let occupant = Occupant::read(buckets, &room, deadline).await?;
        let named = matches!(&occupant, Occupant::Room(record, _)
            if record.incarnation == possible.incarnation_id);
        match (possible.record.fence, members.find(&head_key)) {
            (Fence::Room(planned), _) if is_over(&occupant, &possible.incarnation_id, planned) => {
                deleted_room(buckets, incarnation, deadline).await?;
            }
            // The entry names a member of a deleted room, whose membership is over for good.
            (Fence::Head(_), _) if !named => deleted_room(buckets, incarnation, deadline).await?,
            // There is no such member, and the head has changed since the addition was planned. So the membership is
            // over, or the addition lost.
            (fence, Some(head))
                if named
                    && (fence != Fence::Head(head.sequence)
                        || buckets.is(JetStreamDefect::CollectsWhatIsUnderWay)) =>
            {
                let Some(record) = head_record(head)? else { continue };
                let member = members.find(&incarnation.member(&record.generation, endpoint));
                let member = member.map_or(Ok(None), member_record)?;
                if member.is_some_and(|member| member.id == possible.membership) {
                    continue;
                }
                if let Fence::Head(_) = fence {
                    let epoch = Epoch::new(possible.record.epoch)?;
                    let key = incarnation.sealed(endpoint, epoch, &possible.membership);
                    buckets.gateway.purge(Bucket::RoomKeys, &key, None, deadline).await?;
                }
            }
            // The creation may still be made.
            _ => continue,
        }
        let counters = [bucket_key::removals(endpoint)];
        remove_index_entries(buckets, counters, vec![possible.key], deadline).await?;
    }
    Ok(())
}
