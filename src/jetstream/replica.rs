//! All users, in memory: a copy of the bucket `users`, kept by its feed.
//!
//! The copy by itself proves nothing (a quiet feed may be a dead one). It is asked only after it
//! has reached the sequence of a barrier that began after the question did.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::decision::Standing;
use crate::jetstream::bucket::Bucket;
use crate::jetstream::gateway::{Entry, FeedSink};
use crate::jetstream::record::{Admins, UserRecord};
use crate::jetstream::{codec, key};
use crate::{Error, Page, User, UserKey};

/// How long the feed may lag behind a barrier before it is made anew.
const LAG: Duration = Duration::from_millis(400);

/// A record and the sequence it stands at.
type Held<T> = (u64, Result<T, Error>);

#[derive(Default)]
struct Copy {
    users: BTreeMap<UserKey, Held<UserRecord>>,
    /// What decisions need of the same users, small and found in one step; `None` for one whose
    /// record cannot be read.
    standings: HashMap<UserKey, Option<Standing>>,
    admins: Option<Held<Admins>>,
    /// The users that are admins and not revoked.
    active: BTreeSet<UserKey>,
    /// The users whose records cannot be read.
    corrupt: BTreeSet<UserKey>,
    /// A key that nobody of us wrote: what it was meant for cannot be told.
    strange: Option<Error>,
    /// What came and does not make a whole state yet.
    held: Vec<Arrived>,
    /// Something was left out that was replaced by what is to come.
    skipped: bool,
}

/// The copy.
#[derive(Default)]
pub(super) struct Replica {
    /// A std lock: nothing awaits under it. Poisoned, it denies (clause AUTH-2).
    copy: RwLock<Copy>,
    /// The sequence up to which the copy has everything; 0 while it begins anew.
    position: AtomicU64,
    moved: Notify,
    /// Who writes into the copy is told to listen anew.
    kick: OnceLock<Arc<Notify>>,
}

impl Replica {
    pub(super) fn set_kick(&self, kick: Arc<Notify>) {
        let _ = self.kick.set(kick);
    }

    /// Has the feed begin anew.
    pub(super) fn kick(&self) {
        if let Some(kick) = self.kick.get() {
            kick.notify_one();
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Waits until the copy has everything up to a sequence.
    pub(super) async fn reach(&self, sequence: u64, by: Instant) -> Result<(), Error> {
        let mut patience = Instant::now() + LAG;
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.position() >= sequence {
                return Ok(());
            }
            if timeout_at(by.min(patience), moved).await.is_err() {
                if Instant::now() >= by {
                    return Err(Error::Timeout);
                }
                self.kick();
                // Reading the whole bucket again takes its time.
                patience = Instant::now() + 5 * LAG;
            }
        }
    }

    /// The copy as it is from a sequence on that it has reached.
    pub(super) fn since(&self, sequence: u64) -> Seen<'_> {
        Seen { replica: self, sequence }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Copy> {
        self.copy.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The copy, for as long as it has everything up to a sequence.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    replica: &'a Replica,
    sequence: u64,
}

impl Seen<'_> {
    fn read(&self) -> Result<RwLockReadGuard<'_, Copy>, Error> {
        let copy = self.replica.copy.read().map_err(|_| {
            Error::unavailable("a thread panicked while it changed the copy of users")
        })?;
        // Under the lock: the copy may have begun anew since it had reached the sequence.
        if self.replica.position() < self.sequence {
            return Err(Error::unavailable("the copy of users begins anew"));
        }
        Ok(copy)
    }

    pub(super) fn standing(&self, key: &UserKey) -> Result<Option<Standing>, Error> {
        let copy = self.read()?;
        match copy.standings.get(key) {
            None => Ok(None),
            Some(Some(standing)) => Ok(Some(*standing)),
            Some(None) => match copy.users.get(key) {
                Some((_, Err(error))) => Err(error.clone()),
                _ => Err(Error::unavailable("the copy of users disagrees with itself")),
            },
        }
    }

    /// A user's record and its revision; `None` and 0 where there is none.
    pub(super) fn user(&self, key: &UserKey) -> Result<(Option<UserRecord>, u64), Error> {
        match self.read()?.users.get(key) {
            None => Ok((None, 0)),
            Some((sequence, record)) => Ok((Some(record.clone()?), *sequence)),
        }
    }

    /// The record of admins and its revision; `None` and 0 where there is none.
    pub(super) fn admins(&self) -> Result<(Option<Admins>, u64), Error> {
        match &self.read()?.admins {
            None => Ok((None, 0)),
            Some((sequence, record)) => Ok((Some(record.clone()?), *sequence)),
        }
    }

