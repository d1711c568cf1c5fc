//! Stores that are wrong after harm to their data, or while something older serves the data.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use async_trait::async_trait;
use membership::{
    Decision, DenyReason, EndpointId, Epoch, Error, MemoryStore, NewUser, Record, Room, RoomId,
    SealedKey, Store, Timestamp, User, UserKey,
};

use super::controls;
use super::defect::Defect;
use super::listings::locked;
use crate::observe::all_users;

controls! {
    believes_sequence_numbers unseen: "PAST-1", "decides from a client's copy of users while the data have fewer changes than the copy" => Copies<BELIEVES>;
    hands_on_its_copy unseen: "PAST-1", "decides from an earlier client's copy of users on a client that is opened later" => HandsOn;
    resumes_its_copy unseen: "PAST-1", "adds new users to a client's copy of users, and never removes lost ones" => Copies<RESUMES>;
    gives_up_wrongly unseen: "PAST-1", "treats all users as unknown once a client has seen the data go back" => Copies<GIVES_UP>;
    gives_up_for_all unseen: "PAST-1", "fails decisions once the data went back, also on clients that are opened afterwards" => FailsForAll;
    keeps_keys_by_epoch unseen: "PAST-1", "returns the key it has seen for an epoch, although the data went back and have another" => KeysByEpoch;
    believes_the_highest_epoch unseen: "PAST-1", "returns a room with the highest epoch it has seen" => HighestEpoch;
    plans_on_the_past unseen: "PAST-1", "returns success for the revocation of a user who was lost with the data" => RevokesTheLost;
    reads_replaced_data unseen: "PAST-2", "decides from the old data after they were replaced" => Keeps<true>;
    writes_to_replaced_data unseen: "PAST-2", "adds users to the old data after they were replaced" => Keeps<false>;
    bootstraps_what_was_emptied unseen: "PAST-3", "makes a first admin after all users vanished" => Bootstraps;
    remembers_who_vanished unseen: "PAST-3", "allows a user it allowed before, although the record has vanished" => Remembers;
    takes_a_lost_key_for_none unseen: "PAST-3", "returns NotFound instead of Corrupt for a member's key that vanished" => NoKey;
    looks_only_when_opened unseen: "PAST-4", "does not notice when something older takes over under open clients" => LooksOnce;
    makes_what_must_exist unseen: "DUR-4", "makes an empty store when the data must exist" => Makes;
    opens_something_older unseen: "PAST-4", "opens data that something older serves" => OpensOlder;
}

type Users = BTreeMap<UserKey, User>;

/// How many changes made these users: the last sequence of a log of the changes.
fn changes(users: &Users) -> usize {
    users.values().map(|user| 1 + usize::from(user.revoked)).sum()
}

async fn users_of(inner: &dyn Store) -> Result<Users, Error> {
    Ok(all_users(inner).await?.into_iter().map(|user| (user.key, user)).collect())
}

fn decide(users: &Users, key: &UserKey) -> Decision {
    match users.get(key) {
        None => Decision::Deny(DenyReason::Unknown),
        Some(user) if user.revoked => Decision::Deny(DenyReason::Revoked),
        Some(_) => Decision::Allow,
    }
}

const BELIEVES: u8 = 0;
const RESUMES: u8 = 1;
const GIVES_UP: u8 = 2;

/// A client's copy of users, which is kept in one of three wrong ways, and whether the client has
/// given up the copy.
#[derive(Default)]
struct Copies<const HOW: u8>(Mutex<(Users, bool)>);

impl<const HOW: u8> Copies<HOW> {
    async fn decide(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let now = match users_of(inner).await {
            Ok(now) => now,
            Err(error) => return error.into(),
        };
        let mut kept = locked(&self.0);
        let (copy, given_up) = &mut *kept;
        let back = changes(&now) < changes(copy);
        *given_up |= back && HOW == GIVES_UP;
        match HOW {
            // The copy has seen a higher sequence than the data have, so nothing seems to be new.
            BELIEVES if back => {}
            RESUMES => copy.extend(now),
            GIVES_UP if *given_up => copy.clear(),
            _ => *copy = now,
        }
        decide(copy, key)
    }
}

#[async_trait]
impl<const HOW: u8> Defect for Copies<HOW> {
    const PER_CLIENT: bool = true;

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        self.decide(inner, key).await
    }
}

#[derive(Default)]
struct HandsOn(Copies<BELIEVES>);

#[async_trait]
impl Defect for HandsOn {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        self.0.decide(inner, key).await
    }
}

/// The highest number of changes that any client has seen.
#[derive(Default)]
struct FailsForAll(Mutex<usize>);

