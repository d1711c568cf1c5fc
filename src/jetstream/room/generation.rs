//! Writes a new generation of a roster that has many more tombstones than members.
//!
//! The members are written under the new generation while changes of the room go on, outside the room's turn. What
//! changed meanwhile is stored within the turn, in one batch with the head that names the new generation. So a room of
//! any size is renewed without holding up its changes for long.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use crate::jetstream::gateway::exchange::Put;
use crate::jetstream::room::commit::PlannedChange;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::roster::Roster;
use crate::jetstream::room::view::View;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::Incarnation;
use crate::jetstream::stored::random_id;
use crate::jetstream::stored::room_records::{MemberGone, MemberRecord};
use crate::{EndpointId, Error, RoomId};

/// A roster is written anew once it has this many more tombstones than members.
const TOMBSTONES: u64 = 128;
/// How many records are in flight at once. More would slow down the calls that run at the same time.
const AT_ONCE: usize = 8;
/// The most records that are stored with the head.
const FEW: usize = 256;
/// How many times a renewal is planned before it is given up.
const PLANS: usize = 8;

/// Ends a renewal, also when its task is aborted.
struct UnderWay {
    rooms: Arc<RoomClient>,
    room: RoomId,
    not_before: Option<u64>,
}

impl UnderWay {
    async fn run(mut self, deadline: Instant) -> Result<(), Error> {
        if renew(&self.rooms, &self.room, deadline).await? {
            self.not_before = None;
        }
        Ok(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.rooms.renewals.end(&self.room, self.not_before);
    }
}

/// Writes the roster under a new generation, in the background, if it has many more tombstones than members.
pub(super) fn renew_if_due(rooms: &Arc<RoomClient>, view: &View) {
    let (ended, count) = (view.head.ended, view.head.count);
    if ended <= count.saturating_add(TOMBSTONES) || !rooms.renewals.begin(&view.id, ended) {
        return;
    }
    let not_before = Some(ended.saturating_add(count / 2).saturating_add(TOMBSTONES));
    let (client, room) = (Arc::clone(rooms), view.id.clone());
    let this = UnderWay { rooms: client, room, not_before };
    rooms.in_background(|_, deadline| this.run(deadline));
}

/// Returns `false` if the room keeps its generation.
async fn renew(rooms: &RoomClient, room: &RoomId, deadline: Instant) -> Result<bool, Error> {
    let view = View::read(&rooms.buckets, room, |_| Vec::new(), deadline).await?;
    if view.head.ended <= TOMBSTONES {
        return Ok(true);
    }
    let mut plan = Generation {
        incarnation: view.incarnation.clone(),
        former: view.head.generation.clone(),
        id: random_id::fresh()?,
        written: BTreeMap::new(),
        in_doubt: false,
    };
    let outcome = plan.write(rooms, view, deadline).await;
    if plan.in_doubt {
        return outcome;
    }
    // If the commit succeeded, the former generation is garbage. Otherwise no head will ever name the new generation, so
    // the new one is garbage.
    let over = if matches!(outcome, Ok(true)) { &plan.former } else { &plan.id };
    let filter = format!("{}.>", plan.incarnation.roster(over));
    rooms.buckets.gateway.purge(Bucket::Members, &filter, None, deadline).await?;
    outcome
}

/// A generation that is being written.
struct Generation {
    incarnation: Incarnation,
    /// The generation that this one replaces.
    former: String,
    id: String,
    /// The memberships whose records are written. A key of a generation that no head names yet is written only once: a
    /// late copy of a second message could bring back a membership that ended.
    written: BTreeMap<EndpointId, MemberRecord>,
    /// Whether a commit that names this generation failed, so that it may still be made.
    in_doubt: bool,
}

impl Generation {
    /// Writes the members, which the first plan takes from `view`, and makes the head name the generation. Returns
    /// `false` if other changes came first, again and again.
    async fn write(
        &mut self,
        rooms: &RoomClient,
        view: View,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let (buckets, room) = (&rooms.buckets, view.id.clone());
        let (mut first, mut turn) = (Some(view), None);
        for _ in 0..PLANS {
            let view = match first.take() {
                Some(view) => view,
                None => View::read(buckets, &room, |_| Vec::new(), deadline).await?,
            };
            if view.incarnation != self.incarnation || view.head.generation != self.former {
                return Ok(false);
            }
            let Some(roster) = rooms.roster(&view, deadline).await? else { continue };
            let missing = self.missing(&roster)?;
            if missing.len() > FEW || turn.is_none() {
                drop(turn.take());
                self.write_first(rooms, missing, deadline).await?;
                turn = Some(rooms.turns.wait(&room).await);
                continue;
            }
            let (puts, ended) = self.rest(&roster, &missing)?;
            if puts.len() > FEW {
                return Ok(false);
            }
            let write = random_id::fresh()?;
            let mut head = view.head.next(&write);
            (head.generation, head.ended) = (self.id.clone(), ended);
            let change = PlannedChange { view: &view, head, puts };
            self.in_doubt = true;
            let made = change.commit(buckets, deadline).await?;
            self.in_doubt = false;
            if made {
                rooms.rosters.keep(&self.incarnation, &write, roster);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the members whose records are not written in the generation.
    fn missing(&self, roster: &Roster) -> Result<Vec<(EndpointId, MemberRecord)>, Error> {
        let missing = roster.iter().filter(|(endpoint, _)| !self.written.contains_key(*endpoint));
        missing.map(|(endpoint, record)| Ok((endpoint.clone(), record.clone()?))).collect()
    }

    async fn write_first(
        &mut self,
        rooms: &RoomClient,
        members: Vec<(EndpointId, MemberRecord)>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let puts = members.iter().map(|(endpoint, record)| self.put(endpoint, record));
        let puts = puts.collect::<Result<Vec<_>, _>>()?;
        stream::iter(puts)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |put| async move {
                rooms.buckets.publish_once(Bucket::Members, put, deadline).await.map(drop)
            })
            .await?;
        self.written.extend(members);
        Ok(())
    }

    /// Returns the records that must be stored together with the head, and the number of tombstones that the generation
    /// has then.
    fn rest(
        &self,
        roster: &Roster,
        missing: &[(EndpointId, MemberRecord)],
    ) -> Result<(Vec<Put>, u64), Error> {
        let puts = missing.iter().map(|(endpoint, record)| self.put(endpoint, record));
        let mut puts = puts.collect::<Result<Vec<_>, _>>()?;
        let mut ended = 0;
        for (endpoint, written) in &self.written {
            match roster.get(endpoint) {
                Some(record) => {
                    let record = record.clone()?;
                    if record != *written {
                        puts.push(self.put(endpoint, &record)?);
                    }
                }
                None => {
                    let key = self.incarnation.member(&self.id, endpoint);
                    let gone = MemberGone { id: written.id.clone() };
                    puts.push(Put::tombstone(Bucket::Members, key, &gone)?);
                    ended += 1;
                }
            }
        }
        Ok((puts, ended))
    }

    fn put(&self, endpoint: &EndpointId, record: &MemberRecord) -> Result<Put, Error> {
        Put::record(Bucket::Members, self.incarnation.member(&self.id, endpoint), record)
    }
}
