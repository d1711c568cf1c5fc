//! Stores with wrong sealed keys or epochs.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use membership::{
    Ciphertext, Conflict, EndpointId, Epoch, Error, Member, NewMember, NewRoom, Record, Rekey,
    Room, RoomId, SealedKey, Store,
};

use super::controls;
use super::defect::Defect;
use super::listings::locked;

controls! {
    keeps_the_removed_members_key: "MEM-3", "still returns a removed member's keys" => Keeps<Gone>;
    returns_keys_to_who_comes_back: "MEM-5", "returns the former keys of a member that was removed and added again" => Keeps<Back>;
    keeps_the_deleted_rooms_keys: "ROOM-5", "returns a deleted room's keys from a room created again under its id" => Keeps<Again>;
    accepts_a_missing_key: "KEY-6", "accepts a rekey that lacks one member's key" => OneMissing;
    accepts_an_extra_key: "KEY-6", "accepts a rekey with an extra key, for an endpoint that is no member" => OneExtra;
    accepts_a_stale_rekey: "KEY-5", "accepts a rekey from any earlier epoch" => AnyFrom;
    removes_nobody: "KEY-5", "ignores the endpoints in a rekey's removals that are no members" => IgnoresStrangers;
    truncates_ciphertexts: "KEY-2", "cuts a new member's key to 1,024 bytes" => Truncates;
    hands_out_the_owners_key: "KEY-1", "returns the owner's key for an endpoint that has none" => OwnersKey;
    latest_is_the_first: "KEY-3", "returns from latest_key the key of the epoch at which the member joined" => LatestIsFirst;
    drops_former_epochs: "KEY-9", "forgets the keys of earlier epochs at a rekey" => DropsFormer;
    skips_an_epoch: "KEY-4", "moves a room by two epochs at each rekey" => SkipsEpoch;
    rekeys_plain_rooms: "KEY-10", "returns success for a rekey of an unencrypted room" => RekeysPlain;
    refuses_large_rekeys unseen: "KEY-11", "refuses a rekey with more than 5,000 keys" => RefusesLarge;
    goes_past_the_last_epoch unseen: "TYPE-6", "returns success for a rekey at the last epoch" => PastTheLast;
}

type Triple = (RoomId, EndpointId, Epoch);

/// Copies of the stored keys, and the rule that says which removed keys are still returned.
#[derive(Default)]
struct Keeps<Rule> {
    keys: Mutex<BTreeMap<Triple, Ciphertext>>,
    rule: Rule,
}

/// The rule that says when a removed key is still returned.
#[async_trait]
trait Afterlife: Default + Send + Sync + 'static {
    /// Whether the copies are dropped when the room is deleted, not when the member is removed.
    const ENDS_WITH_THE_ROOM: bool;

    async fn returns(&self, inner: &dyn Store, room: &RoomId, endpoint: &EndpointId) -> bool;
}

/// Removed keys are returned for an endpoint that is no member.
#[derive(Default)]
struct Gone;
/// Removed keys are returned for an endpoint that is a member again.
#[derive(Default)]
struct Back;
/// Removed keys are returned from a room that is created again under the same id.
#[derive(Default)]
struct Again;

#[async_trait]
impl Afterlife for Gone {
    const ENDS_WITH_THE_ROOM: bool = true;

    async fn returns(&self, inner: &dyn Store, room: &RoomId, endpoint: &EndpointId) -> bool {
        inner.member(room, endpoint).await.is_err()
    }
}

#[async_trait]
impl Afterlife for Back {
    const ENDS_WITH_THE_ROOM: bool = true;

    async fn returns(&self, inner: &dyn Store, room: &RoomId, endpoint: &EndpointId) -> bool {
        inner.member(room, endpoint).await.is_ok()
    }
}

#[async_trait]
impl Afterlife for Again {
    const ENDS_WITH_THE_ROOM: bool = false;

    async fn returns(&self, _: &dyn Store, _: &RoomId, _: &EndpointId) -> bool {
        true
    }
}

impl<Rule> Keeps<Rule> {
    fn forget(&self, room: &RoomId, endpoint: Option<&EndpointId>) {
        let gone = |(id, who, _): &Triple| id == room && endpoint.is_none_or(|e| e == who);
        locked(&self.keys).retain(|triple, _| !gone(triple));
    }
}

#[async_trait]
impl<Rule: Afterlife> Defect for Keeps<Rule> {
    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        let key = new.owner_key.clone();
        let room = inner.create_room(new).await?;
        if let Some(key) = key {
            let owner = room.owner.clone();
            locked(&self.keys).insert((room.id.clone(), owner, room.epoch), key);
        }
        Ok(room)
    }

    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        inner.delete_room(room).await?;
        if Rule::ENDS_WITH_THE_ROOM {
            self.forget(room, None);
        }
        Ok(())
    }

    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        let key = new.key.clone();
        let member = inner.add_member(room, new).await?;
        if let Some((epoch, key)) = key {
            locked(&self.keys).insert((room.clone(), member.endpoint.clone(), epoch), key);
        }
        Ok(member)
    }

    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        inner.remove_member(room, endpoint).await?;
        if !Rule::ENDS_WITH_THE_ROOM {
            self.forget(room, Some(endpoint));
        }
        Ok(())
    }

    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let (remove, keys) = (rekey.remove().clone(), rekey.keys().clone());
        let done = inner.rekey(room, rekey).await?;
        if !Rule::ENDS_WITH_THE_ROOM {
            for endpoint in &remove {
                self.forget(room, Some(endpoint));
            }
        }
        let keys = keys.into_iter().map(|(who, key)| ((room.clone(), who, done.epoch), key));
        locked(&self.keys).extend(keys);
        Ok(done)
    }

    async fn key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        let found = inner.key(room, endpoint, epoch).await;
        if let Err(Error::NotFound(Record::Key { .. })) = found
            && self.rule.returns(inner, room, endpoint).await
        {
            let triple = (room.clone(), endpoint.clone(), epoch);
            if let Some(ciphertext) = locked(&self.keys).get(&triple).cloned() {
                let (room, endpoint, epoch) = triple;
                return Ok(SealedKey { room, epoch, endpoint, ciphertext });
            }
        }
        found
    }
}

