//! The rooms of an endpoint: the index names candidates, the rooms themselves decide.
//!
//! An index entry is stored before its membership begins, is removed after the membership ended, and is never stored
//! again. The endpoint's counter is rewritten after every new entry. So while the counter does not change, the entries
//! name every membership that exists. Other counters are rewritten before entries are removed. `PROTOCOL.md` has the
//! argument.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future;
use tokio::time::Instant;

use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::exchange::{Entry, Fresh, ReadError, Snapshot};
use crate::jetstream::room::decode::{head_record, member_record};
use crate::jetstream::room::end_head::end_head;
use crate::jetstream::room::index_entry::{Possible, Stale};
use crate::jetstream::room::occupant::Occupant;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::sweep;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::{self, Parts};
use crate::jetstream::stored::room_records::Fence;
use crate::{EndpointId, Error, Page, Room, RoomId};

/// The number of keys in one request: a request with this many keys of any legal length is far below the size that a
/// server accepts.
const CHUNK: usize = 400;

/// An endpoint's index entries and counters.
struct Index {
    /// The revision of the counter that changes after each new entry.
    count: u64,
    /// The revisions of the two counters that change before entries are removed: that of the endpoint, and that of rooms.
    /// If the parts of the index were read from different states, there may be several pairs.
    removals: BTreeSet<[u64; 2]>,
    rooms: BTreeMap<RoomId, Vec<Possible>>,
}

/// The candidates that are rooms of the endpoint, and those that are not.
struct Checked {
    rooms: BTreeMap<RoomId, Room>,
    stale: Vec<Stale>,
    /// The sequence of the barrier in `members` behind which the candidates were looked up.
    moment: u64,
}

impl Checked {
    fn new() -> Self {
        Self { rooms: BTreeMap::new(), stale: Vec::new(), moment: 0 }
    }

    /// Whether another look at the same candidates found the same.
    fn is_confirmed_by(&self, other: &Self) -> bool {
        let revisions = |of: &Self| -> Vec<_> { of.stale.iter().map(|s| s.revisions).collect() };
        self.rooms == other.rooms && revisions(self) == revisions(other)
    }
}

/// What an index entry says about a moment.
enum Then {
    /// The entry named a membership in this room.
    Member(Room),
    NotMember,
    /// The room has changed since, so its state at that moment is unknown.
    Unknown,
}

