//! Stores that are wrong only after, or beside, another call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use membership::{
    Ciphertext, Conflict, Decision, EndpointId, Epoch, Error, Member, NewMember, Page, Record,
    Rekey, Room, RoomId, SealedKey, Store, Timestamp, User, UserKey,
};

use super::controls;
use super::defect::Defect;
use super::listings::{Index, locked, with_former};
use super::races::pause;

controls! {
    joins_one_epoch_late: "MEM-1", "returns a joined_epoch one too high for a member added while a rekey is due" => OffByOne;
    stale_by_one_write unseen: "LIN-1", "returns a room as of before its last rekey while another rekey is in flight" => StaleByOne;
    rekey_forgets_who_came_meanwhile unseen: "KEY-1", "stores no key at the new epoch for a member added during a rekey" => Forgets;
    repairs_its_index_on_read: "LIST-4", "lists a removed member's room in rooms_of until the room's members are read" => RepairsLate;
    loses_the_last_admin_to_two unseen: "USER-4", "revokes the last two admins when both are revoked at once" => TwoRevocations;
    forgets_revocations_when_reopened unseen: "USER-3", "lets revoked users in again after it is reopened" => Reopens;
    forgets_the_bootstrap_when_reopened unseen: "USER-1", "allows another bootstrap after it is reopened" => BootstrapsAgain;
    creates_without_the_owners_key: "ROOM-1", "returns no key of the owner of a new room until the first rekey" => NoFirstKey;
    takes_similar_keys_for_one: "TYPE-2", "treats user keys that differ only in the last bit as equal" => SimilarKeys;
    tells_of_one_bad_key: "KEY-6", "names only the first of the endpoints whose keys a rekey lacks" => TellsOne;
    rekeys_without_the_last_page unseen: "KEY-1", "stores the keys of a rekey for the first thousand members only" => FirstPageOnly;
}

#[derive(Default)]
struct OffByOne(Mutex<BTreeSet<(RoomId, EndpointId)>>);

#[async_trait]
impl Defect for OffByOne {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        let due = inner.room(room).await.is_ok_and(|room| room.rekey_due);
        let member = inner.add_member(room, new).await?;
        if due {
            locked(&self.0).insert((room.clone(), member.endpoint.clone()));
        }
        Ok(member)
    }

    async fn member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<Member, Error> {
        let member = inner.member(room, endpoint).await?;
        let late = locked(&self.0).contains(&(room.clone(), endpoint.clone()));
        let joined = if late { member.joined_epoch.next() } else { None };
        Ok(Member { joined_epoch: joined.unwrap_or(member.joined_epoch), ..member })
    }
}

#[derive(Default)]
struct StaleByOne {
    before: Mutex<BTreeMap<RoomId, Room>>,
    under_way: AtomicUsize,
}

#[async_trait]
impl Defect for StaleByOne {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        pause().await;
        let before = inner.room(room).await;
        let done = inner.rekey(room, rekey).await;
        if let (Ok(_), Ok(before)) = (&done, before) {
            locked(&self.before).insert(room.clone(), before);
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        done
    }

    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        locked(&self.before).remove(room);
        inner.delete_room(room).await
    }

    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        let before = locked(&self.before).get(room).cloned();
        match before {
            Some(before) if self.under_way.load(Ordering::SeqCst) > 0 => Ok(before),
            _ => inner.room(room).await,
        }
    }
}

#[derive(Default)]
struct Forgets {
    /// Members that were added during a rekey, with the new epoch, at which they have no key.
    without: Mutex<BTreeSet<(RoomId, EndpointId, Epoch)>>,
}

#[async_trait]
impl Defect for Forgets {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let before = crate::observe::members(inner, room).await.map_or(0, |all| all.len());
        pause().await;
        match inner.rekey(room, rekey.clone()).await {
            Err(Error::Conflict(Conflict::KeysMismatch { missing, extra }))
                if extra.first().is_empty()
                    && before + missing.first().len()
                        == crate::observe::members(inner, room).await.map_or(0, |a| a.len()) =>
            {
                let filler = Ciphertext::new("none")?;
                let late = missing.first().iter().cloned();
                let keys = rekey.keys().clone().into_iter();
                let keys = keys.chain(late.clone().map(|who| (who, filler.clone())));
                let whole = Rekey::new(rekey.from(), rekey.remove().clone(), keys)?;
                let moved = inner.rekey(room, whole).await?;
                let late = late.map(|who| (room.clone(), who, moved.epoch));
                locked(&self.without).extend(late);
                Ok(moved)
            }
            other => other,
        }
    }

    async fn latest_key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<SealedKey, Error> {
        let key = inner.latest_key(room, endpoint).await?;
        let triple = (room.clone(), endpoint.clone(), key.epoch);
        if locked(&self.without).contains(&triple) {
            let (room, endpoint, _) = triple;
            return Err(Error::NotFound(Record::Key { room, endpoint, epoch: None }));
        }
        Ok(key)
    }
}

