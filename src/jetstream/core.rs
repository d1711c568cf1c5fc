//! The steps that calls share: barriers, proved reads, commits, background work.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, future, stream};
use tokio::time::Instant;

use crate::error::Record;
use crate::jetstream::add::Waiting;
use crate::jetstream::chores::Chores;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::epochs::Epochs;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::barrier::Barriers;
use crate::jetstream::gateway::exchange::{
    Entry, Fresh, Passed, Put, ReadError, Snapshot, WriteError,
};
use crate::jetstream::gateway::settings_watch::SettingsWatch;
use crate::jetstream::gateway::tries::{Gateway, WINDOW};
use crate::jetstream::rosters::Rosters;
use crate::jetstream::stored::bucket::{Bucket, PerBucket};
use crate::jetstream::stored::bucket_key::{Incarnation, Parts};
use crate::jetstream::stored::changes::{Changes, Fate};
use crate::jetstream::stored::room_records::{
    Head, HeadGone, MemberGone, MemberRecord, RoomGone, RoomRecord,
};
use crate::jetstream::stored::{bucket_key, codec, random_id};
use crate::jetstream::sweep;
use crate::jetstream::turns::Turns;
use crate::jetstream::users_copy::UsersCopy;
use crate::mutation::Mutation;
use crate::{EndpointId, Error, Member, RoomId};

/// The parts that the calls share.
pub(super) struct Core {
    pub(super) gateway: Arc<Gateway>,
    pub(super) barriers: PerBucket<Barriers>,
    pub(super) users: Arc<UsersCopy>,
    pub(super) watch: Arc<SettingsWatch>,
    pub(super) chores: Chores,
    pub(super) turns: Turns,
    pub(super) rosters: Rosters,
    pub(super) epochs: Epochs,
    pub(super) waiting: Waiting,
    pub(super) op_timeout: Duration,
    pub(super) mutation: Mutation<JetStreamDefect>,
}

/// The state of a room id.
pub(super) enum Occupant {
    /// No room; the revision of the former room's tombstone, 0 if there never was a room.
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

    /// The changes of the id so far.
    pub(super) fn changes(&self) -> Changes {
        match self {
            Self::Room(record, _) => record.changes.clone(),
            Self::Nobody(..) => self.gone().map(|gone| gone.changes.clone()).unwrap_or_default(),
        }
    }
}

/// A room and parts of its incarnation, all of one moment.
pub(super) struct View {
    pub(super) id: RoomId,
    pub(super) record: RoomRecord,
    pub(super) incarnation: Incarnation,
    pub(super) head: Head,
    /// The revision of the head. A change that is planned on this view is refused once the head has another.
    pub(super) revision: u64,
    /// The other records that the caller asked for.
    entries: Vec<Entry>,
}

/// The members of a view's generation. A member whose record cannot be read is there with the error.
pub(super) type Roster = BTreeMap<EndpointId, Result<MemberRecord, Error>>;

impl View {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The records whose keys begin so.
    pub(super) fn entries_below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.key.starts_with(prefix))
    }

    /// The membership of an endpoint, if the caller asked for it.
    pub(super) fn member(&self, endpoint: &EndpointId) -> Result<Option<MemberRecord>, Error> {
        let key = self.incarnation.member(&self.head.generation, endpoint);
        self.entry(&key).map_or(Ok(None), member_record)
    }

    /// The contract's record of this membership.
    pub(super) fn member_or_none(&self, endpoint: &EndpointId) -> Result<Option<Member>, Error> {
        self.member(endpoint)?.map(|record| record.member(&self.id, endpoint)).transpose()
    }
}

pub(super) fn member_record(entry: &Entry) -> Result<Option<MemberRecord>, Error> {
    if entry.removal {
        let _: MemberGone = open(Bucket::Members, entry)?;
        return Ok(None);
    }
    open(Bucket::Members, entry).map(Some)
}

pub(super) fn open<T: serde::de::DeserializeOwned>(
    bucket: Bucket,
    entry: &Entry,
) -> Result<T, Error> {
    codec::open_record(bucket, &entry.key, &entry.value)
}

/// A record to be stored.
pub(super) fn put<T: serde::Serialize>(
    bucket: Bucket,
    key: String,
    record: &T,
) -> Result<Put, Error> {
    let value = codec::seal_record(bucket, &key, record)?;
    Ok(Put::new(key, value))
}

