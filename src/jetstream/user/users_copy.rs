//! The copy of users: the bucket `users` in memory, kept by a feed.
//!
//! The copy alone proves nothing, since its feed may have stopped. A call reads the copy only after the feed has
//! delivered a barrier that was sent after the call began. The barrier is recognized by its number and not by its
//! sequence: servers that lost messages assign the same sequences again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::pin::pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::decision::Standing;
use crate::jetstream::gateway::exchange::{Anchor, Entry, FeedSink, Passed};
use crate::jetstream::gateway::tries::barrier_number;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::user_records::{Admins, UserRecord};
use crate::jetstream::stored::{bucket_key, codec, format};
use crate::trace::event;
use crate::{Error, Page, User, UserKey};

/// How long a caller of a barrier waits for a delivery before it asks for another consumer.
const LAG: Duration = Duration::from_millis(400);

/// A record and its sequence.
type Held<T> = (u64, Result<T, Error>);

#[derive(Default)]
pub(in crate::jetstream) struct Contents {
    users: BTreeMap<UserKey, Held<UserRecord>>,
    /// The part of each user that decisions need, so that one look-up finds it. `None` if the user's record cannot be
    /// decoded.
    standings: HashMap<UserKey, Option<Standing>>,
    admins: Option<Held<Admins>>,
    /// The store's id, from the bucket's first message.
    store: Option<Held<String>>,
    /// The active admins.
    active: BTreeSet<UserKey>,
    /// The users whose records cannot be decoded.
    corrupt: BTreeSet<UserKey>,
    /// The error for a key in the bucket that no store writes.
    strange: Option<Error>,
    /// The first half of a batch: an admin's record, held back until the batch's `=admins` comes.
    half: Option<Arrived>,
    /// The newest message that is no barrier.
    anchor: Option<Anchor>,
    /// The newest delivered barrier of this client, in each lane.
    passed: HashMap<String, Passed>,
    /// How many users arrived as revoked and were unknown before. They were added and revoked before the feed could deliver
    /// the addition, so the copy lacked them for a while.
    gaps: u64,
    /// The sequence up to which all messages have been delivered.
    position: u64,
}

/// The copy of users, and the means to wait for it.
#[derive(Default)]
pub(in crate::jetstream) struct UsersCopy {
    /// The id of the client's store.
    store: String,
    /// A std lock, never held across an await. If it is poisoned, decisions deny (clause AUTH-2).
    copy: RwLock<Versioned>,
    moved: Notify,
    /// Notified when the copy begins anew; one task waits for it.
    anew: Notify,
    /// Notifies the feed to make another consumer.
    kick: OnceLock<Arc<Notify>>,
}

#[derive(Default)]
struct Versioned {
    copy: Contents,
    /// The number of the copy's life. A new life begins when the copy begins anew or gets another consumer, and a proof
    /// from an earlier life does not count.
    life: u64,
}

/// The life of the copy in which it received a barrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::jetstream) struct CopyLife {
    life: u64,
}

#[cfg(test)]
impl CopyLife {
    /// Makes the life with this number.
    pub(super) fn in_life(life: u64) -> Self {
        Self { life }
    }
}

impl UsersCopy {
    /// Makes an empty copy of the users of the store with this id.
    pub(in crate::jetstream) fn of(store: String) -> Self {
        Self { store, ..Self::default() }
    }

    /// The id of the client's store.
    pub(in crate::jetstream) fn store(&self) -> &str {
        &self.store
    }

    /// Fails if the bucket is known to belong to another store.
    pub(in crate::jetstream) fn is_ours(&self) -> Result<(), Error> {
        match &self.copy.read().map_err(|_| poisoned())?.copy.store {
            Some((_, Ok(store))) if *store != self.store => Err(replaced()),
            _ => Ok(()),
        }
    }

    /// Returns [`Contents::format_revision`] of the copy, without a proof.
    pub(super) fn format_revision(&self) -> u64 {
        self.copy.read().map_or(0, |held| held.copy.format_revision())
    }

    pub(in crate::jetstream) fn set_kick(&self, kick: Arc<Notify>) {
        let _ = self.kick.set(kick);
    }