/// Former memberships in rooms whose members were not read since.
#[derive(Default)]
struct RepairsLate(Index);

#[async_trait]
impl Defect for RepairsLate {
    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        inner.remove_member(room, endpoint).await?;
        locked(&self.0).insert((endpoint.clone(), room.clone()));
        Ok(())
    }

    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        locked(&self.0).retain(|(_, of)| of != room);
        inner.members(room, page).await
    }

    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        with_former(&self.0, inner, endpoint, page).await
    }
}

/// Admins that count as revoked although the inner store refused to revoke them.
#[derive(Default)]
struct TwoRevocations(Mutex<BTreeMap<UserKey, Timestamp>>);

#[async_trait]
impl Defect for TwoRevocations {
    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        let admins = async || -> Result<usize, Error> {
            let users = inner.users(Page::first()).await?;
            Ok(users.iter().filter(|user| user.admin && !user.revoked).count())
        };
        let others = admins().await? > 1;
        pause().await;
        match inner.revoke_user(key, at).await {
            Err(Error::Conflict(Conflict::LastAdmin)) if others => {
                locked(&self.0).insert(*key, at);
                Ok(())
            }
            other => other,
        }
    }

    async fn user(&self, inner: &dyn Store, key: &UserKey) -> Result<User, Error> {
        let user = inner.user(key).await?;
        let at = locked(&self.0).get(key).copied();
        Ok(User {
            revoked: user.revoked || at.is_some(),
            revoked_at: at.or(user.revoked_at),
            ..user
        })
    }

    async fn is_admin(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        if locked(&self.0).contains_key(key) {
            return Decision::Deny(membership::DenyReason::Revoked);
        }
        inner.is_admin(key).await
    }

    async fn has_admin(&self, inner: &dyn Store) -> Result<bool, Error> {
        Ok(locked(&self.0).is_empty() && inner.has_admin().await?)
    }
}

/// Users revoked since the last close, and users revoked before it, who are allowed again.
#[derive(Default)]
struct Reopens(Mutex<(BTreeSet<UserKey>, BTreeSet<UserKey>)>);

#[async_trait]
impl Defect for Reopens {
    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        inner.revoke_user(key, at).await?;
        locked(&self.0).0.insert(*key);
        Ok(())
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        {
            let (revoked, again) = &mut *locked(&self.0);
            again.append(revoked);
        }
        inner.close().await
    }

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let decision = inner.is_authorized(key).await;
        if locked(&self.0).1.contains(key) { Decision::Allow } else { decision }
    }
}

#[derive(Default)]
struct BootstrapsAgain(Mutex<bool>);

#[async_trait]
impl Defect for BootstrapsAgain {
    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        *locked(&self.0) = true;
        inner.close().await
    }

    async fn bootstrap_admin(
        &self,
        inner: &dyn Store,
        new: membership::NewUser,
    ) -> Result<User, Error> {
        let again = *locked(&self.0);
        match inner.bootstrap_admin(new.clone()).await {
            Err(Error::Conflict(Conflict::AdminExists)) if again => {
                inner.add_user(membership::NewUser { admin: true, ..new }).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct NoFirstKey;

#[async_trait]
impl Defect for NoFirstKey {
    async fn key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        let found = inner.room(room).await?;
        if found.epoch == Epoch::FIRST && found.owner == *endpoint {
            let (room, endpoint) = (room.clone(), endpoint.clone());
            return Err(Error::NotFound(Record::Key { room, endpoint, epoch: Some(epoch) }));
        }
        inner.key(room, endpoint, epoch).await
    }
}

#[derive(Default)]
struct SimilarKeys;

impl Defect for SimilarKeys {
    fn user_key(&self, key: &UserKey) -> UserKey {
        let mut bytes = *key.as_bytes();
        if let Some(last) = bytes.last_mut() {
            *last &= 0xfe;
        }
        UserKey::from_bytes(bytes)
    }
}

#[derive(Default)]
struct TellsOne;

#[async_trait]
impl Defect for TellsOne {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        match inner.rekey(room, rekey).await {
            Err(Error::Conflict(Conflict::KeysMismatch { missing, extra })) => {
                let (missing, extra) = (missing.first().iter().take(1), extra.first().iter());
                let told = Conflict::keys_mismatch(missing, extra);
                Err(told.map_or(Error::Timeout, Error::from))
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct FirstPageOnly;

#[async_trait]
impl Defect for FirstPageOnly {
    async fn latest_key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<SealedKey, Error> {
        let key = inner.latest_key(room, endpoint).await?;
        let first = inner.members(room, Page::first()).await?;
        if key.epoch > Epoch::FIRST && first.iter().all(|member| member.endpoint != *endpoint) {
            let (room, endpoint) = (room.clone(), endpoint.clone());
            return Err(Error::NotFound(Record::Key { room, endpoint, epoch: None }));
        }
        Ok(key)
    }
}
