//! Access for the conformance suite, which other callers do not have.

mod probe;

use std::time::Duration;

use tokio::time::Instant;

use crate::jetstream::config::JetStreamConfig;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::Put;
use crate::jetstream::gateway::fuse::Misheard;
use crate::jetstream::room::commit::PlannedChange;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::roster;
use crate::jetstream::room::view::View;
use crate::jetstream::store::{Freshness, JetStreamStore};
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::format::FormatRecord;
use crate::jetstream::stored::room_records::EpochRecord;
use crate::jetstream::stored::{bucket_key, codec, format, random_id};
use crate::mutation::Mutation;
use crate::trace::span;
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
    /// The format version of all buckets. Damaging it sets a version that the store does not know.
    Version,
}

impl JetStreamStore {
    /// Opens a store with this defect, which the suite must catch.
    #[doc(hidden)]
    pub async fn open_broken(
        config: JetStreamConfig,
        defect: JetStreamDefect,
    ) -> Result<Self, Error> {
        Self::start(config, Mutation::of(defect)).await
    }

    /// Puts an encrypted room at `epoch`, as if it had been rekeyed that often with the same keys.
    #[doc(hidden)]
    pub async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), Error> {
        self.long(span!("plant_epoch", room, epoch), async |deadline| {
            Box::pin(plant_epoch(&self.rooms, room, epoch, deadline)).await
        })
        .await
    }

    /// Damages stored records, as an edit of the buckets by hand could.
    #[doc(hidden)]
    pub async fn corrupt(&self, target: &Damage) -> Result<(), Error> {
        self.call(span!("corrupt"), async |deadline| corrupt(&self.buckets, target, deadline).await)
            .await
    }

    /// Moves the clock of the bounded mode forward at once, as a suspension of the machine does. Timers do not advance.
    #[doc(hidden)]
    pub fn suspend(&self, time: Duration) {
        if let Freshness::Recent { proof, .. } = &self.freshness {
            proof.clock.suspend(time);
        }
    }

    /// Stops the store after `exchanges` more exchanges with the servers, as if the process were killed there. With
    /// `sends_the_last` the next request is still sent, and its answer is ignored.
    #[doc(hidden)]
    pub fn stop_after(&self, exchanges: u32, sends_the_last: bool) {
        self.fused.stop_after(exchanges, sends_the_last);
    }

    /// Whether [`stop_after`](Self::stop_after) has stopped the store, which means that an exchange was not made or its
    /// answer was ignored.
    #[doc(hidden)]
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.fused.is_stopped()
    }

    /// Waits until the store [is stopped](Self::is_stopped).
    #[doc(hidden)]
    pub async fn stopped(&self) {
        self.fused.stopped().await;
    }

    /// Holds the store after `exchanges` more exchanges with the servers, until [`let_go`](Self::let_go), as if the
    /// process were paused there.
    #[doc(hidden)]
    pub fn hold_after(&self, exchanges: u32) {
        self.fused.hold_after(exchanges);
    }

    /// Holds one exchange after `exchanges` more, until [`let_go`](Self::let_go). The exchange is like a message that
    /// is lost and sent again; later exchanges overtake it.
    #[doc(hidden)]
    pub fn hold_one_after(&self, exchanges: u32) {
        self.fused.hold_one_after(exchanges);
    }

    /// Reports the next `writes` stored compare-and-sets truthfully, and the one after them as `as_if`. Then the store
    /// is held, as by [`hold_after`](Self::hold_after).
    #[doc(hidden)]
    pub fn mishear_after(&self, writes: u32, as_if: Misheard) {
        self.fused.mishear_after(writes, as_if);
    }

    /// Whether [`mishear_after`](Self::mishear_after) has reported a write wrongly.
    #[doc(hidden)]
    #[must_use]
    pub fn has_misheard(&self) -> bool {
        self.fused.has_misheard()
    }

    /// Waits until [`hold_after`](Self::hold_after) or [`mishear_after`](Self::mishear_after) holds an exchange.
    #[doc(hidden)]
    pub async fn held(&self) {
        self.fused.held().await;
    }

    /// Releases the held exchanges, for good.
    #[doc(hidden)]
    pub fn let_go(&self) {
        self.fused.let_go();
    }
}