    /// Whether there is an active admin other than `except`; an error where that hangs on a record
    /// that cannot be read.
    pub(super) fn has_admin(&self, except: Option<&UserKey>) -> Result<bool, Error> {
        let copy = self.read()?;
        let admins = copy.admins.as_ref().map(|(_, record)| record.clone()).transpose()?;
        if copy.active.iter().any(|user| Some(user) != except) {
            return Ok(true);
        }
        let corrupt = copy.corrupt.iter().find_map(|user| copy.users.get(user));
        if let Some((_, Err(error))) = corrupt {
            return Err(error.clone());
        }
        let counted = admins.map_or(0, |admins| admins.active);
        if u64::try_from(copy.active.len()) != Ok(counted) {
            let problem = format!("counts {counted} active admins, but there are others");
            return Err(Error::corrupt(Bucket::Users.name(), key::ADMINS, problem));
        }
        Ok(false)
    }

    pub(super) fn users(&self, page: &Page<UserKey>) -> Result<Vec<User>, Error> {
        let copy = self.read()?;
        if let Some(error) = &copy.strange {
            return Err(error.clone());
        }
        let start = page.after().map_or(Bound::Unbounded, Bound::Excluded);
        let users = copy.users.range((start, Bound::Unbounded)).take(page.limit());
        users.map(|(key, (_, record))| record.clone()?.user(key)).collect()
    }
}

fn removed(key: &str) -> Error {
    let problem = "removed by hand: a user is revoked, never removed";
    Error::corrupt(Bucket::Users.name(), key, problem)
}

impl FeedSink for Replica {
    fn reset(&self) {
        self.position.store(0, Ordering::Release);
        *self.write() = Copy::default();
        // A panic left the copy half-written; it begins anew, so it may be trusted again.
        self.copy.clear_poison();
    }

    /// What comes counts as soon as it makes a state that the bucket was in, and all of it at one
    /// moment.
    ///
    /// A bucket keeps the newest message of a key. So between a message and the next one that
    /// comes, another may be missing, because it was replaced since: by one that is still to come.
    /// (A user would be unknown who was added before the barrier and revoked after it.) Only with
    /// nothing missing, or nothing more to come, is a state whole. And an admin is written in one
    /// batch with the record of admins, which comes after.
    fn entry(&self, entry: Entry, more: bool) {
        // Everything is checked once, here.
        let arrived = Arrived::from(entry);
        let sequence = arrived.sequence;
        let mut copy = self.write();
        // The feed may have begun anew, from where the copy stands.
        copy.held.retain(|held| held.sequence < sequence);
        let before = copy.held.last().map_or(self.position(), |held| held.sequence);
        copy.skipped = more && (copy.skipped || sequence != before + 1);
        let half = arrived.is_an_admin();
        copy.held.push(arrived);
        if copy.skipped || half {
            return;
        }
        for held in std::mem::take(&mut copy.held) {
            copy.take(held);
        }
        drop(copy);
        self.position.store(sequence, Ordering::Release);
        self.moved.notify_waiters();
    }

    fn position(&self) -> u64 {
        Replica::position(self)
    }
}

/// An entry, read.
struct Arrived {
    sequence: u64,
    what: What,
}

enum What {
    User(UserKey, Result<UserRecord, Error>),
    Admins(Result<Admins, Error>),
    /// A barrier, or the format.
    Nothing,
    Strange(Error),
}