/// A deletion to be stored.
pub(super) fn removal<T: serde::Serialize>(
    bucket: Bucket,
    key: String,
    record: &T,
) -> Result<Put, Error> {
    let value = codec::seal_record(bucket, &key, record)?;
    Ok(Put::removal(key, value))
}

pub(super) fn no_room(room: &RoomId) -> Error {
    Error::NotFound(Record::Room(room.clone()))
}

pub(super) fn no_member(room: &RoomId, endpoint: &EndpointId) -> Error {
    Error::NotFound(Record::Member { room: room.clone(), endpoint: endpoint.clone() })
}

/// A change to an incarnation, planned on a view of it.
pub(super) struct Change<'a> {
    pub(super) view: &'a View,
    pub(super) head: Head,
    /// The messages that are stored with the head.
    pub(super) puts: Vec<Put>,
}

impl Core {
    /// Whether the store has this defect, which the suite must catch.
    pub(super) fn is(&self, defect: JetStreamDefect) -> bool {
        self.mutation.is(defect)
    }

    /// A new id; with one defect, always the same id.
    pub(super) fn fresh_unless(&self, defect: JetStreamDefect) -> Result<String, Error> {
        if self.is(defect) { Ok("same".to_owned()) } else { random_id::fresh() }
    }

    /// Sends a barrier, or shares one that is sent after this call began.
    pub(super) async fn barrier(&self, bucket: Bucket) -> Result<Passed, Error> {
        self.watch.fit(bucket)?;
        self.users.is_ours()?;
        self.barriers.get(bucket).pass().await
    }

    /// The freshness of a state that contains a barrier sent after this call began.
    pub(super) async fn fresh(&self, bucket: Bucket) -> Result<Fresh, Error> {
        if self.is(JetStreamDefect::NoBarrier) {
            return Ok(Fresh::Whatever);
        }
        if self.is(JetStreamDefect::AnotherBucketsBarrier) && bucket == Bucket::Members {
            let passed = self.barrier(Bucket::Rooms).await?;
            return Ok(Fresh::Since(passed.sequence));
        }
        let passed = self.barrier(bucket).await?;
        if self.is(JetStreamDefect::BelievesSequences) {
            return Ok(Fresh::Since(passed.sequence));
        }
        Ok(Fresh::Barrier(passed))
    }

    /// The messages under the filters, at a moment after this call began.
    pub(super) async fn read(
        &self,
        bucket: Bucket,
        filters: &[String],
        deadline: Instant,
    ) -> Result<Snapshot, ReadError> {
        if self.is(JetStreamDefect::BarrierAfterTheRead) {
            let snapshot = self.gateway.read(bucket, filters, Fresh::Whatever, deadline).await?;
            return self.barrier(bucket).await.map(|_| snapshot).map_err(ReadError::Failed);
        }
        loop {
            let fresh = self.fresh(bucket).await.map_err(ReadError::Failed)?;
            let until = deadline.min(Instant::now() + self.gateway.patience());
            match self.gateway.read(bucket, filters, fresh, until).await {
                // The servers may have lost the barrier with their latest messages.
                Err(ReadError::Late(_)) if until < deadline => {}
                read => return read,
            }
        }
    }

    /// As [`read`](Self::read), for filters that match few keys.
    pub(super) async fn read_few(
        &self,
        bucket: Bucket,
        filters: &[String],
        deadline: Instant,
    ) -> Result<Snapshot, Error> {
        self.read(bucket, filters, deadline).await.map_err(|error| few(bucket, error))
    }

    /// The messages that any replica has under filters that match few keys, however old they are.
    pub(super) async fn read_unproved(
        &self,
        bucket: Bucket,
        filters: &[String],
        deadline: Instant,
    ) -> Result<Snapshot, Error> {
        let read = self.gateway.read(bucket, filters, Fresh::Whatever, deadline).await;
        read.map_err(|error| few(bucket, error))
    }

    /// Stores messages under new keys, many at once, in any order. A late copy of a message is refused once the key was
    /// written again.
    pub(super) async fn publish_first(
        &self,
        bucket: Bucket,
        puts: Vec<Put>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let all = puts
            .into_iter()
            .map(|put| async move { self.publish_once(bucket, put, deadline).await });
        let all = stream::iter(all).buffer_unordered(WINDOW);
        all.try_for_each(|_| future::ok(())).await
    }

