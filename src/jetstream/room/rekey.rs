//! The move of a room to its next epoch. The sealed keys are stored first, under ids that no reader looks at. The
//! commit that names the ids makes all of them valid at once.

use std::sync::Arc;

use futures_util::future;
use tokio::time::Instant;

use crate::error::Conflict;
use crate::jetstream::defect::{self, JetStreamDefect};
use crate::jetstream::gateway::exchange::{MAX_BATCH, Put};
use crate::jetstream::room::commit::PlannedChange;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::room::roster::Roster;
use crate::jetstream::room::view::{View, no_member};
use crate::jetstream::room::{generation, sweep};
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key::Incarnation;
use crate::jetstream::stored::room_records::{
    AttemptRecord, EpochRecord, GoneMember, MemberGone, Ticket,
};
use crate::jetstream::stored::{codec, random_id};
use crate::{EndpointId, Epoch, Error, Rekey, Room, RoomId};

/// The most removals that a rekey stores as tombstones. A rekey with more removals writes a new generation. The rest of
/// the batch is for the head, the epoch and the tickets.
const MOST_REMOVALS: usize = MAX_BATCH - 50;
/// The most endpoints on one ticket. With ids of full length and every byte escaped, such a ticket is below 512 KiB.
const TICKET: usize = 1500;

impl RoomClient {
    pub(in crate::jetstream) async fn rekey(
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

    /// Collects the keys of an attempt that no commit named or ever will.
    fn abandon(&self, written: Written) {
        self.in_background(|buckets, deadline| async move {
            let Written { incarnation, epoch, attempt, .. } = written;
            sweep::lost_attempt(&buckets, &incarnation, epoch, &attempt, deadline).await
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
            let (view, keys_up_to) = future::try_join(
                View::read(&self.buckets, room, wanted, deadline),
                self.buckets.barrier(Bucket::RoomKeys),
            )
            .await?;
            if !view.record.encrypted() {
                return Err(Conflict::RoomUnencrypted.into());
            }
            let current = view.head.epoch(room)?;
            if rekey.from() != current {
                return Err(Error::StaleEpoch { current });
            }
            let next = current.next();
            let minds = !self.buckets.is(JetStreamDefect::KeepsCollectedKeys);
            let of_no_use = |old: &mut Written| !old.is_for(&view, next, minds);
            if let Some(old) = written.take_if(of_no_use) {
                self.abandon(old);
            }
            // The keys are written while the roster is read, since most rekeys are valid. A rekey
            // that lost to another change has its keys already.
            let missing = view.head.count.abs_diff(rekey_size(rekey)) > 0;
            let roster = match (next, &written) {
                (Some(epoch), None) if !missing => {
                    let attempt = self.fresh_unless(JetStreamDefect::IgnoresAttempts)?;
                    *written = Some(Written::new(&view, epoch, &attempt));
                    let keys = self.write_keys(&view.incarnation, epoch, rekey, &attempt, deadline);
                    if self.buckets.is(JetStreamDefect::CommitsBeforeTheKeys) {
                        self.roster(&view, deadline).await?
                    } else {
                        future::try_join(self.roster(&view, deadline), keys).await?.0
                    }
                }
                _ => self.roster(&view, deadline).await?,
            };
            let Some(roster) = roster else { continue };
            let next = check_rekey(&view, &roster, rekey, next)?;
            // A rekey without keys has already failed at the check above.
            let Some(Written { attempt, .. }) = written.clone() else { continue };
            if let Some(room) = self
                .commit_rekey(&view, roster, rekey, next, &attempt, keys_up_to.sequence, deadline)
                .await?
            {
                if self.buckets.is(JetStreamDefect::CommitsBeforeTheKeys) {
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
        let began = Put::record(Bucket::RoomKeys, incarnation.attempt(attempt), &record)?;
        self.buckets.gateway.publish_all(Bucket::RoomKeys, vec![began], deadline).await?;
        let keys = rekey.keys().iter().map(|(endpoint, ciphertext)| {
            let key = incarnation.sealed(endpoint, epoch, attempt);
            let value = codec::seal(Bucket::RoomKeys, &key, ciphertext.as_bytes());
            Put::new(key, value)
        });
        self.buckets.gateway.publish_all(Bucket::RoomKeys, keys.collect(), deadline).await.map(drop)
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
        // The head names only the attempt of the current epoch. Readers of this epoch's keys need that attempt's id
        // later, too, so it is stored in a record of its own. The record is true whatever the outcome of this rekey.
        if !view.head.attempt.is_empty() {
            let made = EpochRecord { attempt: view.head.attempt.clone() };
            let made = Put::record(Bucket::Members, incarnation.epoch(rekey.from()), &made)?;
            self.buckets.gateway.publish_all(Bucket::Members, vec![made], deadline).await?;
        }
        let mut puts = Vec::new();
        if gone.len() > MOST_REMOVALS {
            head.generation = random_id::fresh()?;
            let members = roster.iter().map(|(endpoint, record)| {
                let key = incarnation.member(&head.generation, endpoint);
                Put::record(Bucket::Members, key, record.as_ref().map_err(Error::clone)?)
            });
            let members = members.collect::<Result<Vec<_>, _>>()?;
            self.buckets.publish_first(Bucket::Members, members, deadline).await?;
            head.ended = 0;
        } else {
            head.ended += u64::try_from(gone.len()).unwrap_or(u64::MAX);
            for (endpoint, member) in rekey.remove().iter().zip(&gone) {
                let key = incarnation.member(&head.generation, endpoint);
                puts.push(Put::tombstone(
                    Bucket::Members,
                    key,
                    &MemberGone { id: member.id.clone() },
                )?);
            }
        }
        let mut tickets = Vec::new();
        for (n, gone) in gone.chunks(TICKET).enumerate() {
            let generation = view.head.generation.clone();
            let ticket = Ticket { keys_up_to, generation, gone: gone.to_vec() };
            let key = incarnation.ticket(&format!("{write}-{n}"));
            puts.push(Put::record(Bucket::Members, key.clone(), &ticket)?);
            tickets.push((key, ticket));
        }
        let generation = head.generation.clone();
        let room = view.record.room(&view.id, &head)?;
        let change = PlannedChange { view, head, puts };
        if change.commit(&self.buckets, deadline).await? {
            self.rosters.keep(incarnation, &write, roster);
            for (key, ticket) in tickets {
                sweep::ticket(self, incarnation, key, ticket);
            }
            sweep::tickets_of(self, view);
            generation::renew_if_due(self, view);
            let incarnation = incarnation.clone();
            let attempt = attempt.to_owned();
            self.in_background(|buckets, deadline| async move {
                sweep::attempts(&buckets, &incarnation, next, &attempt, deadline).await
            });
            return Ok(Some(room));
        }
        if generation != view.head.generation {
            let filter = format!("{}.>", incarnation.roster(&generation));
            self.in_background(|buckets, deadline| async move {
                buckets.gateway.purge(Bucket::Members, &filter, None, deadline).await
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
    /// The end of a membership purges keys that this attempt may have stored, even if the endpoint rejoined since. So
    /// any membership that ended since makes the keys unusable. `minds` is false only for the deliberate defect that
    /// ignores this.
    fn is_for(&self, view: &View, next: Option<Epoch>, minds: bool) -> bool {
        let whole = self.ended_since == view.head.ended_since;
        self.incarnation == view.incarnation && Some(self.epoch) == next && (whole || !minds)
    }
}