#[derive(Default)]
struct OneMissing;

#[async_trait]
impl Defect for OneMissing {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        match inner.rekey(room, rekey.clone()).await {
            Err(Error::Conflict(Conflict::KeysMismatch { missing, extra }))
                if extra.first().is_empty() && missing.first().len() == 1 =>
            {
                let filler = missing.first().iter().cloned().zip([Ciphertext::new("none")?]);
                let keys = rekey.keys().clone().into_iter().chain(filler);
                let whole = Rekey::new(rekey.from(), rekey.remove().clone(), keys)?;
                inner.rekey(room, whole).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct OneExtra;

#[async_trait]
impl Defect for OneExtra {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        match inner.rekey(room, rekey.clone()).await {
            Err(Error::Conflict(Conflict::KeysMismatch { missing, extra }))
                if missing.first().is_empty() && extra.first().len() == 1 =>
            {
                let mut keys = rekey.keys().clone();
                keys.retain(|endpoint, _| !extra.first().contains(endpoint));
                let fewer = Rekey::new(rekey.from(), rekey.remove().clone(), keys)?;
                inner.rekey(room, fewer).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct AnyFrom;

#[async_trait]
impl Defect for AnyFrom {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        match inner.rekey(room, rekey.clone()).await {
            Err(Error::StaleEpoch { current }) if rekey.from() < current => {
                let fresh = Rekey::new(current, rekey.remove().clone(), rekey.keys().clone())?;
                inner.rekey(room, fresh).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct IgnoresStrangers;

#[async_trait]
impl Defect for IgnoresStrangers {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        match inner.rekey(room, rekey.clone()).await {
            Err(Error::NotFound(Record::Member { .. })) => {
                let mut remove = rekey.remove().clone();
                let mut strangers = Vec::new();
                for endpoint in &remove {
                    if inner.member(room, endpoint).await.is_err() {
                        strangers.push(endpoint.clone());
                    }
                }
                remove.retain(|endpoint| !strangers.contains(endpoint));
                inner.rekey(room, Rekey::new(rekey.from(), remove, rekey.keys().clone())?).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct Truncates;

#[async_trait]
impl Defect for Truncates {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        mut new: NewMember,
    ) -> Result<Member, Error> {
        if let Some((_, key)) = &mut new.key
            && let Some(front) = key.as_bytes().get(..1024)
        {
            *key = Ciphertext::new(front)?;
        }
        inner.add_member(room, new).await
    }
}

#[derive(Default)]
struct OwnersKey;

#[async_trait]
impl Defect for OwnersKey {
    async fn key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        match inner.key(room, endpoint, epoch).await {
            Err(Error::NotFound(Record::Key { .. })) => {
                let owner = inner.room(room).await?.owner;
                let key = inner.key(room, &owner, epoch).await?;
                Ok(SealedKey { endpoint: endpoint.clone(), ..key })
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct LatestIsFirst;

#[async_trait]
impl Defect for LatestIsFirst {
    async fn latest_key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<SealedKey, Error> {
        let latest = inner.latest_key(room, endpoint).await?;
        let joined = inner.member(room, endpoint).await?.joined_epoch;
        Ok(inner.key(room, endpoint, joined).await.unwrap_or(latest))
    }
}

#[derive(Default)]
struct DropsFormer;

#[async_trait]
impl Defect for DropsFormer {
    async fn key(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        let key = inner.key(room, endpoint, epoch).await?;
        if inner.room(room).await?.epoch > epoch {
            let (room, endpoint, epoch) = (room.clone(), endpoint.clone(), Some(epoch));
            return Err(Error::NotFound(Record::Key { room, endpoint, epoch }));
        }
        Ok(key)
    }
}

#[derive(Default)]
struct SkipsEpoch;

#[async_trait]
impl Defect for SkipsEpoch {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let keys = rekey.keys().clone();
        let once = inner.rekey(room, rekey).await?;
        inner.rekey(room, Rekey::new(once.epoch, [], keys)?).await
    }
}

#[derive(Default)]
struct RekeysPlain;

#[async_trait]
impl Defect for RekeysPlain {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        match inner.rekey(room, rekey).await {
            Err(Error::Conflict(Conflict::RoomUnencrypted)) => inner.room(room).await,
            other => other,
        }
    }
}

#[derive(Default)]
struct RefusesLarge;

#[async_trait]
impl Defect for RefusesLarge {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        if rekey.keys().len() > 5_000 {
            return Err(membership::Invalid::new("rekey", "has too many keys").into());
        }
        inner.rekey(room, rekey).await
    }
}

#[derive(Default)]
struct PastTheLast;

#[async_trait]
impl Defect for PastTheLast {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        match inner.rekey(room, rekey).await {
            Err(Error::Conflict(Conflict::LastEpoch)) => inner.room(room).await,
            other => other,
        }
    }
}
