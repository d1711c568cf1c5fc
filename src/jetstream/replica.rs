//! All users, in memory: a copy of the bucket `users`, kept by its feed.
//!
//! The copy by itself proves nothing (a quiet feed may be a dead one). It is asked only after it
//! has reached the sequence of a barrier that began after the question did.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
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
    kick: std::sync::OnceLock<std::sync::Arc<Notify>>,
}

impl Replica {
    pub(super) fn set_kick(&self, kick: std::sync::Arc<Notify>) {
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

    fn read(&self) -> Result<RwLockReadGuard<'_, Copy>, Error> {
        self.copy
            .read()
            .map_err(|_| Error::unavailable("a thread panicked while it changed the copy of users"))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Copy> {
        self.copy.write().unwrap_or_else(PoisonError::into_inner)
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
        let (admins, _) = self.admins()?;
        let copy = self.read()?;
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

    fn entry(&self, entry: Entry) {
        let Entry { key, sequence, removal, value } = entry;
        let mut copy = self.write();
        if let Some(user) = key::parse_user(&key) {
            let record = if removal {
                Err(removed(&key))
            } else {
                // Everything of it is checked once, here.
                codec::open_record::<UserRecord>(Bucket::Users, &key, &value)
                    .and_then(|record| record.user(&user).map(|_| record))
            };
            let active = record.as_ref().is_ok_and(|record| record.admin && !record.revoked);
            if active {
                copy.active.insert(user)
            } else {
                copy.active.remove(&user)
            };
            if record.is_err() {
                copy.corrupt.insert(user)
            } else {
                copy.corrupt.remove(&user)
            };
            let standing = record.as_ref().ok();
            let standing = standing.map(|r| Standing { admin: r.admin, revoked: r.revoked });
            copy.standings.insert(user, standing);
            copy.users.insert(user, (sequence, record));
        } else if key == key::ADMINS {
            let record = if removal {
                Err(removed(&key))
            } else {
                codec::open_record(Bucket::Users, &key, &value)
            };
            copy.admins = Some((sequence, record));
        } else if key != key::BARRIER && key != key::FORMAT {
            let problem = "a key that this program does not write";
            copy.strange = Some(Error::corrupt(Bucket::Users.name(), key, problem));
        }
        drop(copy);
        self.position.store(sequence, Ordering::Release);
        self.moved.notify_waiters();
    }

    fn position(&self) -> u64 {
        Replica::position(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Label, Timestamp};

    fn user(key: UserKey) -> User {
        User {
            key,
            label: Label::new("ann").unwrap(),
            admin: true,
            revoked: false,
            added_at: Timestamp::from_millis(1),
            revoked_at: None,
        }
    }

    fn entry(sequence: u64, key: &str, value: &[u8], removal: bool) -> Entry {
        Entry { key: key.to_owned(), sequence, removal, value: value.to_vec().into() }
    }

    fn stored(sequence: u64, user: &User) -> Entry {
        let key = key::user(&user.key);
        let record = UserRecord::new(user, "w");
        let value = codec::seal_record(Bucket::Users, &key, &record).unwrap();
        entry(sequence, &key, &value, false)
    }

    #[test]
    fn a_damaged_or_removed_record_is_corrupt_and_no_other_is() {
        let replica = Replica::default();
        let [a, b, c] = [1, 2, 3].map(|n| UserKey::from_bytes([n; 32]));
        replica.entry(stored(1, &user(a)));
        replica.entry(entry(2, &b.to_string(), b"by hand", false));
        replica.entry(entry(3, &c.to_string(), b"", true));
        assert!(replica.standing(&a).unwrap().is_some_and(|s| s.admin));
        assert!(matches!(replica.standing(&b), Err(Error::Corrupt(_))));
        assert!(matches!(replica.standing(&c), Err(Error::Corrupt(_))));
        assert!(matches!(replica.users(&Page::first()), Err(Error::Corrupt(_))));
        assert_eq!(replica.users(&Page::new(None, 1).unwrap()).unwrap(), [user(a)]);
        assert_eq!(replica.position(), 3);
    }

    #[test]
    fn a_strange_key_makes_every_listing_corrupt() {
        let replica = Replica::default();
        replica.entry(entry(1, "nobody", b"", false));
        assert!(matches!(replica.users(&Page::first()), Err(Error::Corrupt(_))));
    }

    #[test]
    fn a_reset_forgets_everything() {
        let replica = Replica::default();
        let a = UserKey::from_bytes([1; 32]);
        replica.entry(stored(7, &user(a)));
        replica.reset();
        assert_eq!(replica.position(), 0);
        assert_eq!(replica.standing(&a), Ok(None));
    }
}