    /// Asks the feed for another consumer.
    pub(super) fn kick(&self) {
        event!(users: debug, "the copy asks for another consumer");
        if let Some(kick) = self.kick.get() {
            kick.notify_one();
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.copy.read().map_or(0, |held| held.copy.position)
    }

    /// Waits until the copy begins anew or gets another consumer. Returns at once if that happened since the last wait.
    pub(in crate::jetstream) async fn begins_anew(&self) {
        self.anew.notified().await;
    }

    /// Waits until the copy has everything up to a barrier.
    pub(super) async fn reach(&self, passed: Passed, deadline: Instant) -> Result<CopyLife, Error> {
        let mut patience = Instant::now() + LAG;
        let mut before = 0;
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            if let Ok(reached) = self.reached(passed) {
                return Ok(reached);
            }
            let position = self.position();
            if position != before {
                // The copy advances, and loading a large bucket takes long. So the feed is left alone.
                before = position;
                patience = Instant::now() + LAG;
            }
            if timeout_at(deadline.min(patience), moved).await.is_err() {
                if Instant::now() >= deadline {
                    return Err(Error::Timeout);
                }
                self.kick();
                patience = Instant::now() + 5 * LAG;
            }
        }
    }

    /// Returns the life of the copy, if the copy has received this barrier in it.
    pub(super) fn reached(&self, passed: Passed) -> Result<CopyLife, Error> {
        let held = self.copy.read().map_err(|_| poisoned())?;
        // A later one may have replaced it before it was delivered.
        let there = held.copy.passed.values().any(|newest| newest.covers(passed));
        let anew = || Error::unavailable("the copy of users begins anew");
        there.then_some(CopyLife { life: held.life }).ok_or_else(anew)
    }

    /// Gives access to the copy for as long as it is in this life.
    pub(in crate::jetstream) fn since(&self, reached: CopyLife) -> Seen<'_> {
        Seen { users_copy: self, reached: Some(reached) }
    }

    /// Gives access to the copy without a proof that it is fresh.
    pub(in crate::jetstream) fn unproved(&self) -> Seen<'_> {
        Seen { users_copy: self, reached: None }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Versioned> {
        self.copy.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error after another store's buckets replaced those of this store. The new data are no past of this store. A
/// client that was opened before must not make a first admin there (clause PAST-3).
fn replaced() -> Error {
    Error::unavailable("the buckets were replaced by another store's: open the store again")
}

fn poisoned() -> Error {
    Error::unavailable("a thread panicked while it changed the copy of users")
}

/// Access to the copy. If it was given for one life of the copy, it ends with that life.
#[derive(Clone, Copy)]
pub(in crate::jetstream) struct Seen<'a> {
    users_copy: &'a UsersCopy,
    reached: Option<CopyLife>,
}

/// A read lock on the copy. The lock is never held across an await.
pub(in crate::jetstream) struct Look<'a>(RwLockReadGuard<'a, Versioned>);

impl std::ops::Deref for Look<'_> {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.0.copy
    }
}

impl Seen<'_> {
    /// Returns the copy, locked. Facts that one decision combines must be read under one lock.
    pub(in crate::jetstream) fn look(&self) -> Result<Look<'_>, Error> {
        let held = self.users_copy.copy.read().map_err(|_| poisoned())?;
        // The life is compared under the lock, since the copy may have begun anew since it received the barrier.
        if self.reached.is_some_and(|reached| reached.life != held.life) {
            return Err(Error::unavailable("the copy of users begins anew"));
        }
        if self.reached.is_none() {
            return Ok(Look(held));
        }
        match &held.copy.store {
            Some((_, Ok(store))) if *store == self.users_copy.store => Ok(Look(held)),
            Some((_, Ok(_))) => Err(replaced()),
            Some((_, Err(error))) => Err(error.clone()),
            None => {
                let problem = "the copy of users has not heard yet whose the bucket is";
                Err(Error::unavailable(problem))
            }
        }
    }
}

impl Contents {
    pub(in crate::jetstream) fn standing(&self, key: &UserKey) -> Result<Option<Standing>, Error> {
        match self.standings.get(key) {
            None => Ok(None),
            Some(Some(standing)) => Ok(Some(*standing)),
            Some(None) => match self.users.get(key) {
                Some((_, Err(error))) => Err(error.clone()),
                _ => Err(Error::unavailable("the copy of users disagrees with itself")),
            },
        }
    }

    /// Returns a user's record and its revision; `None` and 0 if the copy has no such user.
    pub(super) fn user(&self, key: &UserKey) -> Result<(Option<UserRecord>, u64), Error> {
        match self.users.get(key) {
            None => Ok((None, 0)),
            Some((sequence, record)) => Ok((Some(record.clone()?), *sequence)),
        }
    }

