//! Sealed keys: stored first, under ids that no reader looks at, and made valid all at once by the commit that names
//! the ids.

use std::sync::Arc;

use futures_util::future;
use tokio::time::Instant;

use crate::error::{Conflict, Record};
use crate::jetstream::core::{Change, Core, Roster, View, no_member, open, put, removal};
use crate::jetstream::defect::{self, JetStreamDefect};
use crate::jetstream::gateway::exchange::{MAX_BATCH, Put, Snapshot};
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::Incarnation;
use crate::jetstream::stored::room_records::{
    AttemptRecord, EpochRecord, GoneMember, MemberGone, Ticket,
};
use crate::jetstream::stored::{codec, random_id};
use crate::jetstream::sweep;
use crate::{Ciphertext, EndpointId, Epoch, Error, Rekey, Room, RoomId, SealedKey};

/// The most removals that a rekey stores as tombstones; with more it writes a new generation. The rest of the batch is
/// for the head, the epoch and the tickets.
const MOST_REMOVALS: usize = MAX_BATCH - 50;
/// The most endpoints on one ticket: with ids of full length and every byte escaped, the ticket is below 512 KiB.
const TICKET: usize = 1500;

impl Core {
    /// The key of an endpoint for an epoch, or for the current one.
    pub(super) async fn key(
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
            // A guess of the epoch, so that the key is read together with the room.
            let guess = epoch.or_else(|| self.epochs.guess(room));
            let early = async {
                let Some(guess) = guess else { return Ok(Snapshot::default()) };
                self.written(&Incarnation::any(room).sealed(endpoint, guess, "*"), deadline).await
            };
            let (view, early) = future::try_join(self.view(room, wanted, deadline), early).await?;
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
                snapshot =
                    self.read_few(Bucket::RoomKeys, std::slice::from_ref(&key), deadline).await?;
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
            // The key was collected after the view, unless the room is the same before and after
            // a read without the key: then it is missing.
            if missed == Some(view.revision) {
                let problem = "missing, though the room names it";
                let still = self.view(room, |_| Vec::new(), deadline).await?;
                if still.revision == view.revision {
                    return Err(Error::corrupt(Bucket::RoomKeys.name(), key, problem));
                }
            }
            missed = Some(view.revision);
        }
    }

    /// Any replica's message under the filter, however old its state. A key is stored once, before it is named, so it needs
    /// no barrier of its own.
    async fn written(&self, filter: &str, deadline: Instant) -> Result<Snapshot, Error> {
        self.read_unproved(Bucket::RoomKeys, &[filter.to_owned()], deadline).await
    }

    /// The error for this key if it cannot be read.
    async fn unreadable_key(
        &self,
        view: &View,
        endpoint: &EndpointId,
        epoch: Option<Epoch>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let at = epoch.map_or_else(|| view.head.epoch(&view.id), Ok)?;
        let filter = view.incarnation.sealed(endpoint, at, "*");
        let found = self.read_few(Bucket::RoomKeys, &[filter], deadline).await?;
        found
            .entries
            .iter()
            .try_for_each(|entry| codec::open(Bucket::RoomKeys, &entry.key, &entry.value).map(drop))
    }

    pub(super) async fn rekey(
        self: &Arc<Self>,
        room: &RoomId,
        rekey: &Rekey,
        deadline: Instant,
    ) -> Result<Room, Error> {
        let mut written: Option<Written> = None;
        let outcome = self.rekey_until_settled(room, rekey, &mut written, deadline).await;
        // If the change was not made, no commit will name these keys.
        if let (Err(error), Some(written)) = (&outcome, written)
            && !error.outcome_unknown()
        {
            self.abandon(written);
        }
        outcome
    }

    /// Collects the keys of an attempt that no commit named or will name.
    fn abandon(self: &Arc<Self>, written: Written) {
        self.chore(|core, deadline| async move {
            let Written { incarnation, epoch, attempt, .. } = written;
            sweep::lost_attempt(&core, &incarnation, epoch, &attempt, deadline).await
        });
    }

    async fn rekey_until_settled(
        self: &Arc<Self>,
        room: &RoomId,
        rekey: &Rekey,
        written: &mut Option<Written>,
        deadline: Instant,
    ) -> Result<Room, Error> {
        loop {
            let wanted = |any: &Incarnation| vec![any.ticket("*")];
            let (view, keys_up_to) =
                future::try_join(self.view(room, wanted, deadline), self.barrier(Bucket::RoomKeys))
                    .await?;
            if !view.record.encrypted() {
                return Err(Conflict::RoomUnencrypted.into());
            }
            let current = view.head.epoch(room)?;
            if rekey.from() != current {
                return Err(Error::StaleEpoch { current });
            }
            let next = current.next();
            let minds = !self.is(JetStreamDefect::KeepsCollectedKeys);
            let of_no_use = |old: &mut Written| !old.is_for(&view, next, minds);
            if let Some(old) = written.take_if(of_no_use) {
                self.abandon(old);
            }
            // The keys are written while the roster is read, since most rekeys are valid. A rekey
            // that lost to another change has its keys already.
            let missing = view.head.count.abs_diff(rekey_size(rekey)) > 0;
            let kept = self.rosters.of(&view);
            let known = async |kept: Option<Arc<Roster>>| match kept {
                Some(roster) => Ok(Some(roster)),
                None => Ok::<_, Error>(self.roster(&view, deadline).await?.map(Arc::new)),
            };
            let roster = match (next, &written) {
                (Some(epoch), None) if !missing => {
                    let attempt = self.fresh_unless(JetStreamDefect::IgnoresAttempts)?;
                    *written = Some(Written::new(&view, epoch, &attempt));
                    let keys = self.write_keys(&view.incarnation, epoch, rekey, &attempt, deadline);
                    if self.is(JetStreamDefect::CommitsBeforeTheKeys) {
                        known(kept).await?
                    } else {
                        future::try_join(known(kept), keys).await?.0
                    }
                }
                _ => known(kept).await?,
            };
            let Some(roster) = roster else { continue };
            let next = check_rekey(&view, &roster, rekey, next)?;
            // Without keys the check above has failed.
            let Some(Written { attempt, .. }) = written.clone() else { continue };
            if let Some(room) = self
                .commit_rekey(&view, roster, rekey, next, &attempt, keys_up_to.sequence, deadline)
                .await?
            {
                if self.is(JetStreamDefect::CommitsBeforeTheKeys) {
                    defect::half_done().await;
                    self.write_keys(&view.incarnation, next, rekey, &attempt, deadline).await?;
                }
                return Ok(room);
            }
        }
    }

    /// Stores the record of a new attempt, and then its keys.
    async fn write_keys(
        &self,
        incarnation: &Incarnation,
        epoch: Epoch,
        rekey: &Rekey,
        attempt: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        let record = AttemptRecord { epoch: epoch.get() };
        let began = put(Bucket::RoomKeys, incarnation.attempt(attempt), &record)?;
        self.gateway.publish_all(Bucket::RoomKeys, vec![began], deadline).await?;
        let keys = rekey.keys().iter().map(|(endpoint, ciphertext)| {
            let key = incarnation.sealed(endpoint, epoch, attempt);
            let value = codec::seal(Bucket::RoomKeys, &key, ciphertext.as_bytes());
            Put::new(key, value)
        });
        self.gateway.publish_all(Bucket::RoomKeys, keys.collect(), deadline).await.map(drop)
    }

    /// Commits an attempt if the incarnation has not changed since the view.
    #[allow(clippy::too_many_arguments, reason = "one plan, made by the caller alone")]
    async fn commit_rekey(
        self: &Arc<Self>,
        view: &View,
        mut roster: Arc<Roster>,
        rekey: &Rekey,
        next: Epoch,
        attempt: &str,
        keys_up_to: u64,
        deadline: Instant,
    ) -> Result<Option<Room>, Error> {
        let (write, incarnation) = (random_id::fresh()?, &view.incarnation);
        let mut head = view.head.next(&write);
        head.set_epoch(next);
        attempt.clone_into(&mut head.attempt);
        head.ended_since = 0;
        let mut gone = Vec::new();
        for endpoint in rekey.remove() {
            if let Some(record) = Arc::make_mut(&mut roster).remove(endpoint) {
                gone.push(GoneMember { endpoint: endpoint.as_str().to_owned(), id: record?.id });
            }
        }
        head.count = u64::try_from(roster.len()).unwrap_or(u64::MAX);
        // The head names the attempt of the current epoch only. Readers of this epoch's keys
        // need the attempt later, too. The record is true whatever the outcome of this rekey.
        if !view.head.attempt.is_empty() {
            let made = EpochRecord { attempt: view.head.attempt.clone() };
            let made = put(Bucket::Members, incarnation.epoch(rekey.from()), &made)?;
            self.gateway.publish_all(Bucket::Members, vec![made], deadline).await?;
        }
        let mut puts = Vec::new();
        if gone.len() > MOST_REMOVALS {
            head.generation = random_id::fresh()?;
            let members = roster.iter().map(|(endpoint, record)| {
                let key = incarnation.member(&head.generation, endpoint);
                put(Bucket::Members, key, record.as_ref().map_err(Error::clone)?)
            });
            let members = members.collect::<Result<Vec<_>, _>>()?;
            self.publish_first(Bucket::Members, members, deadline).await?;
            head.ended = 0;
        } else {
            head.ended += u64::try_from(gone.len()).unwrap_or(u64::MAX);
            for (endpoint, member) in rekey.remove().iter().zip(&gone) {
                let key = incarnation.member(&head.generation, endpoint);
                puts.push(removal(Bucket::Members, key, &MemberGone { id: member.id.clone() })?);
            }
        }
        let mut tickets = Vec::new();
        for (n, gone) in gone.chunks(TICKET).enumerate() {
            let generation = view.head.generation.clone();
            let ticket = Ticket { keys_up_to, generation, gone: gone.to_vec() };
            let key = incarnation.ticket(&format!("{write}-{n}"));
            puts.push(put(Bucket::Members, key.clone(), &ticket)?);
            tickets.push((key, ticket));
        }
        let generation = head.generation.clone();
        let room = view.record.room(&view.id, &head)?;
        if self.commit(Change { view, head, puts }, deadline).await? {
            self.rosters.keep(incarnation, &write, roster);
            for (key, ticket) in tickets {
                sweep::ticket(self, incarnation, key, ticket);
            }
            sweep::tickets_of(self, view);
            sweep::generation(self, view);
            let incarnation = incarnation.clone();
            let attempt = attempt.to_owned();
            self.chore(|core, deadline| async move {
                sweep::attempts(&core, &incarnation, next, &attempt, deadline).await
            });
            return Ok(Some(room));
        }
        if generation != view.head.generation {
            let filter = format!("{}.>", incarnation.roster(&generation));
            self.chore(|core, deadline| async move {
                core.gateway.purge(Bucket::Members, &filter, None, deadline).await
            });
        }
        Ok(None)
    }
}