impl From<Entry> for Arrived {
    fn from(entry: Entry) -> Self {
        let Entry { key, sequence, removal, value } = entry;
        let what = if let Some(user) = key::parse_user(&key) {
            let record = if removal {
                Err(removed(&key))
            } else {
                codec::open_record::<UserRecord>(Bucket::Users, &key, &value)
                    .and_then(|record| record.user(&user).map(|_| record))
            };
            What::User(user, record)
        } else if key == key::ADMINS {
            What::Admins(if removal {
                Err(removed(&key))
            } else {
                codec::open_record(Bucket::Users, &key, &value)
            })
        } else if key::is_barrier(&key) || key == key::FORMAT {
            What::Nothing
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

impl Copy {
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
                self.standings.insert(user, standing);
                self.users.insert(user, (sequence, record));
            }
            What::Admins(record) => self.admins = Some((sequence, record)),
            What::Nothing => {}
            What::Strange(error) => self.strange = Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Label, NewUser, Timestamp};

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

    /// A change of one admin: his record, and the one of all of them.
    fn batch(sequence: u64, key: &UserKey, record: &UserRecord, active: u64) -> [Entry; 2] {
        let admins = Admins { active };
        let value = codec::seal_record(Bucket::Users, key::ADMINS, &admins).unwrap();
        [stored(sequence, key, record), entry(sequence + 1, key::ADMINS, &value, false)]
    }

    fn stored(sequence: u64, key: &UserKey, record: &UserRecord) -> Entry {
        let key = key::user(key);
        let value = codec::seal_record(Bucket::Users, &key, record).unwrap();
        entry(sequence, &key, &value, false)
    }

    #[test]
    fn a_damaged_or_removed_record_is_corrupt_and_no_other_is() {
        let replica = Replica::default();
        let [a, b, c] = [1, 2, 3].map(|n| UserKey::from_bytes([n; 32]));
        for entry in batch(1, &a, &record(&user(a)), 1) {
            replica.entry(entry, false);
        }
        replica.entry(entry(3, &b.to_string(), b"by hand", false), false);
        replica.entry(entry(4, &c.to_string(), b"", true), false);
        assert!(replica.since(0).standing(&a).unwrap().is_some_and(|s| s.admin));
        assert!(matches!(replica.since(0).standing(&b), Err(Error::Corrupt(_))));
        assert!(matches!(replica.since(0).standing(&c), Err(Error::Corrupt(_))));
        assert!(matches!(replica.since(0).users(&Page::first()), Err(Error::Corrupt(_))));
        assert_eq!(replica.since(0).users(&Page::new(None, 1).unwrap()).unwrap(), [user(a).user()]);
        assert_eq!(replica.position(), 4);
    }

    #[test]
    fn a_strange_key_makes_every_listing_corrupt() {
        let replica = Replica::default();
        replica.entry(entry(1, "nobody", b"", false), false);
        assert!(matches!(replica.since(0).users(&Page::first()), Err(Error::Corrupt(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_that_lags_is_told_to_begin_anew() {
        let (replica, kick) = (Replica::default(), Arc::new(Notify::new()));
        replica.set_kick(Arc::clone(&kick));
        let begun = Instant::now();
        let told = async {
            kick.notified().await;
            begun.elapsed()
        };
        let (reached, told) = tokio::join!(replica.reach(1, begun + 3 * LAG), told);
        assert_eq!((reached, told, begun.elapsed()), (Err(Error::Timeout), LAG, 3 * LAG));

        // What is there is waited for by nobody.
        replica.entry(entry(1, key::FORMAT, b"", false), false);
        assert_eq!(replica.reach(1, begun).await, Ok(()));
    }

    #[test]
    fn a_reset_forgets_everything() {
        let replica = Replica::default();
        let a = UserKey::from_bytes([1; 32]);
        for entry in batch(7, &a, &record(&user(a)), 1) {
            replica.entry(entry, false);
        }
        assert_eq!(replica.position(), 8);
        let seen = replica.since(8);
        assert!(seen.standing(&a).unwrap().is_some());
        replica.reset();
        assert_eq!(replica.position(), 0);
        assert_eq!(replica.since(0).standing(&a), Ok(None));
        // Whoever has waited for the old one must not take the new one for it.
        assert!(matches!(seen.standing(&a), Err(Error::Unavailable(_))));
        assert!(matches!(seen.user(&a), Err(Error::Unavailable(_))));
        assert!(matches!(seen.admins(), Err(Error::Unavailable(_))));
        assert!(matches!(seen.has_admin(None), Err(Error::Unavailable(_))));
        assert!(matches!(seen.users(&Page::first()), Err(Error::Unavailable(_))));
    }

    #[test]
    fn a_change_of_admins_counts_when_both_halves_of_it_are_there() {
        let replica = Replica::default();
        let [a, b] = [1, 2].map(|n| UserKey::from_bytes([n; 32]));
        for entry in batch(1, &a, &record(&user(a)), 1) {
            replica.entry(entry, false);
        }
        for entry in batch(3, &b, &record(&user(b)), 2) {
            replica.entry(entry, false);
        }
        let gone = record(&user(b)).revoke(Timestamp::from_millis(2), "v");
        let [first, second] = batch(5, &b, &gone, 1);
        replica.entry(first.clone(), false);
        assert_eq!(replica.position(), 4);
        assert_eq!(replica.since(0).has_admin(Some(&a)), Ok(true));
        // In between, and the first half once more: the feed began anew.
        replica.entry(entry(7, key::BARRIER, b"", false), true);
        replica.entry(first, true);
        assert_eq!(replica.position(), 4);
        replica.entry(Entry { sequence: 9, ..second }, false);
        assert_eq!(replica.position(), 9);
        assert_eq!(replica.since(0).has_admin(Some(&a)), Ok(false));
        assert_eq!(replica.since(0).standing(&b).unwrap().map(|s| s.revoked), Some(true));
    }

    #[test]
    fn nothing_counts_while_something_is_missing_that_is_still_to_come() {
        let replica = Replica::default();
        let [a, b] = [1, 2].map(|n| UserKey::from_bytes([n; 32]));
        let user = |key| record(&NewUser { admin: false, ..user(key) });
        replica.entry(entry(1, key::FORMAT, b"", false), true);
        // One of `a` stood here.
        replica.entry(stored(3, &b, &user(b)), true);
        replica.entry(entry(4, key::BARRIER, b"", false), true);
        assert_eq!(replica.position(), 1);
        assert_eq!(replica.since(0).standing(&b), Ok(None));
        replica.entry(stored(5, &a, &user(a)), false);
        assert_eq!(replica.position(), 5);
        assert!(replica.since(0).standing(&a).unwrap().is_some());
        // From there on nothing is missing, however much there is to come.
        replica.entry(stored(6, &b, &user(b)), true);
        assert_eq!(replica.position(), 6);
    }
}