    /// Returns `=admins` and its revision; `None` and 0 if the copy has none.
    pub(super) fn admins(&self) -> Result<(Option<Admins>, u64), Error> {
        match &self.admins {
            None => Ok((None, 0)),
            Some((sequence, record)) => Ok((Some(record.clone()?), *sequence)),
        }
    }

    /// Returns the revision of `=format`; 0 if it was not delivered yet.
    pub(super) fn format_revision(&self) -> u64 {
        self.store.as_ref().map_or(0, |(sequence, _)| *sequence)
    }

    /// Whether there is an active admin other than `except`. Fails if the answer depends on a record that cannot be
    /// decoded.
    pub(super) fn has_admin(&self, except: Option<&UserKey>) -> Result<bool, Error> {
        let admins = self.admins.as_ref().map(|(_, record)| record.clone()).transpose()?;
        if self.active.iter().any(|user| Some(user) != except) {
            return Ok(true);
        }
        let corrupt = self.corrupt.iter().find_map(|user| self.users.get(user));
        if let Some((_, Err(error))) = corrupt {
            return Err(error.clone());
        }
        let counted = admins.map_or(0, |admins| admins.active);
        if u64::try_from(self.active.len()) != Ok(counted) {
            let problem = format!("counts {counted} active admins, but there are others");
            return Err(Error::corrupt(Bucket::Users.name(), bucket_key::ADMINS, problem));
        }
        Ok(false)
    }

    /// Returns how many users the copy has lacked for a while, so far.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Returns a page of users, and [`gaps`](Self::gaps) at that moment.
    pub(super) fn users(&self, page: &Page<UserKey>) -> Result<(Vec<User>, u64), Error> {
        if let Some(error) = &self.strange {
            return Err(error.clone());
        }
        let start = page.after().map_or(Bound::Unbounded, Bound::Excluded);
        let users = self.users.range((start, Bound::Unbounded)).take(page.limit());
        let users = users.map(|(key, (_, record))| record.clone()?.user(key));
        Ok((users.collect::<Result<_, _>>()?, self.gaps))
    }
}

fn removed(key: &str) -> Error {
    let problem = "removed by hand: a user is revoked, never removed";
    Error::corrupt(Bucket::Users.name(), key, problem)
}

impl FeedSink for UsersCopy {
    fn reset(&self) {
        let mut held = self.write();
        held.copy = Contents::default();
        held.life += 1;
        // A panic may have left the copy half-written. The copy is empty now, so the lock's poison can be cleared.
        self.copy.clear_poison();
        self.anew.notify_one();
    }

    fn anchor(&self) -> Option<Anchor> {
        self.copy.read().ok().and_then(|held| held.copy.anchor)
    }

    fn resume(&self) {
        let mut held = self.write();
        held.life += 1;
        // The next consumer delivers the anchor and what follows it again.
        held.copy.position = 0;
        held.copy.passed.clear();
        held.copy.half = None;
        self.anew.notify_one();
    }

    /// Applies a delivered message. The bucket keeps only the newest message of a key. So a message that is replaced
    /// before its delivery is missing until the one that replaced it arrives, and callers confirm in the bucket that a
    /// record is absent.
    ///
    /// An admin's record and the next `=admins` are one batch, and are applied together.
    fn entry(&self, entry: Entry, stored: u64) {
        event!(users: trace, "delivered", key = entry.key, sequence = entry.sequence);
        let anchor = (!bucket_key::is_barrier(&entry.key)).then(|| Anchor::of(&entry, stored));
        // The checksum and the contents are checked once, here.
        let arrived = Arrived::from(entry);
        if matches!(&arrived.what, What::Format(Ok(store)) if *store != self.store) {
            event!(bucket: warn, "another store's buckets replaced this store's: every call fails");
        }
        let mut held = self.write();
        let copy = &mut held.copy;
        if arrived.sequence <= copy.position {
            return;
        }
        let half = copy.half.take();
        if arrived.is_an_admin() {
            if let Some(half) = half {
                copy.take(half);
            }
            copy.half = Some(arrived);
            return;
        }
        copy.position = arrived.sequence;
        copy.anchor = anchor.or(copy.anchor);
        for arrived in half.into_iter().chain([arrived]) {
            copy.take(arrived);
        }
        drop(held);
        self.moved.notify_waiters();
    }
}

/// A delivered message, decoded.
struct Arrived {
    sequence: u64,
    what: What,
}