/// The number of endpoints in a rekey.
fn rekey_size(rekey: &Rekey) -> u64 {
    u64::try_from(rekey.keys().len() + rekey.remove().len()).unwrap_or(u64::MAX)
}

/// Checks the rekey against the roster, and returns the next epoch.
fn check_rekey(
    view: &View,
    roster: &Roster,
    rekey: &Rekey,
    next: Option<Epoch>,
) -> Result<Epoch, Error> {
    if let Some(error) = roster.values().find_map(|record| record.as_ref().err()) {
        return Err(error.clone());
    }
    for endpoint in rekey.remove() {
        if !roster.contains_key(endpoint) {
            return Err(no_member(&view.id, endpoint));
        }
    }
    let owns = |e: &EndpointId| matches!(roster.get(e), Some(Ok(record)) if record.owner());
    if rekey.remove().iter().any(owns) {
        return Err(Conflict::OwnerStays.into());
    }
    let next = next.ok_or(Conflict::LastEpoch)?;
    let remaining = roster.keys().filter(|e| !rekey.remove().contains(*e));
    let missing = remaining.filter(|e| !rekey.keys().contains_key(*e));
    let extra = rekey.keys().keys().filter(|e| !roster.contains_key(*e));
    match Conflict::keys_mismatch(missing, extra) {
        Some(mismatch) => Err(mismatch.into()),
        None => Ok(next),
    }
}