#[async_trait]
impl Defect for FailsForAll {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let now = match users_of(inner).await {
            Ok(now) => now,
            Err(error) => return error.into(),
        };
        let mut most = locked(&self.0);
        if changes(&now) < *most {
            return Error::unavailable("the data went back").into();
        }
        *most = changes(&now);
        decide(&now, key)
    }
}

#[derive(Default)]
struct KeysByEpoch(Mutex<BTreeMap<(RoomId, EndpointId, Epoch), SealedKey>>);

impl KeysByEpoch {
    fn seen(&self, key: SealedKey) -> SealedKey {
        let id = (key.room.clone(), key.endpoint.clone(), key.epoch);
        locked(&self.0).entry(id).or_insert(key).clone()
    }

    /// Forgets the keys of a membership or room that ends, as a sound store does.
    fn ends(&self, room: &RoomId, endpoint: Option<&EndpointId>) {
        locked(&self.0).retain(|(of, who, _), _| {
            of != room || endpoint.is_some_and(|endpoint| endpoint != who)
        });
    }
}

#[async_trait]
impl Defect for KeysByEpoch {
    async fn key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        Ok(self.seen(inner.key(room, endpoint, epoch).await?))
    }

    async fn latest_key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<SealedKey, Error> {
        Ok(self.seen(inner.latest_key(room, endpoint).await?))
    }

    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        inner.delete_room(room).await?;
        self.ends(room, None);
        Ok(())
    }

    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        inner.remove_member(room, endpoint).await?;
        self.ends(room, Some(endpoint));
        Ok(())
    }
}

#[derive(Default)]
struct HighestEpoch(Mutex<BTreeMap<RoomId, Epoch>>);

#[async_trait]
impl Defect for HighestEpoch {
    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        let found = inner.room(room).await?;
        let mut seen = locked(&self.0);
        let highest = seen.entry(room.clone()).or_insert(found.epoch);
        *highest = found.epoch.max(*highest);
        Ok(Room { epoch: *highest, ..found })
    }

    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        inner.delete_room(room).await?;
        locked(&self.0).remove(room);
        Ok(())
    }
}

/// All users that were ever added.
#[derive(Default)]
struct RevokesTheLost(Mutex<Vec<UserKey>>);

#[async_trait]
impl Defect for RevokesTheLost {
    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        let added = inner.add_user(new).await?;
        locked(&self.0).push(added.key);
        Ok(added)
    }

    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        match inner.revoke_user(key, at).await {
            Err(Error::NotFound(_)) if locked(&self.0).contains(key) => Ok(()),
            other => other,
        }
    }
}

/// The data that the client opened, once they were replaced.
///
/// With `READS`, decisions come from these data; otherwise new users go there.
#[derive(Default)]
struct Keeps<const READS: bool>(OnceLock<MemoryStore>);

#[async_trait]
impl<const READS: bool> Defect for Keeps<READS> {
    const PER_CLIENT: bool = true;

    fn become_past(&self, data: MemoryStore) {
        let _ = self.0.set(data);
    }

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        match self.0.get() {
            Some(old) if READS => old.is_authorized(key).await,
            _ => inner.is_authorized(key).await,
        }
    }

    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        match self.0.get() {
            Some(old) if !READS => old.add_user(new).await,
            _ => inner.add_user(new).await,
        }
    }
}

#[derive(Default)]
struct Bootstraps;

#[async_trait]
impl Defect for Bootstraps {
    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        match inner.bootstrap_admin(new.clone()).await {
            Err(Error::Corrupt(_)) => inner.add_user(NewUser { admin: true, ..new }).await,
            other => other,
        }
    }
}

/// The users that were allowed.
#[derive(Default)]
struct Remembers(Mutex<Vec<UserKey>>);

#[async_trait]
impl Defect for Remembers {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let decision = inner.is_authorized(key).await;
        let mut known = locked(&self.0);
        match decision {
            Decision::Allow => known.push(*key),
            Decision::Deny(DenyReason::Unknown) if known.contains(key) => return Decision::Allow,
            Decision::Deny(_) => {}
        }
        decision
    }
}

#[derive(Default)]
struct NoKey;

#[async_trait]
impl Defect for NoKey {
    async fn latest_key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<SealedKey, Error> {
        inner.latest_key(room, endpoint).await.map_err(|error| match error {
            Error::Corrupt(_) => {
                let (room, endpoint) = (room.clone(), endpoint.clone());
                Error::NotFound(Record::Key { room, endpoint, epoch: None })
            }
            other => other,
        })
    }
}

#[derive(Default)]
struct LooksOnce;

impl Defect for LooksOnce {
    fn looks(&self) -> bool {
        false
    }
}

#[derive(Default)]
struct OpensOlder;

impl Defect for OpensOlder {
    fn looks_when_opened(&self) -> bool {
        false
    }
}

#[derive(Default)]
struct Makes;

impl Defect for Makes {
    fn makes_nothing(&self) -> bool {
        false
    }
}
