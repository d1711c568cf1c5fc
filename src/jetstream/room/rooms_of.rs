//! The rooms of an endpoint: the index names candidates, the rooms themselves decide.
//!
//! An index entry is stored before its membership begins, is removed after the membership ended, and is never stored
//! again. The endpoint's counter is rewritten after every new entry. So while the counter does not change, the entries
//! name every membership that exists.

use std::collections::BTreeMap;

use futures_util::future;
use tokio::time::Instant;

use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::exchange::{Entry, ReadError, Snapshot};
use crate::jetstream::room::decode::{head_record, member_record};
use crate::jetstream::room::end_head::end_head;
use crate::jetstream::room::index_entry::{Possible, Stale};
use crate::jetstream::room::occupant::Occupant;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::sweep;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::{self, Parts};
use crate::{EndpointId, Error, Page, Room, RoomId};

/// The number of keys in one request: a request with this many keys of any legal length is far below the size that a
/// server accepts.
const CHUNK: usize = 400;

/// An endpoint's index entries and counter.
struct Index {
    /// The revision of the endpoint's counter.
    count: u64,
    rooms: BTreeMap<RoomId, Vec<Possible>>,
}

/// The candidates that are rooms of the endpoint, and those that are not.
struct Checked {
    rooms: BTreeMap<RoomId, Room>,
    stale: Vec<Stale>,
}

impl RoomClient {
    pub(in crate::jetstream) async fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: &Page<RoomId>,
        deadline: Instant,
    ) -> Result<Vec<Room>, Error> {
        loop {
            let index = self.index(endpoint, deadline).await?;
            let mut candidates = index
                .rooms
                .into_iter()
                .skip_while(|(room, _)| page.after().is_some_and(|after| room <= after));
            let mut asked = Vec::new();
            let mut found = Checked { rooms: BTreeMap::new(), stale: Vec::new() };
            // Most candidates are rooms; further rounds replace those that are not.
            while found.rooms.len() < page.limit() {
                let missing = page.limit() - found.rooms.len();
                let next: Vec<_> = candidates.by_ref().take(missing).collect();
                if next.is_empty() {
                    break;
                }
                let more = self.check(endpoint, &next, deadline).await?;
                found.rooms.extend(more.rooms);
                found.stale.extend(more.stale);
                asked.extend(next);
            }
            // The answer is true at this moment, between the two looks at the candidates. Each membership that exists now
            // has an entry that was stored before the index was read, or else the counter has changed since. And if both
            // looks find the same, nothing has changed and changed back in between: memberships and incarnations are
            // never repeated, epochs only grow, and a rekey that is due stays due within an epoch. A candidate that is no
            // room of the endpoint may have become one and ceased to be one in between, but then its revisions would
            // differ.
            if self.buckets.is(JetStreamDefect::SingleCollect) {
                return Ok(found.rooms.into_values().collect());
            }
            let (count, again) = future::try_join(
                self.index_count(endpoint, deadline),
                self.check(endpoint, &asked, deadline),
            )
            .await?;
            if count != index.count {
                continue;
            }
            let revisions = |checked: &Checked| -> Vec<_> {
                checked.stale.iter().map(|stale| stale.revisions).collect()
            };
            if again.rooms != found.rooms || revisions(&again) != revisions(&found) {
                continue;
            }
            if !again.stale.is_empty() {
                let endpoint = endpoint.clone();
                self.in_background(|buckets, deadline| async move {
                    sweep::stale_entries(&buckets, &endpoint, again.stale, deadline).await
                });
            }
            return Ok(found.rooms.into_values().collect());
        }
    }

    async fn index_count(&self, endpoint: &EndpointId, deadline: Instant) -> Result<u64, Error> {
        let key = bucket_key::index_count(endpoint);
        let snapshot = self
            .buckets
            .read_few(Bucket::RoomsByMember, std::slice::from_ref(&key), deadline)
            .await?;
        Ok(snapshot.find(&key).map_or(0, |entry| entry.sequence))
    }

    /// All index entries of an endpoint, and its counter.
    async fn index(&self, endpoint: &EndpointId, deadline: Instant) -> Result<Index, Error> {
        let (prefix, count_key) =
            (bucket_key::index_prefix(endpoint), bucket_key::index_count(endpoint));
        let fresh = self.buckets.fresh(Bucket::RoomsByMember).await?;
        let mut parts = Parts::One;
        let snapshots = loop {
            let reads = parts.filters(&prefix).into_iter().map(|filter| {
                let filters = [filter, count_key.clone()];
                async move {
                    self.buckets
                        .gateway
                        .read(Bucket::RoomsByMember, &filters, fresh, deadline)
                        .await
                }
            });
            match future::try_join_all(reads).await {
                Ok(snapshots) => break snapshots,
                Err(ReadError::TooMany) if let Some(finer) = parts.finer() => parts = finer,
                Err(error) => return Err(error.for_few_keys(Bucket::RoomsByMember)),
            }
        };
        // If the parts have different counters, the caller finds the counter changed.
        let counts = snapshots.iter().map(|part| part.find(&count_key).map_or(0, |e| e.sequence));
        let count = counts.min().unwrap_or(0);
        let mut rooms: BTreeMap<RoomId, Vec<Possible>> = BTreeMap::new();
        for entry in snapshots.iter().flat_map(|part| &part.entries) {
            if entry.key != count_key && !entry.removal {
                let (room, possible) = Possible::of(entry)?;
                rooms.entry(room).or_default().push(possible);
            }
        }
        Ok(Index { count, rooms })
    }

    /// Looks up the candidates' rooms and memberships.
    async fn check(
        &self,
        endpoint: &EndpointId,
        candidates: &[(RoomId, Vec<Possible>)],
        deadline: Instant,
    ) -> Result<Checked, Error> {
        let mut rooms = Vec::new();
        let mut members = Vec::new();
        for (room, possible) in candidates {
            rooms.push(bucket_key::room(room));
            for possible in possible {
                members.push(possible.incarnation.head());
                members.push(possible.incarnation.member("*", endpoint));
            }
        }
        let (rooms, members) = future::try_join(
            self.read_chunks(Bucket::Rooms, rooms, deadline),
            self.read_chunks(Bucket::Members, members, deadline),
        )
        .await?;
        let mut checked = Checked { rooms: BTreeMap::new(), stale: Vec::new() };
        let mut over = Vec::new();
        for (room, possible) in candidates {
            let occupant = rooms.get(&bucket_key::room(room)).map(Occupant::of).transpose()?;
            for possible in possible {
                match the_room(room, endpoint, occupant.as_ref(), possible, &members)? {
                    Some(found) => {
                        checked.rooms.insert(room.clone(), found);
                    }
                    None => {
                        let head = members.get(&possible.incarnation.head());
                        if is_not_ended(occupant.as_ref(), possible, head) {
                            over.push(end_head(&self.buckets, &possible.incarnation, deadline));
                        }
                        let revisions = (
                            occupant.as_ref().map_or(0, Occupant::revision),
                            head.map_or(0, |entry| entry.sequence),
                        );
                        let (room, possible) = (room.clone(), possible.clone());
                        checked.stale.push(Stale { room, possible, revisions });
                    }
                }
            }
        }
        if !self.buckets.is(JetStreamDefect::EndsHeadsLater) {
            future::try_join_all(over).await?;
        }
        Ok(checked)
    }

    /// As `read_few`, for any number of keys. The keys are read in chunks, which may be of different moments.
    async fn read_chunks(
        &self,
        bucket: Bucket,
        keys: Vec<String>,
        deadline: Instant,
    ) -> Result<Found, Error> {
        if keys.is_empty() {
            return Ok(Found::default());
        }
        let fresh = self.buckets.fresh(bucket).await?;
        let reads = keys
            .chunks(CHUNK)
            .map(|chunk| self.buckets.gateway.read(bucket, chunk, fresh, deadline));
        let snapshots: Vec<Snapshot> =
            future::try_join_all(reads).await.map_err(|error| error.for_few_keys(bucket))?;
        let entries = snapshots.into_iter().flat_map(|snapshot| snapshot.entries);
        Ok(entries.map(|entry| (entry.key.clone(), entry)).collect())
    }
}

