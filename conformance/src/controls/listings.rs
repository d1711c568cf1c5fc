//! Stores with wrong pages or a wrong reverse index.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use membership::{EndpointId, Error, Member, Page, Rekey, Room, RoomId, Store, User, UserKey};

use super::controls;
use super::defect::Defect;
use super::races::pause;

controls! {
    forgets_the_index_on_removal: "LIST-4", "still lists in rooms_of the room from which the endpoint was removed" => IndexAfterRemoval;
    forgets_the_index_on_rekey: "LIST-4", "still lists in rooms_of the room from which a rekey removed the endpoint" => IndexAfterRekey;
    pages_include_their_start: "LIST-1", "begins a page of members with the member that it comes after" => AfterInclusive;
    pages_skip_a_record: "LIST-1", "skips the first user of each page that comes after another" => SkipsAtBorder;
    pages_hold_one_too_many: "LIST-1", "returns one room more than the limit from rooms_of" => OneMore;
    orders_like_a_dictionary: "LIST-1", "lists members in the order of their lower-case ids" => Dictionary;
    needs_after_to_exist: "LIST-1", "starts a page of members at the first one when `after` is no member" => AfterExists;
    lists_a_missing_room: "LIST-3", "returns an empty list of members for a missing room" => EmptyListing;
    hides_revoked_users: "USER-5", "leaves revoked users out of the list" => HidesRevoked;
    tears_pages unseen: "LIST-2", "reads a page of members in two steps" => TornPage;
}

/// Locks a defect's own data, which no panic can leave half changed.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Former memberships.
pub(super) type Index = Mutex<BTreeSet<(EndpointId, RoomId)>>;

pub(super) async fn with_former(
    former: &Index,
    inner: &dyn Store,
    endpoint: &EndpointId,
    page: Page<RoomId>,
) -> Result<Vec<Room>, Error> {
    let (after, limit) = (page.after().cloned(), page.limit());
    let mut rooms = inner.rooms_of(endpoint, page).await?;
    let left: Vec<_> = locked(former)
        .iter()
        .filter(|(who, room)| who == endpoint && after.as_ref().is_none_or(|after| room > after))
        .map(|(_, room)| room.clone())
        .collect();
    for room in left {
        if let Ok(room) = inner.room(&room).await
            && rooms.iter().all(|listed| listed.id != room.id)
        {
            rooms.push(room);
        }
    }
    rooms.sort_by(|one, other| one.id.cmp(&other.id));
    rooms.truncate(limit);
    Ok(rooms)
}

#[derive(Default)]
struct IndexAfterRemoval(Index);

#[async_trait]
impl Defect for IndexAfterRemoval {
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

    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        with_former(&self.0, inner, endpoint, page).await
    }
}

#[derive(Default)]
struct IndexAfterRekey(Index);

#[async_trait]
impl Defect for IndexAfterRekey {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let removed = rekey.remove().clone();
        let done = inner.rekey(room, rekey).await?;
        locked(&self.0).extend(removed.into_iter().map(|endpoint| (endpoint, room.clone())));
        Ok(done)
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

#[derive(Default)]
struct AfterInclusive;

#[async_trait]
impl Defect for AfterInclusive {
    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        let (after, limit) = (page.after().cloned(), page.limit());
        let mut members = inner.members(room, page).await?;
        if let Some(after) = after
            && let Ok(first) = inner.member(room, &after).await
        {
            members.insert(0, first);
        }
        members.truncate(limit);
        Ok(members)
    }
}

#[derive(Default)]
struct SkipsAtBorder;

#[async_trait]
impl Defect for SkipsAtBorder {
    async fn users(&self, inner: &dyn Store, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        // The first user after `after` counts as the end of the page before, and is skipped.
        let skipped = match page.after() {
            Some(after) => inner.users(Page::new(Some(*after), 1)?).await?.pop(),
            None => None,
        };
        match skipped {
            Some(user) => inner.users(Page::new(Some(user.key), page.limit())?).await,
            None => inner.users(page).await,
        }
    }
}

#[derive(Default)]
struct OneMore;

#[async_trait]
impl Defect for OneMore {
    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        let limit = (page.limit() + 1).min(usize::from(Page::<RoomId>::MAX_LIMIT));
        inner.rooms_of(endpoint, Page::new(page.after().cloned(), limit)?).await
    }
}

#[derive(Default)]
struct Dictionary;

#[async_trait]
impl Defect for Dictionary {
    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        let sort_key = |id: &EndpointId| (id.as_str().to_lowercase(), id.clone());
        let mut all = crate::observe::members(inner, room).await?;
        all.sort_by_key(|member| sort_key(&member.endpoint));
        all.retain(|m| page.after().is_none_or(|after| sort_key(&m.endpoint) > sort_key(after)));
        all.truncate(page.limit());
        Ok(all)
    }
}

#[derive(Default)]
struct AfterExists;

#[async_trait]
impl Defect for AfterExists {
    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        match page.after() {
            Some(after) if inner.member(room, after).await.is_err() => {
                inner.members(room, Page::new(None, page.limit())?).await
            }
            _ => inner.members(room, page).await,
        }
    }
}

#[derive(Default)]
struct EmptyListing;

#[async_trait]
impl Defect for EmptyListing {
    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        match inner.members(room, page).await {
            Err(Error::NotFound(_)) => Ok(Vec::new()),
            other => other,
        }
    }
}

#[derive(Default)]
struct HidesRevoked;

#[async_trait]
impl Defect for HidesRevoked {
    async fn users(&self, inner: &dyn Store, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        let users = inner.users(page).await?;
        Ok(users.into_iter().filter(|user| !user.revoked).collect())
    }
}

#[derive(Default)]
struct TornPage;

#[async_trait]
impl Defect for TornPage {
    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        let mut members = inner.members(room, page.clone()).await?;
        members.truncate(members.len().div_ceil(2));
        pause().await;
        if let Some(last) = members.last()
            && page.limit() > members.len()
        {
            let rest = Page::new(Some(last.endpoint.clone()), page.limit() - members.len())?;
            members.extend(inner.members(room, rest).await?);
        }
        Ok(members)
    }
}