    /// Stores one such message and returns its revision.
    pub(super) async fn publish_once(
        &self,
        bucket: Bucket,
        put: Put,
        deadline: Instant,
    ) -> Result<u64, Error> {
        let mut pause = Pause::new(deadline);
        loop {
            let error = match self.gateway.publish(bucket, put.clone().expecting(0), deadline).await
            {
                Ok(revision) => return Ok(revision),
                Err(WriteError::Unknown(error) | WriteError::Failed(error)) => error,
                Err(WriteError::Refused) => {
                    // The server already had an earlier copy. That copy is stored, or a former leader took
                    // it and it never will be.
                    let key = std::slice::from_ref(&put.key);
                    if self.is(JetStreamDefect::BelievesRefusedFirsts) {
                        let read = self.read_unproved(bucket, key, deadline).await?;
                        return Ok(read.find(&put.key).map_or(0, |entry| entry.sequence));
                    }
                    if let Some(entry) = self.read_few(bucket, key, deadline).await?.find(&put.key)
                    {
                        return Ok(entry.sequence);
                    }
                    Error::Timeout
                }
            };
            pause.after(error).await?;
        }
    }

    /// Stores index entries and then the counters of their endpoints. No counter may stand before its entry: a listing that
    /// misses the entry would take the counter for an earlier one.
    pub(super) async fn publish_index(
        &self,
        entries: Vec<Put>,
        counters: Vec<Put>,
        deadline: Instant,
    ) -> Result<(), Error> {
        if self.is(JetStreamDefect::CountsFirst) {
            self.gateway.publish_all(Bucket::RoomsByMember, counters, deadline).await?;
            return self
                .gateway
                .publish_all(Bucket::RoomsByMember, entries, deadline)
                .await
                .map(drop);
        }
        // Sent together: they mostly arrive in this order.
        let (stored, counted) = future::try_join(
            self.gateway.publish_all(Bucket::RoomsByMember, entries, deadline),
            self.gateway.publish_all(Bucket::RoomsByMember, counters.clone(), deadline),
        )
        .await?;
        let counted_first = counted.iter().min() < stored.iter().max();
        if counted_first {
            self.gateway.publish_all(Bucket::RoomsByMember, counters, deadline).await?;
        }
        Ok(())
    }

    /// What a room id stands for.
    pub(super) async fn occupant(
        &self,
        room: &RoomId,
        deadline: Instant,
    ) -> Result<Occupant, Error> {
        let key = bucket_key::room(room);
        let snapshot = self.read_few(Bucket::Rooms, std::slice::from_ref(&key), deadline).await?;
        snapshot.find(&key).map_or(Ok(Occupant::Nobody(0, None)), occupant)
    }

    /// The state of a room id by any replica's word if that is a room; otherwise by a proved read.
    async fn probable_occupant(
        &self,
        room: &RoomId,
        believes: bool,
        deadline: Instant,
    ) -> Result<Occupant, Error> {
        if !believes {
            return self.occupant(room, deadline).await;
        }
        match self.unproved_occupant(room, deadline).await {
            // A record that cannot be read may have been repaired since.
            Ok(Occupant::Nobody(..)) | Err(Error::Corrupt(_)) => {
                self.occupant(room, deadline).await
            }
            said => said,
        }
    }

    /// The state of a room id by any replica's word, which proves nothing.
    pub(super) async fn unproved_occupant(
        &self,
        room: &RoomId,
        deadline: Instant,
    ) -> Result<Occupant, Error> {
        let key = bucket_key::room(room);
        let found = self.read_unproved(Bucket::Rooms, std::slice::from_ref(&key), deadline).await?;
        found.find(&key).map_or(Ok(Occupant::Nobody(0, None)), occupant)
    }

    /// Stores the tombstone over a deleted room's head before anybody hears of the deletion. Otherwise a client with a
    /// stale room record would still see a live head.
    pub(super) async fn end(
        &self,
        room: &RoomId,
        gone: Option<&RoomGone>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let Some(gone) = gone.filter(|_| !self.is(JetStreamDefect::EndsHeadsLater)) else {
            return Ok(());
        };
        let incarnation = Incarnation::new(room, &gone.incarnation);
        sweep::end_head(self, &incarnation, deadline).await.map(drop)
    }