type Found = BTreeMap<String, Entry>;

/// Whether the candidate's room is deleted while the room's head has no tombstone yet.
fn is_not_ended(occupant: Option<&Occupant>, possible: &Possible, head: Option<&Entry>) -> bool {
    let (Some(occupant), Some(head)) = (occupant, head) else { return false };
    let head = head_record(head).ok().flatten();
    head.is_some_and(|head| sweep::is_over(occupant, &possible.incarnation_id, head.planned))
}

/// The room, if this candidate is a membership.
fn the_room(
    id: &RoomId,
    endpoint: &EndpointId,
    occupant: Option<&Occupant>,
    possible: &Possible,
    members: &Found,
) -> Result<Option<Room>, Error> {
    let Some(Occupant::Room(record, _)) = occupant else { return Ok(None) };
    if record.incarnation != possible.incarnation_id {
        return Ok(None);
    }
    let Some(entry) = members.get(&possible.incarnation.head()) else { return Ok(None) };
    let Some(head) = head_record(entry)? else { return Ok(None) };
    if record.is_late_copy(&head, entry.sequence) {
        return Ok(None);
    }
    let member = members.get(&possible.incarnation.member(&head.generation, endpoint));
    let member = member.map_or(Ok(None), member_record)?;
    if member.is_none_or(|member| member.id != possible.membership) {
        return Ok(None);
    }
    record.room(id, &head).map(Some)
}
