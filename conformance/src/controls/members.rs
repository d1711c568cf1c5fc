//! Stores that add, return or remove members wrongly.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use membership::{
    Conflict, EndpointId, Epoch, Error, Member, NewMember, Rekey, Role, Room, RoomId, Store,
    Timestamp,
};

use super::controls;
use super::defect::Defect;
use super::listings::locked;

controls! {
    accepts_a_key_of_another_epoch: "MEM-1", "accepts a new member's key that was sealed for another epoch" => AnyEpoch;
    accepts_a_key_in_a_plain_room: "MEM-1", "accepts a new member's key in an unencrypted room, and drops it" => DropsKey;
    joins_at_the_first_epoch: "MEM-1", "returns joined_epoch 1 for every member of an encrypted room" => JoinsFirst;
    adds_again_over_a_member: "MEM-2", "refuses to add a member twice, yet replaces the membership" => AddsAgain;
    never_sets_rekey_due: "MEM-3", "returns every room without rekey_due, also after a removal" => NeverDue;
    removes_the_owner: "MEM-4", "returns success for the removal of the owner, and keeps the owner" => OwnerGoes;
    makes_everyone_an_owner: "MEM-4", "returns every member with the role Owner" => AllOwners;
    tells_stale_before_exists: "ERR-4", "returns StaleEpoch instead of AlreadyExists for a member that exists" => StaleFirst;
    member_from_a_missing_one: "ERR-1", "returns a membership for an endpoint that has none" => EmptyMember;
    says_no_member_for_no_room: "ERR-4", "returns NotFound of the member instead of the room for a missing room" => NoMemberFirst;
    removes_before_it_fails: "ERR-2", "removes the members of a rekey that it refuses for its keys" => FailsHalf;
    due_after_a_rekey: "KEY-5", "leaves rekey_due set after a rekey" => StaysDue;
}

#[derive(Default)]
struct AnyEpoch;

#[async_trait]
impl Defect for AnyEpoch {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        match (inner.add_member(room, new.clone()).await, new.key) {
            (Err(Error::StaleEpoch { current }), Some((_, key))) => {
                let new = NewMember::sealed(new.endpoint, new.added_at, current, key);
                inner.add_member(room, new).await
            }
            (other, _) => other,
        }
    }
}

#[derive(Default)]
struct DropsKey;

#[async_trait]
impl Defect for DropsKey {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        match inner.add_member(room, new.clone()).await {
            Err(Error::Conflict(Conflict::RoomUnencrypted)) => {
                inner.add_member(room, NewMember::unsealed(new.endpoint, new.added_at)).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct JoinsFirst;

#[async_trait]
impl Defect for JoinsFirst {
    async fn member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<Member, Error> {
        let member = inner.member(room, endpoint).await?;
        Ok(Member { joined_epoch: member.joined_epoch.min(Epoch::FIRST), ..member })
    }
}

#[derive(Default)]
struct AddsAgain;

#[async_trait]
impl Defect for AddsAgain {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        let first = inner.add_member(room, new.clone()).await;
        if let Err(Error::AlreadyExists(_)) = first
            && inner.remove_member(room, &new.endpoint).await.is_ok()
        {
            inner.add_member(room, new).await?;
        }
        first
    }
}

#[derive(Default)]
struct NeverDue;

#[async_trait]
impl Defect for NeverDue {
    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        Ok(Room { rekey_due: false, ..inner.room(room).await? })
    }
}

#[derive(Default)]
struct OwnerGoes;

#[async_trait]
impl Defect for OwnerGoes {
    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        match inner.remove_member(room, endpoint).await {
            Err(Error::Conflict(Conflict::OwnerStays)) => Ok(()),
            other => other,
        }
    }
}

#[derive(Default)]
struct AllOwners;

#[async_trait]
impl Defect for AllOwners {
    async fn member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<Member, Error> {
        Ok(Member { role: Role::Owner, ..inner.member(room, endpoint).await? })
    }
}

#[derive(Default)]
struct StaleFirst;

#[async_trait]
impl Defect for StaleFirst {
    async fn add_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        new: NewMember,
    ) -> Result<Member, Error> {
        let sealed_for = new.key.as_ref().map(|(epoch, _)| *epoch);
        let added = inner.add_member(room, new).await;
        if let (Err(Error::AlreadyExists(_)), Some(sealed_for)) = (&added, sealed_for) {
            let current = inner.room(room).await?.epoch;
            if sealed_for != current {
                return Err(Error::StaleEpoch { current });
            }
        }
        added
    }
}

#[derive(Default)]
struct EmptyMember;

#[async_trait]
impl Defect for EmptyMember {
    async fn member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<Member, Error> {
        let found = inner.room(room).await?;
        inner.member(room, endpoint).await.or_else(|error| match error {
            Error::NotFound(_) => Ok(Member {
                room: room.clone(),
                endpoint: endpoint.clone(),
                role: Role::Member,
                joined_epoch: found.epoch,
                added_at: Timestamp::from_millis(0),
            }),
            other => Err(other),
        })
    }
}

#[derive(Default)]
struct NoMemberFirst;

#[async_trait]
impl Defect for NoMemberFirst {
    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        inner.remove_member(room, endpoint).await.map_err(|error| match error {
            Error::NotFound(_) => Error::NotFound(membership::Record::Member {
                room: room.clone(),
                endpoint: endpoint.clone(),
            }),
            other => other,
        })
    }
}

#[derive(Default)]
struct FailsHalf;

#[async_trait]
impl Defect for FailsHalf {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let remove = rekey.remove().clone();
        let done = inner.rekey(room, rekey).await;
        if let Err(Error::Conflict(Conflict::KeysMismatch { .. })) = done {
            for endpoint in remove {
                inner.remove_member(room, &endpoint).await?;
            }
        }
        done
    }
}

#[derive(Default)]
struct StaysDue(Mutex<BTreeSet<RoomId>>);

#[async_trait]
impl Defect for StaysDue {
    async fn remove_member(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        endpoint: &EndpointId,
    ) -> Result<(), Error> {
        inner.remove_member(room, endpoint).await?;
        locked(&self.0).insert(room.clone());
        Ok(())
    }

    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        let found = inner.room(room).await?;
        Ok(Room { rekey_due: found.encrypted && locked(&self.0).contains(room), ..found })
    }
}