/// Every message of a record, with its value changed.
async fn corrupt(buckets: &BucketClient, target: &Damage, deadline: Instant) -> Result<(), Error> {
    let any = bucket_key::Incarnation::any;
    let (bucket, filter) = match target {
        Damage::Room(room) => (Bucket::Rooms, bucket_key::room(room)),
        Damage::Head(room) => (Bucket::Members, any(room).head()),
        Damage::Member(room, endpoint) => (Bucket::Members, any(room).member("*", endpoint)),
        Damage::Keys(room, endpoint, None) => (Bucket::RoomKeys, any(room).sealed_to(endpoint)),
        Damage::Keys(room, endpoint, Some(epoch)) => {
            (Bucket::RoomKeys, any(room).sealed(endpoint, *epoch, "*"))
        }
        Damage::Version => return age(buckets, deadline).await,
        Damage::Index(endpoint) => {
            (Bucket::RoomsByMember, format!("{}.*.*.>", bucket_key::index_prefix(endpoint)))
        }
        Damage::User(user) => (Bucket::Users, bucket_key::user(user)),
        Damage::Admins => (Bucket::Users, bucket_key::ADMINS.to_owned()),
    };
    let snapshot = buckets.read_few(bucket, &[filter], deadline).await?;
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
    buckets.gateway.publish_all(bucket, damaged.collect(), deadline).await?;
    // A read without a barrier sees the damage only once every replica has it. The replicas apply the damage before the
    // next message.
    buckets.barrier(bucket).await?;
    let mut pause = Pause::new(deadline);
    loop {
        let status = buckets.gateway.bucket(bucket, deadline).await?.map(|state| state.status);
        if status.is_some_and(|status| status.current >= status.replicas) {
            return Ok(());
        }
        pause.after(Error::Timeout).await?;
    }
}

/// Gives every bucket a newer format version.
async fn age(buckets: &BucketClient, deadline: Instant) -> Result<(), Error> {
    for bucket in Bucket::ALL {
        let record = FormatRecord {
            membership_format: format::FORMAT_VERSION + 1,
            ..FormatRecord::new(String::new())
        };
        let format = Put::record(bucket, bucket_key::FORMAT.to_owned(), &record)?;
        buckets.gateway.publish_all(bucket, vec![format], deadline).await?;
    }
    Ok(())
}

/// Puts an encrypted room at `epoch`, as if it had been rekeyed that often with the same keys.
async fn plant_epoch(
    rooms: &RoomClient,
    room: &RoomId,
    epoch: Epoch,
    deadline: Instant,
) -> Result<(), Error> {
    let buckets = &*rooms.buckets;
    loop {
        let view = View::read(buckets, room, |_| Vec::new(), deadline).await?;
        let Some(roster) = roster::read(buckets, &view, deadline).await? else { continue };
        let attempt = random_id::fresh()?;
        let mut keys = Vec::new();
        for endpoint in roster.keys() {
            let sealed = rooms.key(room, endpoint, None, deadline).await?;
            let key = view.incarnation.sealed(endpoint, epoch, &attempt);
            let bytes: &Ciphertext = &sealed.ciphertext;
            let value = codec::seal(Bucket::RoomKeys, &key, bytes.as_bytes());
            keys.push(Put::new(key, value));
        }
        buckets.gateway.publish_all(Bucket::RoomKeys, keys, deadline).await?;
        let write = random_id::fresh()?;
        let mut head = view.head.next(&write);
        // The former epoch's keys stay readable, as after a rekey.
        let current = view.head.epoch(room)?;
        let mut puts = vec![Put::record(
            Bucket::Members,
            view.incarnation.epoch(epoch),
            &EpochRecord { attempt: attempt.clone() },
        )?];
        if !view.head.attempt.is_empty() {
            let record = EpochRecord { attempt: view.head.attempt.clone() };
            puts.push(Put::record(Bucket::Members, view.incarnation.epoch(current), &record)?);
        }
        head.set_epoch(epoch);
        head.attempt.clone_from(&attempt);
        let change = PlannedChange { view: &view, head, puts };
        if change.commit(buckets, deadline).await? {
            return Ok(());
        }
    }
}