enum What {
    User(UserKey, Result<UserRecord, Error>),
    Admins(Result<Admins, Error>),
    /// The store's id in `=format`.
    Format(Result<String, Error>),
    /// A barrier of this client: its key and its number. One without a number does not count.
    Barrier(String, Option<u64>),
    Strange(Error),
}

impl From<Entry> for Arrived {
    fn from(entry: Entry) -> Self {
        let number = barrier_number(&entry);
        let Entry { key, sequence, removal, value } = entry;
        let what = if let Some(user) = bucket_key::parse_user(&key) {
            let record = if removal {
                Err(removed(&key))
            } else {
                codec::open_record::<UserRecord>(Bucket::Users, &key, &value)
                    .and_then(|record| record.user(&user).map(|_| record))
            };
            What::User(user, record)
        } else if key == bucket_key::ADMINS {
            What::Admins(if removal {
                Err(removed(&key))
            } else {
                codec::open_record(Bucket::Users, &key, &value)
            })
        } else if bucket_key::is_barrier(&key) {
            What::Barrier(key, number)
        } else if key == bucket_key::FORMAT {
            What::Format(format::store_of(Bucket::Users, &value, removal))
        } else {
            let problem = "a key that this program does not write";
            What::Strange(Error::corrupt(Bucket::Users.name(), key, problem))
        };
        Self { sequence, what }
    }
}

impl Arrived {
    fn is_an_admin(&self) -> bool {
        matches!(&self.what, What::User(_, Ok(record)) if record.admin)
    }
}