    /// A room and the records of its incarnation that `wanted` names; `NotFound` if there is no room.
    ///
    /// The head decides, by a proved read: an incarnation that a room record ever named is a room while its head has no
    /// tombstone. So any replica may say which incarnation the record names; only the answer that there is no room needs a
    /// proved read of the record. `PROTOCOL.md` has the argument.
    pub(super) async fn view(
        &self,
        room: &RoomId,
        wanted: impl Fn(&Incarnation) -> Vec<String>,
        deadline: Instant,
    ) -> Result<View, Error> {
        let any = Incarnation::any(room);
        let mut filters = wanted(&any);
        filters.push(any.head());
        let mut believes = true;
        let mut missed: Vec<u64> = Vec::new();
        loop {
            let (occupant, members) = future::try_join(
                self.probable_occupant(room, std::mem::take(&mut believes), deadline),
                self.read_few(Bucket::Members, &filters, deadline),
            )
            .await?;
            let (record, room_revision) = match occupant {
                Occupant::Nobody(_, gone) => {
                    let lives = |gone: &&RoomGone| {
                        let head = Incarnation::new(room, &gone.incarnation).head();
                        members.find(&head).is_none_or(|head| !head.removal)
                    };
                    self.end(room, gone.as_ref().filter(lives), deadline).await?;
                    return Err(no_room(room));
                }
                Occupant::Room(record, revision) => (record, revision),
            };
            let incarnation = Incarnation::new(room, &record.incarnation);
            let entry = members.find(&incarnation.head());
            let revision = entry.map_or(0, |entry| entry.sequence);
            let head = entry.map_or(Ok(None), head_record)?;
            if let Some(head) = head.filter(|head| !record.is_late_copy(head, revision)) {
                let ours = |entry: &Entry| {
                    bucket_key::incarnation_of(&entry.key) == Some(record.incarnation.as_str())
                };
                let entries = members.entries.into_iter().filter(ours).collect();
                let id = room.clone();
                return Ok(View { id, record, incarnation, head, revision, entries });
            }
            // The record was stale, or the room was created or deleted between the two reads. Only if three rounds agree
            // is it neither: the second round's members were read after the first round's record and before the third's.
            missed.push(room_revision);
            if missed.iter().filter(|revision| **revision == room_revision).count() == 3 {
                let problem = "missing, though the room is there";
                return Err(Error::corrupt(Bucket::Members.name(), incarnation.head(), problem));
            }
        }
    }

    /// All members of a view's room; `None` if the room has changed since.
    pub(super) async fn roster(
        &self,
        view: &View,
        deadline: Instant,
    ) -> Result<Option<Roster>, Error> {
        let prefix = view.incarnation.roster(&view.head.generation);
        let head = view.incarnation.head();
        let mut parts = Parts::for_count(view.head.count.saturating_add(view.head.ended));
        let snapshots = loop {
            let reads = parts.filters(&prefix).into_iter().map(|filter| {
                let filters = [filter, head.clone()];
                async move {
                    // A state with this head has everything that was stored with the head.
                    let fresh = Fresh::Since(view.revision);
                    self.gateway.read(Bucket::Members, &filters, fresh, deadline).await
                }
            });
            match future::try_join_all(reads).await {
                Ok(snapshots) => break snapshots,
                Err(ReadError::TooMany) if let Some(finer) = parts.finer() => parts = finer,
                Err(error) => return Err(few(Bucket::Members, error)),
            }
        };
        let mut roster = Roster::new();
        for snapshot in snapshots {
            // The content counts, too: servers that lost messages give out the same sequences again.
            let same = |entry: &Entry| {
                entry.sequence == view.revision
                    && head_record(entry).is_ok_and(|head| head.as_ref() == Some(&view.head))
            };
            if !snapshot.find(&head).is_some_and(same) {
                return Ok(None);
            }
            for entry in snapshot.entries.iter().filter(|entry| entry.key != head) {
                let endpoint = bucket_key::parse_member(&entry.key).ok_or_else(|| {
                    let problem = "a key that this program does not write";
                    Error::corrupt(Bucket::Members.name(), &*entry.key, problem)
                })?;
                if let Some(record) = member_record(entry).transpose() {
                    roster.insert(endpoint, record);
                }
            }
        }
        if u64::try_from(roster.len()) != Ok(view.head.count) {
            let (found, count) = (roster.len(), view.head.count);
            let problem = format!("says {count} members, but there are {found}");
            return Err(Error::corrupt(Bucket::Members.name(), head, problem));
        }
        Ok(Some(roster))
    }