/// An attempt whose keys are stored or being stored.
#[derive(Clone)]
struct Written {
    incarnation: Incarnation,
    epoch: Epoch,
    attempt: String,
    /// How many memberships of the current epoch had ended when the attempt began.
    ended_since: u64,
}

impl Written {
    fn new(view: &View, epoch: Epoch, attempt: &str) -> Self {
        Self {
            incarnation: view.incarnation.clone(),
            epoch,
            attempt: attempt.to_owned(),
            ended_since: view.head.ended_since,
        }
    }

    /// Whether a rekey that is planned on this view may name these keys.
    ///
    /// The end of a membership purges keys that this attempt may have stored, also if the endpoint rejoined since. So any
    /// membership that ended since makes the keys unusable, unless a defect ignores that (`minds`).
    fn is_for(&self, view: &View, next: Option<Epoch>, minds: bool) -> bool {
        let whole = self.ended_since == view.head.ended_since;
        self.incarnation == view.incarnation && Some(self.epoch) == next && (whole || !minds)
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
        // The key that came with the addition.
        record.id
    } else if at == current {
        view.head.attempt.clone()
    } else {
        match view.entry(&view.incarnation.epoch(at)) {
            Some(entry) => open::<EpochRecord>(Bucket::Members, entry)?.attempt,
            None => return Ok(None),
        }
    };
    Ok(Some(view.incarnation.sealed(endpoint, at, &attempt)))
}
