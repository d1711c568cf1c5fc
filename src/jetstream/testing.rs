//! Access for the conformance suite, which other callers do not have.

mod probe;

use std::sync::Arc;

use tokio::time::Instant;

use crate::jetstream::core;
use crate::jetstream::core::{Change, Core, put};
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::exchange::Put;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::format::FormatRecord;
use crate::jetstream::stored::room_records::EpochRecord;
use crate::jetstream::stored::{bucket_key, codec, format, random_id};
use crate::{Ciphertext, EndpointId, Epoch, Error, RoomId, UserKey};

pub use probe::{Probe, Said};

/// A stored record, for tests that damage it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Damage {
    /// A room's record.
    Room(RoomId),
    /// The head of a room's members.
    Head(RoomId),
    /// A membership.
    Member(RoomId, EndpointId),
    /// The sealed keys of an endpoint in a room: for one epoch, or all.
    Keys(RoomId, EndpointId, Option<Epoch>),
    /// All index entries of an endpoint.
    Index(EndpointId),
    /// A user.
    User(UserKey),
    /// The record of admins.
    Admins,
    /// The format version of all buckets. It becomes a version that the store does not know.
    Version,
}

impl Core {
    /// Every message of a record, with its value changed.
    pub(super) async fn corrupt(&self, target: &Damage, deadline: Instant) -> Result<(), Error> {
        let any = bucket_key::Incarnation::any;
        let (bucket, filter) = match target {
            Damage::Room(room) => (Bucket::Rooms, bucket_key::room(room)),
            Damage::Head(room) => (Bucket::Members, any(room).head()),
            Damage::Member(room, endpoint) => (Bucket::Members, any(room).member("*", endpoint)),
            Damage::Keys(room, endpoint, None) => (Bucket::RoomKeys, any(room).sealed_to(endpoint)),
            Damage::Keys(room, endpoint, Some(epoch)) => {
                (Bucket::RoomKeys, any(room).sealed(endpoint, *epoch, "*"))
            }
            Damage::Version => return self.age(deadline).await,
            Damage::Index(endpoint) => {
                (Bucket::RoomsByMember, format!("{}.*.*.>", bucket_key::index_prefix(endpoint)))
            }
            Damage::User(user) => (Bucket::Users, bucket_key::user(user)),
            Damage::Admins => (Bucket::Users, bucket_key::ADMINS.to_owned()),
        };
        let snapshot = self.read_few(bucket, &[filter], deadline).await?;
        if snapshot.entries.is_empty() {
            return Err(Error::unavailable(format!("there is nothing to damage for {target:?}")));
        }
        let damaged = snapshot.entries.into_iter().map(|entry| {
            let mut value = entry.value.to_vec();
            if let Some(last) = value.last_mut() {
                *last ^= 1;
            }
            Put { removal: entry.removal, ..Put::new(entry.key, value.into()) }
        });
        self.gateway.publish_all(bucket, damaged.collect(), deadline).await?;
        // Reads without a proof see the damage once every replica has it. The replicas apply it with the
        // next message.
        self.barrier(bucket).await?;
        let mut pause = Pause::new(deadline);
        loop {
            let status = self.gateway.bucket(bucket, deadline).await?.map(|state| state.status);
            if status.is_some_and(|status| status.current >= status.replicas) {
                return Ok(());
            }
            pause.after(Error::Timeout).await?;
        }
    }

    /// Gives every bucket a newer format version.
    async fn age(&self, deadline: Instant) -> Result<(), Error> {
        for bucket in Bucket::ALL {
            let record = FormatRecord {
                membership_format: format::FORMAT_VERSION + 1,
                ..FormatRecord::new(String::new())
            };
            let format = put(bucket, bucket_key::FORMAT.to_owned(), &record)?;
            self.gateway.publish_all(bucket, vec![format], deadline).await?;
        }
        Ok(())
    }

    /// Puts an encrypted room at `epoch`, as if it had been rekeyed that often with the same keys.
    pub(super) async fn plant_epoch(
        self: &Arc<Self>,
        room: &RoomId,
        epoch: Epoch,
        deadline: Instant,
    ) -> Result<(), Error> {
        loop {
            let view = self.view(room, |_| Vec::new(), deadline).await?;
            let Some(roster) = self.roster(&view, deadline).await? else { continue };
            let attempt = random_id::fresh()?;
            let mut keys = Vec::new();
            for endpoint in roster.keys() {
                let sealed = self.key(room, endpoint, None, deadline).await?;
                let key = view.incarnation.sealed(endpoint, epoch, &attempt);
                let bytes: &Ciphertext = &sealed.ciphertext;
                let value = codec::seal(Bucket::RoomKeys, &key, bytes.as_bytes());
                keys.push(Put::new(key, value));
            }
            self.gateway.publish_all(Bucket::RoomKeys, keys, deadline).await?;
            let write = random_id::fresh()?;
            let mut head = view.head.next(&write);
            // The former epoch's keys stay readable, as after a rekey.
            let current = view.head.epoch(room)?;
            let mut puts = vec![put(
                Bucket::Members,
                view.incarnation.epoch(epoch),
                &EpochRecord { attempt: attempt.clone() },
            )?];
            if !view.head.attempt.is_empty() {
                let record = EpochRecord { attempt: view.head.attempt.clone() };
                puts.push(core::put(Bucket::Members, view.incarnation.epoch(current), &record)?);
            }
            head.set_epoch(epoch);
            head.attempt.clone_from(&attempt);
            if self.commit(Change { view: &view, head, puts }, deadline).await? {
                return Ok(());
            }
        }
    }
}
