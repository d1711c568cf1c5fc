//! Reads whether a room id is in use, and by which room.

use tokio::time::Instant;

use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::Entry;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key;
use crate::jetstream::stored::changes::Changes;
use crate::jetstream::stored::room_records::{RoomGone, RoomRecord};
use crate::{Error, RoomId};

/// The state of a room id: unused, or the room that uses it.
pub(super) enum Occupant {
    /// There is no room. The value is the revision of the former room's tombstone; 0 if there never
    /// was a room.
    Nobody(u64, Option<RoomGone>),
    /// A room, and the revision of its record.
    Room(RoomRecord, u64),
}

impl Occupant {
    pub(super) fn revision(&self) -> u64 {
        match self {
            Self::Nobody(revision, _) | Self::Room(_, revision) => *revision,
        }
    }

    /// The tombstone of the former room, if there is no room now.
    pub(super) fn gone(&self) -> Option<&RoomGone> {
        match self {
            Self::Nobody(_, gone) => gone.as_ref(),
            Self::Room(..) => None,
        }
    }

    /// The latest changes of the room id's record.
    pub(super) fn changes(&self) -> Changes {
        match self {
            Self::Room(record, _) => record.changes.clone(),
            Self::Nobody(..) => self.gone().map(|gone| gone.changes.clone()).unwrap_or_default(),
        }
    }

    /// Decodes a message of the bucket `rooms`.
    pub(super) fn of(entry: &Entry) -> Result<Self, Error> {
        if entry.removal {
            let gone = entry.open(Bucket::Rooms)?;
            return Ok(Self::Nobody(entry.sequence, Some(gone)));
        }
        Ok(Self::Room(entry.open(Bucket::Rooms)?, entry.sequence))
    }

    /// Reads the state of a room id, by a proved read.
    pub(super) async fn read(
        buckets: &BucketClient,
        room: &RoomId,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let key = bucket_key::room(room);
        let snapshot =
            buckets.read_few(Bucket::Rooms, std::slice::from_ref(&key), deadline).await?;
        snapshot.find(&key).map_or(Ok(Self::Nobody(0, None)), Self::of)
    }

    /// Reads the state of a room id from any replica. If that replica has no room there, makes a
    /// proved read.
    pub(super) async fn read_probable(
        buckets: &BucketClient,
        room: &RoomId,
        believes: bool,
        deadline: Instant,
    ) -> Result<Self, Error> {
        if !believes {
            return Self::read(buckets, room, deadline).await;
        }
        match Self::read_unproved(buckets, room, deadline).await {
            // If the record cannot be decoded, it may have been repaired since on other replicas.
            Ok(Self::Nobody(..)) | Err(Error::Corrupt(_)) => {
                Self::read(buckets, room, deadline).await
            }
            said => said,
        }
    }

    /// Reads the state of a room id from any replica, which proves nothing.
    pub(super) async fn read_unproved(
        buckets: &BucketClient,
        room: &RoomId,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let key = bucket_key::room(room);
        let found =
            buckets.read_unproved(Bucket::Rooms, std::slice::from_ref(&key), deadline).await?;
        found.find(&key).map_or(Ok(Self::Nobody(0, None)), Self::of)
    }
}
