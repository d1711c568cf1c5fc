//! Stores that create, return or delete rooms wrongly.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use membership::{
    Ciphertext, Epoch, Error, Member, NewMember, NewRoom, Page, Room, RoomId, Store, Timestamp,
};

use super::controls;
use super::defect::Defect;
use super::listings::locked;

controls! {
    folds_case_in_room_ids: "TYPE-1", "stores every room under its id in lower case" => FoldsCase;
    trims_room_ids: "TYPE-1", "drops the spaces around a room's id" => Trims;
    normalizes_room_ids: "TYPE-1", "treats a letter with a combining accent as the accented letter" => Normalizes;
    rounds_times_to_seconds: "TYPE-3", "returns a room's creation time in whole seconds" => RoundsTimes;
    answers_epoch_zero: "ROOM-3", "returns epoch 0 from create_room, not 1" => EpochZero;
    creates_over_a_room: "ROOM-2", "replaces an existing room when a room is created under its id" => CreatesOver;
    deletes_what_is_missing: "ROOM-4", "returns success when a missing room is deleted" => DeletesMissing;
    leaves_deleted_rooms_listed: "ROOM-4", "still lists a deleted room in rooms_of" => ListsDeleted;
    revives_former_members: "ROOM-5", "gives a room that is created again the members of the deleted one" => Revives;
    room_from_a_missing_one: "ERR-1", "returns an empty room for a missing one" => EmptyRoom;
}

/// `text` as an id; `otherwise` if it is none.
fn id_or(text: &str, otherwise: &RoomId) -> RoomId {
    RoomId::new(text).unwrap_or_else(|_| otherwise.clone())
}

#[derive(Default)]
struct FoldsCase;

impl Defect for FoldsCase {
    fn room_id(&self, room: &RoomId) -> RoomId {
        id_or(&room.as_str().to_lowercase(), room)
    }
}

#[derive(Default)]
struct Trims;

impl Defect for Trims {
    fn room_id(&self, room: &RoomId) -> RoomId {
        id_or(room.as_str().trim(), room)
    }
}

#[derive(Default)]
struct Normalizes;

impl Defect for Normalizes {
    fn room_id(&self, room: &RoomId) -> RoomId {
        let composed = [("e\u{301}", "é"), ("a\u{308}", "ä"), ("o\u{308}", "ö"), ("u\u{308}", "ü")]
            .iter()
            .fold(room.as_str().to_owned(), |text, (apart, one)| text.replace(apart, one));
        id_or(&composed, room)
    }
}

#[derive(Default)]
struct RoundsTimes;

#[async_trait]
impl Defect for RoundsTimes {
    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        let room = inner.room(room).await?;
        let seconds = room.created_at.as_millis() / 1000;
        Ok(Room { created_at: Timestamp::from_millis(seconds * 1000), ..room })
    }
}

#[derive(Default)]
struct EpochZero;

#[async_trait]
impl Defect for EpochZero {
    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        Ok(Room { epoch: Epoch::ZERO, ..inner.create_room(new).await? })
    }
}

#[derive(Default)]
struct CreatesOver;

#[async_trait]
impl Defect for CreatesOver {
    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        match inner.create_room(new.clone()).await {
            Err(Error::AlreadyExists(_)) => {
                inner.delete_room(&new.id).await?;
                inner.create_room(new).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct DeletesMissing;

#[async_trait]
impl Defect for DeletesMissing {
    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        match inner.delete_room(room).await {
            Err(Error::NotFound(_)) => Ok(()),
            other => other,
        }
    }
}

/// Deleted rooms, with their members.
type Former = Mutex<BTreeMap<RoomId, (Room, Vec<Member>)>>;

async fn bury(former: &Former, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
    let found = inner.room(room).await?;
    let members = inner.members(room, Page::first()).await?;
    inner.delete_room(room).await?;
    locked(former).insert(room.clone(), (found, members));
    Ok(())
}

#[derive(Default)]
struct ListsDeleted(Former);

#[async_trait]
impl Defect for ListsDeleted {
    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        bury(&self.0, inner, room).await
    }

    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &membership::EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        let limit = page.limit();
        let after = page.after().cloned();
        let mut rooms = inner.rooms_of(endpoint, page).await?;
        let former = locked(&self.0);
        let gone = former.values().filter(|(room, members)| {
            members.iter().any(|member| member.endpoint == *endpoint)
                && after.as_ref().is_none_or(|after| room.id > *after)
        });
        rooms.extend(gone.map(|(room, _)| room.clone()));
        rooms.sort_by(|one, other| one.id.cmp(&other.id));
        rooms.dedup_by(|one, other| one.id == other.id);
        rooms.truncate(limit);
        Ok(rooms)
    }
}

#[derive(Default)]
struct Revives(Former);

#[async_trait]
impl Defect for Revives {
    async fn delete_room(&self, inner: &dyn Store, room: &RoomId) -> Result<(), Error> {
        bury(&self.0, inner, room).await
    }

    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        let room = inner.create_room(new).await?;
        let former = locked(&self.0).remove(&room.id);
        for member in former.into_iter().flat_map(|(_, members)| members) {
            let (endpoint, added_at) = (member.endpoint, member.added_at);
            let again = if room.encrypted {
                NewMember::sealed(endpoint, added_at, room.epoch, Ciphertext::new("revived")?)
            } else {
                NewMember::unsealed(endpoint, added_at)
            };
            // This fails for a former owner who owns the new room, too.
            let _ = inner.add_member(&room.id, again).await;
        }
        Ok(room)
    }
}

#[derive(Default)]
struct EmptyRoom;

#[async_trait]
impl Defect for EmptyRoom {
    async fn room(&self, inner: &dyn Store, room: &RoomId) -> Result<Room, Error> {
        match inner.room(room).await {
            Err(Error::NotFound(_)) => {
                let nobody = membership::EndpointId::new("nobody")?;
                let never = Timestamp::from_millis(0);
                Ok(NewRoom::unencrypted(room.clone(), nobody, never).room())
            }
            other => other,
        }
    }
}
