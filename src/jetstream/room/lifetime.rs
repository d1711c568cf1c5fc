//! Creates and deletes rooms. A creation is a compare-and-set of the room's record; a deletion replaces the record and
//! then the head by tombstones.

use futures_util::future;
use tokio::time::Instant;

use crate::error::Record;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::exchange::{Put, WriteError, in_doubt};
use crate::jetstream::room::end_head::end_room;
use crate::jetstream::room::index_entry::publish_index;
use crate::jetstream::room::occupant::Occupant;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::sweep;
use crate::jetstream::room::view::no_room;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::{self, Incarnation};
use crate::jetstream::stored::changes::{Changes, Fate};
use crate::jetstream::stored::room_records::{
    Fence, Head, IndexRecord, MemberRecord, RoomGone, RoomRecord,
};
use crate::jetstream::stored::{codec, random_id};
use crate::trace::event;
use crate::{Error, NewRoom, Room, RoomId};

/// The outcome of a compare-and-set of a room's record.
enum Settled {
    Done,
    /// The change was not made and never will be. The value is the state of the room id now.
    Lost(Occupant),
}

impl RoomClient {
    pub(in crate::jetstream) async fn create_room(
        &self,
        new: NewRoom,
        deadline: Instant,
    ) -> Result<Room, Error> {
        let taken = || Error::AlreadyExists(Record::Room(new.id.clone()));
        let mut believed = self.buckets.is(JetStreamDefect::BelievesRefusals);
        loop {
            let occupant = if std::mem::take(&mut believed) {
                Occupant::read_unproved(&self.buckets, &new.id, deadline).await?
            } else {
                Occupant::read(&self.buckets, &new.id, deadline).await?
            };
            if matches!(occupant, Occupant::Room(..)) {
                return Err(taken());
            }
            let planned = occupant.revision();
            let incarnation = self.fresh_unless(JetStreamDefect::ReusesIncarnations)?;
            let membership = random_id::fresh()?;
            let (born, ()) = future::try_join(
                self.prepare_room(&new, &incarnation, &membership, planned, deadline),
                end_room(&self.buckets, &new.id, occupant.gone(), deadline),
            )
            .await?;
            let key = bucket_key::room(&new.id);
            let record = RoomRecord::new(&new, incarnation.clone(), born, &occupant.changes());
            let put = Put::record(Bucket::Rooms, key, &record)?.expecting(planned);
            let settled = self.settle_room(&new.id, put, &record.changes, deadline).await;
            let started = Incarnation::new(&new.id, &incarnation);
            match settled? {
                Settled::Done => {
                    let id = new.id.clone();
                    self.in_background(|buckets, deadline| async move {
                        sweep::leftovers(&buckets, &id, deadline).await
                    });
                    return Ok(new.room());
                }
                Settled::Lost(occupant) => {
                    let owner = new.owner.clone();
                    self.in_background(|buckets, deadline| async move {
                        sweep::unmade_room(&buckets, &started, &owner, &membership, deadline).await
                    });
                    if matches!(occupant, Occupant::Room(..)) {
                        return Err(taken());
                    }
                }
            }
        }
    }

    /// Stores all records of a room except the one in `rooms`, so that no reader finds the room yet. Returns the
    /// revision of the head.
    async fn prepare_room(
        &self,
        new: &NewRoom,
        incarnation: &str,
        membership: &str,
        planned: u64,
        deadline: Instant,
    ) -> Result<u64, Error> {
        let (room, member) = (new.room(), new.owner_member());
        let incarnation = Incarnation::new(&new.id, incarnation);
        let generation = random_id::fresh()?;
        let head = Head::first(&room, planned, generation.clone(), membership);
        let owner = MemberRecord::new(membership.to_owned(), &member);
        let head = Put::record(Bucket::Members, incarnation.head(), &head)?;
        let owner =
            Put::record(Bucket::Members, incarnation.member(&generation, &new.owner), &owner)?;
        let epoch = room.epoch.get();
        let fence = IndexRecord { fence: Fence::Room(planned), epoch, generation };
        let index = incarnation.index(&new.owner, membership);
        let entry = Put::record(Bucket::RoomsByMember, index, &fence)?;
        let counter =
            Put::record(Bucket::RoomsByMember, bucket_key::index_count(&new.owner), &membership)?;
        let keys = new.owner_key.iter().map(|ciphertext| {
            let key = incarnation.sealed(&new.owner, room.epoch, membership);
            let value = codec::seal(Bucket::RoomKeys, &key, ciphertext.as_bytes());
            Put::new(key, value)
        });
        // The index entry is stored first, since the garbage of a crashed creation is found by it.
        publish_index(&self.buckets, vec![entry], vec![counter], deadline).await?;
        future::try_join(
            self.buckets.publish_once(Bucket::Members, owner, deadline),
            self.buckets.gateway.publish_all(Bucket::RoomKeys, keys.collect(), deadline),
        )
        .await?;
        // The head comes last, so a state with the head has the owner, too.
        self.buckets.publish_once(Bucket::Members, head, deadline).await
    }