    /// Commits a change in one atomic batch if the incarnation has not changed since the view. `false`: the change was
    /// not made and never will be.
    pub(super) async fn commit(
        &self,
        change: Change<'_>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let Change { view, head, mut puts } = change;
        let planned = head.changes.clone();
        let key = view.incarnation.head();
        // The head comes last: if a reader ever saw a part of a batch, the head's count would make that `Corrupt`.
        let mut put = put(Bucket::Members, key.clone(), &head)?;
        if !self.is(JetStreamDefect::ExpectsNothing) {
            put = put.expecting(view.revision);
        }
        puts.push(put);
        let mut doubt = false;
        let mut pause = Pause::new(deadline);
        loop {
            let sent = match puts.as_slice() {
                // On one replica each batch costs the server a directory on disk.
                [head] => self.gateway.publish(Bucket::Members, head.clone(), deadline).await,
                all => self.gateway.batch(Bucket::Members, all.to_vec(), deadline).await,
            };
            let error = match sent {
                Ok(_) => return Ok(true),
                Err(WriteError::Failed(error)) if !doubt => return Err(error),
                Err(WriteError::Refused) if doubt && self.is(JetStreamDefect::RepeatsInDoubt) => {
                    return Ok(false);
                }
                Err(WriteError::Refused) => Error::Timeout,
                Err(WriteError::Failed(error) | WriteError::Unknown(error)) => {
                    doubt = true;
                    error
                }
            };
            if doubt && self.is(JetStreamDefect::RepeatsInDoubt) {
                pause.after(error).await.map_err(in_doubt)?;
                continue;
            }
            // A refusal proves nothing: it may be a former leader's, or the answer to a second copy of the message.
            let filters = [key.clone()];
            let now = self.read_few(Bucket::Members, &filters, deadline).await;
            let now = if doubt { now.map_err(in_doubt)? } else { now? };
            // If there is no head, the room was deleted long ago, and later rooms of the id, too.
            let now = now.find(&key).map(head_changes).transpose()?;
            match now.map_or(Fate::Unknown, |changes| changes.fate_of(&planned)) {
                Fate::Done => return Ok(true),
                Fate::Lost => return Ok(false),
                Fate::Unknown => return Err(Error::Timeout),
                Fate::Open => {}
            }
            let paused = pause.after(error).await;
            paused.map_err(|error| if doubt { in_doubt(error) } else { error })?;
        }
    }

    /// Starts background work with a long call's deadline.
    pub(super) fn chore<F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>, Instant) -> F)
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let deadline = Instant::now() + self.op_timeout * 10;
        self.chores.spawn(work(Arc::clone(self), deadline));
    }
}

/// An error during the search for a write's outcome leaves the outcome unknown.
pub(super) fn in_doubt(error: Error) -> Error {
    if error.outcome_unknown() { error } else { Error::unavailable(error) }
}

pub(super) fn few(bucket: Bucket, error: ReadError) -> Error {
    match error {
        ReadError::Failed(error) | ReadError::Late(error) => error,
        ReadError::TooMany => Error::unavailable(format!(
            "{bucket} holds more under one key than can be read at once"
        )),
    }
}

/// The head; `None` for the tombstone of a deleted room's head.
pub(super) fn head_record(entry: &Entry) -> Result<Option<Head>, Error> {
    if entry.removal { Ok(None) } else { open(Bucket::Members, entry).map(Some) }
}

/// The changes of an incarnation, also of a deleted room.
fn head_changes(entry: &Entry) -> Result<Changes, Error> {
    if entry.removal {
        open::<HeadGone>(Bucket::Members, entry).map(|gone| gone.changes)
    } else {
        open::<Head>(Bucket::Members, entry).map(|head| head.changes)
    }
}

pub(super) fn occupant(entry: &Entry) -> Result<Occupant, Error> {
    if entry.removal {
        let gone = open(Bucket::Rooms, entry)?;
        return Ok(Occupant::Nobody(entry.sequence, Some(gone)));
    }
    Ok(Occupant::Room(open(Bucket::Rooms, entry)?, entry.sequence))
}