impl Contents {
    fn take(&mut self, arrived: Arrived) {
        let Arrived { sequence, what } = arrived;
        match what {
            What::User(user, record) => {
                let standing = record.as_ref().ok();
                let standing =
                    standing.map(|r| Standing { admin: r.admin, revoked: r.revoked.is_some() });
                if standing.is_some_and(|standing| standing.admin && !standing.revoked) {
                    self.active.insert(user)
                } else {
                    self.active.remove(&user)
                };
                if record.is_err() {
                    self.corrupt.insert(user)
                } else {
                    self.corrupt.remove(&user)
                };
                let known = self.standings.insert(user, standing).is_some();
                self.gaps += u64::from(!known && standing.is_some_and(|standing| standing.revoked));
                self.users.insert(user, (sequence, record));
            }
            What::Admins(record) => self.admins = Some((sequence, record)),
            What::Format(store) => self.store = Some((sequence, store)),
            What::Barrier(lane, None) => drop(self.passed.remove(&lane)),
            What::Barrier(lane, Some(number)) => {
                self.passed.insert(lane, Passed { number, sequence });
            }
            What::Strange(error) => self.strange = Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::stored::format::FormatRecord;
    use crate::{Label, NewUser, Timestamp};

    const OWN: &str = "=barrier.me.0";

    fn user(key: UserKey) -> NewUser {
        let label = Label::new("ann").unwrap();
        NewUser { key, label, admin: true, added_at: Timestamp::from_millis(1) }
    }

    fn record(user: &NewUser) -> UserRecord {
        UserRecord::new(user, "w")
    }

    fn entry(sequence: u64, key: &str, value: &[u8], removal: bool) -> Entry {
        Entry { key: key.to_owned(), sequence, removal, value: value.to_vec().into() }
    }

    fn format(sequence: u64) -> Entry {
        format_of(sequence, "")
    }

    fn format_of(sequence: u64, store: &str) -> Entry {
        let record = FormatRecord::new(store.to_owned());
        let value = codec::seal_record(Bucket::Users, bucket_key::FORMAT, &record).unwrap();
        entry(sequence, bucket_key::FORMAT, &value, false)
    }

    /// The batch of a change of one admin: the admin's record and `=admins`.
    fn batch(sequence: u64, key: &UserKey, record: &UserRecord, active: u64) -> [Entry; 2] {
        let admins = Admins { active };
        let value = codec::seal_record(Bucket::Users, bucket_key::ADMINS, &admins).unwrap();
        [stored(sequence, key, record), entry(sequence + 1, bucket_key::ADMINS, &value, false)]
    }

    fn stored(sequence: u64, key: &UserKey, record: &UserRecord) -> Entry {
        let key = bucket_key::user(key);
        let value = codec::seal_record(Bucket::Users, &key, record).unwrap();
        entry(sequence, &key, &value, false)
    }

    /// Makes a copy that has received these messages.
    fn copy(entries: impl IntoIterator<Item = Entry>) -> UsersCopy {
        let users_copy = UsersCopy::default();
        for entry in entries {
            users_copy.entry(entry, 1);
        }
        users_copy
    }

    /// Delivers a barrier to the copy, and gives access to the copy behind it.
    fn now(users_copy: &UsersCopy) -> Seen<'_> {
        let passed = Passed { number: 1, sequence: users_copy.position() + 1 };
        users_copy.entry(entry(passed.sequence, OWN, b"1", false), 2);
        users_copy.since(users_copy.reached(passed).unwrap())
    }

    #[test]
    fn a_damaged_or_removed_record_is_corrupt_and_no_other_is() {
        let [a, b, c] = [1, 2, 3].map(|n| UserKey::from_bytes([n; 32]));
        let users_copy = copy(
            [format(1)]
                .into_iter()
                .chain(batch(2, &a, &record(&user(a)), 1))
                .chain([entry(4, &b.to_string(), b"by hand", false)])
                .chain([entry(5, &c.to_string(), b"", true)]),
        );
        let seen = now(&users_copy);
        assert!(seen.look().unwrap().standing(&a).unwrap().is_some_and(|s| s.admin));
        assert!(matches!(seen.look().unwrap().standing(&b), Err(Error::Corrupt(_))));
        assert!(matches!(seen.look().unwrap().standing(&c), Err(Error::Corrupt(_))));
        assert!(matches!(seen.look().unwrap().users(&Page::first()), Err(Error::Corrupt(_))));
        assert_eq!(
            seen.look().unwrap().users(&Page::new(None, 1).unwrap()).unwrap().0,
            [user(a).user()]
        );
    }

    #[test]
    fn a_strange_key_makes_every_listing_corrupt() {
        let users_copy = copy([format(1), entry(2, "nobody", b"", false)]);
        assert!(matches!(
            now(&users_copy).look().unwrap().users(&Page::first()),
            Err(Error::Corrupt(_))
        ));
    }

    #[test]
    fn nothing_is_answered_without_the_record_that_says_whose_the_bucket_is() {
        let users_copy = copy([]);
        assert!(matches!(now(&users_copy).look(), Err(Error::Unavailable(_))));
        let users_copy = copy([format(1), entry(2, bucket_key::FORMAT, b"", true)]);
        assert!(matches!(now(&users_copy).look(), Err(Error::Corrupt(_))));
    }

    #[test]
    fn nothing_is_answered_by_another_stores_bucket() {
        let users_copy = copy([format_of(1, "other")]);
        assert!(matches!(now(&users_copy).look(), Err(Error::Unavailable(_))));
        assert!(matches!(users_copy.is_ours(), Err(Error::Unavailable(_))));
        users_copy.reset();
        users_copy.entry(format(1), 1);
        assert!(now(&users_copy).look().is_ok());
        assert_eq!(users_copy.is_ours(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_that_delivers_nothing_is_told_to_begin_anew() {
        let (users_copy, kick) = (copy([format(1)]), Arc::new(Notify::new()));
        users_copy.set_kick(Arc::clone(&kick));
        let begun = Instant::now();
        let told = async {
            kick.notified().await;
            begun.elapsed()
        };
        let passed = Passed { number: 1, sequence: 2 };
        let (reached, told) = tokio::join!(users_copy.reach(passed, begun + 3 * LAG), told);
        assert_eq!((reached, told, begun.elapsed()), (Err(Error::Timeout), LAG, 3 * LAG));
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_that_gets_on_is_left_alone() {
        let (users_copy, kick) = (copy([format(1)]), Arc::new(Notify::new()));
        users_copy.set_kick(Arc::clone(&kick));
        let begun = Instant::now();
        let passed = Passed { number: 1, sequence: 20 };
        let deliveries = async {
            for n in 2..20 {
                tokio::time::sleep(LAG / 2).await;
                let user = UserKey::from_bytes([n; 32]);
                let record = record(&NewUser { admin: false, ..self::user(user) });
                users_copy.entry(stored(u64::from(n), &user, &record), 1);
            }
            users_copy.entry(entry(20, OWN, b"1", false), 1);
        };
        let (reached, ()) = tokio::join!(users_copy.reach(passed, begun + 100 * LAG), deliveries);
        assert!(reached.is_ok());
        let kicked = tokio::time::timeout(Duration::ZERO, kick.notified()).await;
        assert!(kicked.is_err(), "the feed was told to begin anew");
    }

    #[test]
    fn only_the_very_barrier_is_reached() {
        let users_copy = copy([format(1), entry(2, OWN, b"7", false)]);
        // The barrier itself, and a barrier before it that it replaced.
        for (number, sequence) in [(7, 2), (6, 1)] {
            assert!(users_copy.reached(Passed { number, sequence }).is_ok());
        }
        for (number, sequence) in [(8, 1), (8, 2), (8, 3), (7, 3)] {
            assert!(users_copy.reached(Passed { number, sequence }).is_err());
        }
    }

    #[test]
    fn a_user_who_was_revoked_before_the_addition_was_sent_is_a_gap() {
        let [a, b] = [1, 2].map(|n| UserKey::from_bytes([n; 32]));
        let [a, b] = [a, b].map(|key| NewUser { admin: false, ..user(key) });
        let gone = |user: &NewUser| record(user).revoke(Timestamp::from_millis(2), "v");
        let users_copy = copy([format(1), stored(2, &a.key, &record(&a))]);
        users_copy.entry(stored(3, &a.key, &gone(&a)), 1);
        assert_eq!(users_copy.unproved().look().unwrap().gaps(), 0);
        users_copy.entry(stored(5, &b.key, &gone(&b)), 1);
        assert_eq!(users_copy.unproved().look().unwrap().gaps(), 1);
    }

    #[test]
    fn a_reset_forgets_everything() {
        let a = UserKey::from_bytes([1; 32]);
        let users_copy = copy([format(6)].into_iter().chain(batch(7, &a, &record(&user(a)), 1)));
        let seen = now(&users_copy);
        assert!(seen.look().unwrap().standing(&a).unwrap().is_some());
        users_copy.reset();
        assert_eq!((users_copy.position(), users_copy.anchor()), (0, None));
        assert_eq!(users_copy.unproved().look().unwrap().standing(&a), Ok(None));
        // A call that has waited for the old copy must not use the new one.
        assert!(matches!(seen.look(), Err(Error::Unavailable(_))));
    }

    #[test]
    fn another_consumer_goes_on_from_the_newest_message_that_stays() {
        let a = UserKey::from_bytes([1; 32]);
        let messages = [format(1)].into_iter().chain(batch(2, &a, &record(&user(a)), 1));
        let users_copy = copy(messages);
        let passed = Passed { number: 1, sequence: 4 };
        users_copy.entry(entry(4, OWN, b"1", false), 1);
        let seen = users_copy.since(users_copy.reached(passed).unwrap());
        let [_, admins] = batch(2, &a, &record(&user(a)), 1);
        assert_eq!(users_copy.anchor(), Some(Anchor::of(&admins, 1)));
        assert_ne!(users_copy.anchor(), Some(Anchor::of(&admins, 2)), "stored at another time");
        users_copy.resume();
        // A proof by the former consumer proves nothing about the deliveries of the new one.
        assert!(matches!(seen.look(), Err(Error::Unavailable(_))));
        assert!(users_copy.reached(passed).is_err());
        users_copy.entry(admins, 1);
        users_copy.entry(entry(4, OWN, b"1", false), 1);
        let seen = users_copy.since(users_copy.reached(passed).unwrap());
        assert!(seen.look().unwrap().standing(&a).unwrap().is_some());
    }

    #[test]
    fn a_change_of_admins_counts_when_both_halves_of_it_are_there() {
        let [a, b] = [1, 2].map(|n| UserKey::from_bytes([n; 32]));
        let messages = [format(1)].into_iter().chain(batch(2, &a, &record(&user(a)), 1));
        let users_copy = copy(messages.chain(batch(4, &b, &record(&user(b)), 2)));
        let gone = record(&user(b)).revoke(Timestamp::from_millis(2), "v");
        let [first, second] = batch(6, &b, &gone, 1);
        users_copy.entry(first.clone(), 1);
        assert_eq!(users_copy.position(), 5);
        assert_eq!(users_copy.unproved().look().unwrap().has_admin(Some(&a)), Ok(true));
        // The message is delivered again, by another consumer that begins between the two halves.
        users_copy.entry(first, 1);
        assert_eq!(users_copy.position(), 5);
        users_copy.entry(second, 1);
        assert_eq!(users_copy.position(), 7);
        assert_eq!(users_copy.unproved().look().unwrap().has_admin(Some(&a)), Ok(false));
        assert_eq!(
            users_copy.unproved().look().unwrap().standing(&b).unwrap().map(|s| s.revoked),
            Some(true)
        );
    }
}
