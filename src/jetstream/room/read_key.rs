//! A member's sealed key, found by the id that the room names.

use futures_util::future;
use tokio::time::Instant;

use crate::error::Record;
use crate::jetstream::gateway::exchange::Snapshot;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::view::View;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::Incarnation;
use crate::jetstream::stored::codec;
use crate::jetstream::stored::room_records::EpochRecord;
use crate::{Ciphertext, EndpointId, Epoch, Error, RoomId, SealedKey};

impl RoomClient {
    /// Returns the key of an endpoint for an epoch, or for the current one.
    pub(in crate::jetstream) async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Option<Epoch>,
        deadline: Instant,
    ) -> Result<SealedKey, Error> {
        let missing = || {
            let (room, endpoint) = (room.clone(), endpoint.clone());
            Error::NotFound(Record::Key { room, endpoint, epoch })
        };
        let wanted = |any: &Incarnation| {
            let mut wanted = vec![any.member("*", endpoint)];
            wanted.extend(epoch.map(|epoch| any.epoch(epoch)));
            wanted
        };
        let mut missed: Option<u64> = None;
        loop {
            // A guess of the epoch, which allows reading the key together with the room.
            let guess = epoch.or_else(|| self.epochs.guess(room));
            let early = async {
                let Some(guess) = guess else { return Ok(Snapshot::default()) };
                self.written(&Incarnation::any(room).sealed(endpoint, guess, "*"), deadline).await
            };
            let (view, early) =
                future::try_join(View::read(&self.buckets, room, wanted, deadline), early).await?;
            if epoch.is_none() {
                self.epochs.saw(room, view.head.epoch(room)?);
            }
            let key = match name_of_key(&view, endpoint, epoch) {
                Ok(Some(key)) => key,
                Ok(None) => return Err(missing()),
                // If the key itself is corrupt, too, report it rather than the record that names it.
                Err(error) => {
                    let own = self.unreadable_key(&view, endpoint, epoch, deadline).await;
                    let own = own.err().filter(|own| matches!(own, Error::Corrupt(_)));
                    return Err(own.unwrap_or(error));
                }
            };
            let mut snapshot = early;
            if snapshot.find(&key).is_none() {
                snapshot = self.written(&key, deadline).await?;
            }
            if snapshot.find(&key).is_none() {
                snapshot = self
                    .buckets
                    .read_few(Bucket::RoomKeys, std::slice::from_ref(&key), deadline)
                    .await?;
            }
            if let Some(entry) = snapshot.find(&key).filter(|entry| !entry.removal) {
                // A key is stored once, before it is named, so any replica's copy is right.
                let bytes = codec::open(Bucket::RoomKeys, &key, &entry.value)?;
                let ciphertext = Ciphertext::new(bytes).map_err(|error| {
                    Error::corrupt(Bucket::RoomKeys.name(), &*key, error.to_string())
                })?;
                let epoch = epoch.map_or_else(|| view.head.epoch(room), Ok)?;
                let (room, endpoint) = (room.clone(), endpoint.clone());
                return Ok(SealedKey { room, epoch, endpoint, ciphertext });
            }
            // The key may have been collected after the view, so the room is read again. Only if the room is the same
            // before and after a read that did not find the key, the key is missing.
            if missed == Some(view.revision) {
                let problem = "missing, though the room names it";
                let still = View::read(&self.buckets, room, |_| Vec::new(), deadline).await?;
                if still.revision == view.revision {
                    return Err(Error::corrupt(Bucket::RoomKeys.name(), key, problem));
                }
            }
            missed = Some(view.revision);
        }
    }

    /// Reads the message under the filter from any replica, however old its state. A key is stored once, before it is
    /// named, so it needs no barrier of its own.
    async fn written(&self, filter: &str, deadline: Instant) -> Result<Snapshot, Error> {
        self.buckets.read_unproved(Bucket::RoomKeys, &[filter.to_owned()], deadline).await
    }

    /// Fails if this key's record cannot be decoded.
    async fn unreadable_key(
        &self,
        view: &View,
        endpoint: &EndpointId,
        epoch: Option<Epoch>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let at = epoch.map_or_else(|| view.head.epoch(&view.id), Ok)?;
        let filter = view.incarnation.sealed(endpoint, at, "*");
        let found = self.buckets.read_few(Bucket::RoomKeys, &[filter], deadline).await?;
        found
            .entries
            .iter()
            .try_for_each(|entry| codec::open(Bucket::RoomKeys, &entry.key, &entry.value).map(drop))
    }
}

/// The bucket key of the endpoint's sealed key; `None` if it has none for the epoch.
fn name_of_key(
    view: &View,
    endpoint: &EndpointId,
    epoch: Option<Epoch>,
) -> Result<Option<String>, Error> {
    if !view.record.encrypted() {
        return Ok(None);
    }
    let Some(record) = view.member(endpoint)? else { return Ok(None) };
    let current = view.head.epoch(&view.id)?;
    let joined = record.member(&view.id, endpoint)?.joined_epoch;
    let at = epoch.unwrap_or(current);
    if at < joined || at > current {
        return Ok(None);
    }
    let attempt = if at == joined {
        // The key was stored with the addition of the member.
        record.id
    } else if at == current {
        view.head.attempt.clone()
    } else {
        match view.entry(&view.incarnation.epoch(at)) {
            Some(entry) => entry.open::<EpochRecord>(Bucket::Members)?.attempt,
            None => return Ok(None),
        }
    };
    Ok(Some(view.incarnation.sealed(endpoint, at, &attempt)))
}
