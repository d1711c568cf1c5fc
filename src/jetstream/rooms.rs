//! Rooms: made and deleted by one compare-and-set on their record; listed through the index.

use std::sync::Arc;

use futures_util::future;
use tokio::time::Instant;

use crate::error::Record;
use crate::jetstream::bucket::Bucket;
use crate::jetstream::core::{Core, Occupant, in_doubt, no_room, put, removal};
use crate::jetstream::gateway::{Pause, Put, WriteError};
use crate::jetstream::key::{self, Incarnation};
use crate::jetstream::record::{Fence, Head, IndexRecord, MemberRecord, RoomGone, RoomRecord};
use crate::jetstream::{codec, sweep};
use crate::{Error, NewRoom, Room, RoomId};

/// What became of a compare-and-set on a room's record.
enum Settled {
    Done,
    /// It is not there and can never be; what is there instead.
    Lost(Occupant),
}

impl Core {
    pub(super) async fn create_room(
        self: &Arc<Self>,
        new: NewRoom,
        by: Instant,
    ) -> Result<Room, Error> {
        let taken = || Error::AlreadyExists(Record::Room(new.id.clone()));
        loop {
            let occupant = self.occupant(&new.id, by).await?;
            let Occupant::Nobody(planned, _) = occupant else { return Err(taken()) };
            let (incarnation, membership) = (key::fresh()?, key::fresh()?);
            self.prepare_room(&new, &incarnation, &membership, planned, by).await?;
            let key = key::room(&new.id);
            let record = RoomRecord::new(&new, incarnation.clone(), planned);
            let put = put(Bucket::Rooms, key, &record)?.expecting(planned);
            let settled = self.settle_room(&new.id, put, &incarnation, planned, by).await;
            let started = Incarnation::new(&new.id, &incarnation);
            match settled? {
                Settled::Done => {
                    let id = new.id.clone();
                    self.chore(|core, by| async move { sweep::leftovers(&core, &id, by).await });
                    return Ok(new.room());
                }
                Settled::Lost(occupant) => {
                    let owner = new.owner.clone();
                    self.chore(|core, by| async move {
                        sweep::unmade_room(&core, &started, &owner, &membership, by).await
                    });
                    if matches!(occupant, Occupant::Room(..)) {
                        return Err(taken());
                    }
                }
            }
        }
    }

    /// Everything of a room but its record: not yet a room, found by nobody.
    async fn prepare_room(
        &self,
        new: &NewRoom,
        incarnation: &str,
        membership: &str,
        planned: u64,
        by: Instant,
    ) -> Result<(), Error> {
        let (room, member) = (new.room(), new.owner_member());
        let incarnation = Incarnation::new(&new.id, incarnation);
        let generation = key::fresh()?;
        let head = Head::first(&room, planned, generation.clone(), membership);
        let owner = MemberRecord::new(membership.to_owned(), &member);
        let members = vec![
            put(Bucket::Members, incarnation.head(), &head)?,
            put(Bucket::Members, incarnation.member(&generation, &new.owner), &owner)?,
        ];
        let fence = IndexRecord { fence: Fence::Room(planned), epoch: room.epoch.get() };
        let index = incarnation.index(&new.owner, membership);
        let entry = vec![
            put(Bucket::RoomsByMember, index, &fence)?,
            put(Bucket::RoomsByMember, key::index_count(&new.owner), &membership)?,
        ];
        let keys = new.owner_key.iter().map(|ciphertext| {
            let key = incarnation.sealed(&new.owner, room.epoch, membership);
            let value = codec::seal(Bucket::RoomKeys, &key, ciphertext.as_bytes());
            Put::new(key, value)
        });
        // The index entry is the way by which what a crash leaves is found: it comes first.
        self.gateway.publish_all(Bucket::RoomsByMember, entry, by).await?;
        future::try_join(
            self.gateway.publish_all(Bucket::Members, members, by),
            self.gateway.publish_all(Bucket::RoomKeys, keys.collect(), by),
        )
        .await?;
        Ok(())
    }

    pub(super) async fn delete_room(
        self: &Arc<Self>,
        room: &RoomId,
        by: Instant,
    ) -> Result<(), Error> {
        loop {
            let Occupant::Room(record, revision) = self.occupant(room, by).await? else {
                return Err(no_room(room));
            };
            let write = key::fresh()?;
            let incarnation = record.incarnation;
            let gone =
                RoomGone { incarnation: incarnation.clone(), over: revision, write: write.clone() };
            let put = removal(Bucket::Rooms, key::room(room), &gone)?.expecting(revision);
            match self.settle_room(room, put, &write, revision, by).await? {
                Settled::Done => {
                    let incarnation = Incarnation::new(room, &incarnation);
                    self.chore(|core, by| async move {
                        sweep::deleted_room(&core, &incarnation, by).await
                    });
                    return Ok(());
                }
                Settled::Lost(Occupant::Nobody(..)) => return Err(no_room(room)),
                Settled::Lost(Occupant::Room(..)) => {}
            }
        }
    }

    /// Publishes a record or a removal over the revision `planned` of a room, and finds out what
    /// became of it where the answer does not tell.
    async fn settle_room(
        &self,
        room: &RoomId,
        put: Put,
        write: &str,
        planned: u64,
        by: Instant,
    ) -> Result<Settled, Error> {
        let mut doubt = false;
        let mut pause = Pause::new(by);
        loop {
            let error = match self.gateway.publish(Bucket::Rooms, put.clone(), by).await {
                Ok(_) => return Ok(Settled::Done),
                Err(WriteError::Failed(error)) if !doubt => return Err(error),
                Err(WriteError::Refused) => Error::Timeout,
                Err(WriteError::Failed(error) | WriteError::Unknown(error)) => {
                    doubt = true;
                    error
                }
            };
            // A refusal proves nothing: it may be a former leader's.
            let now = self.occupant(room, by).await;
            let now = if doubt { now.map_err(in_doubt)? } else { now? };
            let (over, by_us) = match &now {
                Occupant::Room(record, _) => (Some(record.over), record.incarnation == write),
                Occupant::Nobody(_, Some(gone)) => {
                    (Some(gone.over), gone.write == write || gone.incarnation == write)
                }
                Occupant::Nobody(_, None) => (None, false),
            };
            if by_us {
                return Ok(Settled::Done);
            }
            if now.revision() != planned {
                // Without doubt it was not ours; with doubt, it was not ours if something else
                // stands directly over what we planned on.
                if !doubt || over == Some(planned) {
                    return Ok(Settled::Lost(now));
                }
                return Err(Error::Timeout);
            }
            let paused = pause.after(error).await;
            if doubt { paused.map_err(in_doubt)? } else { paused? }
        }
    }
}