    pub(in crate::jetstream) async fn delete_room(
        &self,
        room: &RoomId,
        deadline: Instant,
    ) -> Result<(), Error> {
        loop {
            let (record, revision) = match Occupant::read(&self.buckets, room, deadline).await? {
                Occupant::Room(record, revision) => (record, revision),
                Occupant::Nobody(_, gone) => {
                    end_room(&self.buckets, room, gone.as_ref(), deadline).await?;
                    return Err(no_room(room));
                }
            };
            let incarnation = record.incarnation;
            let changes = record.changes.next(&random_id::fresh()?);
            let gone = RoomGone { incarnation: incarnation.clone(), changes };
            let put =
                Put::tombstone(Bucket::Rooms, bucket_key::room(room), &gone)?.expecting(revision);
            match self.settle_room(room, put, &gone.changes, deadline).await? {
                Settled::Done => {
                    end_room(&self.buckets, room, Some(&gone), deadline).await.map_err(in_doubt)?;
                    let incarnation = Incarnation::new(room, &incarnation);
                    self.in_background(|buckets, deadline| async move {
                        sweep::deleted_room(&buckets, &incarnation, deadline).await
                    });
                    return Ok(());
                }
                // Another room or tombstone has the id now, so the creation begins again.
                Settled::Lost(_) => {}
            }
        }
    }

    /// Publishes a room's record or tombstone, whose newest change is that of `planned`. If the answer does not tell
    /// the outcome, searches for it.
    async fn settle_room(
        &self,
        room: &RoomId,
        put: Put,
        planned: &Changes,
        deadline: Instant,
    ) -> Result<Settled, Error> {
        let mut doubt = false;
        let mut pause = Pause::new(deadline);
        loop {
            let error =
                match self.buckets.gateway.publish(Bucket::Rooms, put.clone(), deadline).await {
                    Ok(revision) => {
                        event!(call: debug, "committed", revision);
                        return Ok(Settled::Done);
                    }
                    Err(WriteError::Failed(error)) if !doubt => return Err(error),
                    Err(WriteError::Refused)
                        if self.buckets.is(JetStreamDefect::BelievesRefusals) =>
                    {
                        return Ok(Settled::Lost(
                            Occupant::read_unproved(&self.buckets, room, deadline).await?,
                        ));
                    }
                    Err(WriteError::Refused) => Error::Timeout,
                    Err(WriteError::Failed(error) | WriteError::Unknown(error)) => {
                        doubt = true;
                        error
                    }
                };
            event!(call: debug, "a commit was refused or not acknowledged: the room is read");
            // A refusal proves nothing: it may be a former leader's.
            let now = Occupant::read(&self.buckets, room, deadline).await;
            let now = if doubt { now.map_err(in_doubt)? } else { now? };
            match now.changes().fate_of(planned) {
                Fate::Done => return Ok(Settled::Done),
                Fate::Lost => return Ok(Settled::Lost(now)),
                Fate::Unknown => return Err(Error::Timeout),
                Fate::Open => {}
            }
            let paused = pause.after(error).await;
            if doubt { paused.map_err(in_doubt)? } else { paused? }
        }
    }
}