impl RoomClient {
    pub(in crate::jetstream) async fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: &Page<RoomId>,
        deadline: Instant,
    ) -> Result<Vec<Room>, Error> {
        let mut index = self.index(endpoint, deadline).await?;
        loop {
            let mut candidates = index
                .rooms
                .iter()
                .skip_while(|(room, _)| page.after().is_some_and(|after| *room <= after));
            let mut asked = Vec::new();
            let mut found = Checked::new();
            // Most candidates are rooms; further rounds replace those that are not.
            while found.rooms.len() < page.limit() {
                let missing = page.limit() - found.rooms.len();
                let next: Vec<_> = candidates
                    .by_ref()
                    .take(missing)
                    .map(|(room, possible)| (room.clone(), possible.clone()))
                    .collect();
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
            if !found.is_confirmed_by(&again) {
                index = self.index(endpoint, deadline).await?;
                continue;
            }
            if count != index.count {
                // The endpoint may be joining rooms all the time. So the answer is taken of another moment, that of the
                // second look, and completed by what joined since the index was read.
                let (later, third) = future::try_join(
                    self.index(endpoint, deadline),
                    self.check(endpoint, &asked, deadline),
                )
                .await?;
                let joined = if found.is_confirmed_by(&third) {
                    self.joined(endpoint, &index, &later, again.moment, deadline).await?
                } else {
                    None
                };
                let Some(joined) = joined else {
                    index = later;
                    continue;
                };
                let after = |room: &RoomId| page.after().is_none_or(|after| room > after);
                found.rooms.extend(joined.into_iter().filter(|(room, _)| after(room)));
            }
            if !again.stale.is_empty() {
                let endpoint = endpoint.clone();
                self.in_background(|buckets, deadline| async move {
                    sweep::stale_entries(&buckets, &endpoint, again.stale, deadline).await
                });
            }
            return Ok(found.rooms.into_values().take(page.limit()).collect());
        }
    }

    /// The rooms that the endpoint joined after `index` was read, and had joined at `moment`. `later` was read after that
    /// moment. `None` if that cannot be told.
    ///
    /// Every membership that existed at the moment has an entry in `index` or in `later`: an entry is stored before its
    /// membership begins, and before an entry is removed, a counter of removals changes.
    async fn joined(
        &self,
        endpoint: &EndpointId,
        index: &Index,
        later: &Index,
        moment: u64,
        deadline: Instant,
    ) -> Result<Option<BTreeMap<RoomId, Room>>, Error> {
        if index.removals != later.removals || index.removals.len() != 1 {
            return Ok(None);
        }
        let known: BTreeSet<&str> =
            index.rooms.values().flatten().map(|possible| possible.key.as_str()).collect();
        let mut new = Vec::new();
        for (room, all) in &later.rooms {
            let all = all.iter().filter(|possible| !known.contains(possible.key.as_str()));
            new.extend(all.map(|possible| (room, possible)));
        }
        let mut joined = BTreeMap::new();
        if new.is_empty() {
            return Ok(Some(joined));
        }
        let (rooms, (_, members)) = self.look_up(endpoint, &new, deadline).await?;
        for (room, possible) in new {
            let occupant = rooms.get(&bucket_key::room(room)).map(Occupant::of).transpose()?;
            match then(room, endpoint, occupant.as_ref(), possible, &members, moment)? {
                Then::Member(found) => drop(joined.insert(room.clone(), found)),
                Then::NotMember => {}
                Then::Unknown => return Ok(None),
            }
        }
        Ok(Some(joined))
    }

    async fn index_count(&self, endpoint: &EndpointId, deadline: Instant) -> Result<u64, Error> {
        let key = bucket_key::index_count(endpoint);
        let snapshot = self
            .buckets
            .read_few(Bucket::RoomsByMember, std::slice::from_ref(&key), deadline)
            .await?;
        Ok(snapshot.find(&key).map_or(0, |entry| entry.sequence))
    }

    /// All index entries of an endpoint, and its counters.
    async fn index(&self, endpoint: &EndpointId, deadline: Instant) -> Result<Index, Error> {
        let prefix = bucket_key::index_prefix(endpoint);
        let counters = [
            bucket_key::index_count(endpoint),
            bucket_key::removals(endpoint),
            bucket_key::REMOVALS.to_owned(),
        ];
        let fresh = self.buckets.fresh(Bucket::RoomsByMember).await?;
        let mut parts = Parts::One;
        let snapshots = loop {
            let reads = parts.filters(&prefix).into_iter().map(|filter| {
                let filters: Vec<_> = [filter].into_iter().chain(counters.clone()).collect();
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
        let [count, mine, of_rooms] = &counters;
        let revision =
            |part: &Snapshot, key: &str| part.find(key).map_or(0, |entry| entry.sequence);
        // If the parts have different counters, the caller finds the counter changed.
        let count = snapshots.iter().map(|part| revision(part, count)).min().unwrap_or(0);
        let removals = snapshots.iter().map(|part| [mine, of_rooms].map(|key| revision(part, key)));
        let removals = removals.collect();
        let mut rooms: BTreeMap<RoomId, Vec<Possible>> = BTreeMap::new();
        for entry in snapshots.iter().flat_map(|part| &part.entries) {
            if !counters.contains(&entry.key) && !entry.removal {
                let (room, possible) = Possible::of(entry)?;
                rooms.entry(room).or_default().push(possible);
            }
        }
        Ok(Index { count, removals, rooms })
    }

    /// Looks up the candidates' rooms and memberships.
    async fn check(
        &self,
        endpoint: &EndpointId,
        candidates: &[(RoomId, Vec<Possible>)],
        deadline: Instant,
    ) -> Result<Checked, Error> {
        let mut all = Vec::new();
        for (room, possible) in candidates {
            all.extend(possible.iter().map(|possible| (room, possible)));
        }
        let (rooms, (moment, members)) = self.look_up(endpoint, &all, deadline).await?;
        let mut checked = Checked { moment, ..Checked::new() };
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

    /// Reads the records of these memberships and of their rooms. Also returns the sequence of the barrier that the state
    /// of `members` contains.
    async fn look_up(
        &self,
        endpoint: &EndpointId,
        candidates: &[(&RoomId, &Possible)],
        deadline: Instant,
    ) -> Result<(Found, (u64, Found)), Error> {
        let mut rooms = BTreeSet::new();
        let mut members = Vec::new();
        for (room, possible) in candidates {
            rooms.insert(bucket_key::room(room));
            members.push(possible.incarnation.head());
            members.push(possible.incarnation.member("*", endpoint));
        }
        let rooms = async {
            if rooms.is_empty() {
                return Ok(Found::new());
            }
            let fresh = self.buckets.fresh(Bucket::Rooms).await?;
            self.read_chunks(Bucket::Rooms, rooms.into_iter().collect(), fresh, deadline).await
        };
        let members = async {
            let fresh = self.buckets.fresh(Bucket::Members).await?;
            let found = self.read_chunks(Bucket::Members, members, fresh, deadline).await?;
            Ok((fresh.sequence(), found))
        };
        future::try_join(rooms, members).await
    }

    /// As `read_few`, for any number of keys. The keys are read in chunks, which may be of different moments.
    async fn read_chunks(
        &self,
        bucket: Bucket,
        keys: Vec<String>,
        fresh: Fresh,
        deadline: Instant,
    ) -> Result<Found, Error> {
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

/// Whether an index entry named a membership at a moment, from records that were read after it.
fn then(
    id: &RoomId,
    endpoint: &EndpointId,
    occupant: Option<&Occupant>,
    possible: &Possible,
    members: &Found,
    moment: u64,
) -> Result<Then, Error> {
    let Some(entry) = members.get(&possible.incarnation.head()) else { return Ok(Then::Unknown) };
    let Some(head) = head_record(entry)? else { return Ok(Then::Unknown) };
    let member = members.get(&possible.incarnation.member(&head.generation, endpoint));
    let begun = member.map_or(0, |entry| entry.sequence);
    let member = member.map_or(Ok(None), member_record)?;
    let is_member = member.is_some_and(|member| member.id == possible.membership);
    if entry.sequence > moment {
        // A renewal of the roster writes memberships again, in another generation.
        let is_new = begun > moment && head.generation == possible.record.generation;
        return Ok(if is_member && is_new { Then::NotMember } else { Then::Unknown });
    }
    // The room is as it was at the moment.
    if !is_member {
        return Ok(Then::NotMember);
    }
    match possible.record.fence {
        // Nobody knows whether the creation was committed before the moment.
        Fence::Room(_) => Ok(Then::Unknown),
        Fence::Head(_) => {
            let room = the_room(id, endpoint, occupant, possible, members)?;
            Ok(room.map_or(Then::Unknown, Then::Member))
        }
    }
}
