//! All answers that a caller can read, as one value, so that a case can compare before and after.

mod laws;

use std::collections::BTreeSet;
use std::panic::Location;

use futures::TryFutureExt;
use futures::future::{join, join_all, join3, try_join, try_join_all};
use membership::{EndpointId, Epoch, Error, Member, Page, Room, RoomId, Store, User, UserKey};

use crate::make::{endpoint, room};
use crate::show::Show;
use crate::transcript::Client;
use crate::verdict::{Failure, Verdict, fails};

/// The answers to every read of some rooms, endpoints and users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed(Vec<(String, String)>);

impl Observed {
    fn note<T: Show>(&mut self, call: String, answer: &T) {
        self.0.push((call, answer.show()));
    }

    /// Fails if an answer differs from `before`. The failure shows the answers that differ and no
    /// others.
    #[track_caller]
    pub(crate) fn unchanged_since(&self, before: &Self) -> Verdict {
        let differ = |(was, is): &(&(String, String), &(String, String))| was != is;
        let differing: Vec<_> = before.0.iter().zip(&self.0).filter(differ).collect();
        if differing.is_empty() && before.0.len() == self.0.len() {
            return Ok(());
        }
        let show = |view: &(String, String)| format!("{} -> {}", view.0, view.1);
        let expected: Vec<_> = differing.iter().map(|(was, _)| show(was)).collect();
        let got: Vec<_> = differing.iter().map(|(_, is)| show(is)).collect();
        let expected = format!("nothing changed: {}", expected.join(" · "));
        Err(Failure::new(expected, got.join(" · ")))
    }
}

impl Observed {
    /// As [`unchanged_since`](Self::unchanged_since), without the answer to `call`.
    #[track_caller]
    pub(crate) fn unchanged_but(&self, call: &str, before: &Self) -> Verdict {
        let rest = |all: &Self| Self(all.0.iter().filter(|(of, _)| of != call).cloned().collect());
        rest(self).unchanged_since(&rest(before))
    }
}

impl Show for Observed {
    fn show(&self) -> String {
        let views = self.0.iter().map(|(call, answer)| format!("{call} -> {answer}"));
        views.collect::<Vec<_>>().join(" · ")
    }
}

/// Makes every read about `rooms`, `endpoints` and `users`, while nobody writes. Many reads are in
/// flight at once, since servers are far away.
///
/// The answers must also agree with one another, as in every state: clauses LIST-1, LIST-4, MEM-4,
/// KEY-1, KEY-3, KEY-10, AUTH-1 and AUTH-5.
pub(crate) async fn observe(
    store: &dyn Store,
    rooms: &[RoomId],
    endpoints: &[EndpointId],
    users: &[UserKey],
) -> Verdict<Observed> {
    let mut seen = Observed::default();
    let listed = try_join_all(endpoints.iter().map(|who| rooms_of(store, who))).await?;
    let index: Vec<_> = endpoints.iter().zip(listed).collect();
    for (endpoint, listed) in &index {
        seen.note(format!("rooms_of({endpoint:?})"), listed);
        laws::ascend(listed, |room| room.id.clone())?;
    }
    let observed = rooms.iter().map(|id| observe_room(store, id, &index));
    seen.0.extend(try_join_all(observed).await?.into_iter().flat_map(|room| room.0));
    seen.0.extend(observe_users(store, users).await?.0);
    Ok(seen)
}

async fn observe_room(
    store: &dyn Store,
    id: &RoomId,
    index: &[(&EndpointId, Vec<Room>)],
) -> Verdict<Observed> {
    let mut seen = Observed::default();
    let (found, listed) = join(store.room(id), members(store, id)).await;
    let (found, listed) = (answer(found)?, answer(listed)?);
    seen.note(format!("room({id:?})"), &found);
    seen.note(format!("members({id:?})"), &listed);
    laws::room_and_members(id, &found, &listed)?;
    let epochs = epochs(found.as_ref().ok());
    let held = index.iter().map(|(endpoint, _)| {
        let keys = join_all(epochs.iter().map(|epoch| store.key(id, endpoint, *epoch)));
        join3(store.member(id, endpoint), store.latest_key(id, endpoint), keys)
    });
    for ((endpoint, rooms), (member, latest, keys)) in index.iter().zip(join_all(held).await) {
        let (member, latest) = (answer(member)?, answer(latest)?);
        seen.note(format!("member({id:?}, {endpoint:?})"), &member);
        laws::membership(&listed, &found, endpoint, &member, rooms, id)?;
        seen.note(format!("latest_key({id:?}, {endpoint:?})"), &latest);
        laws::latest_key(&found, &member, &latest)?;
        for (epoch, key) in epochs.iter().zip(keys) {
            let key = answer(key)?;
            seen.note(format!("key({id:?}, {endpoint:?}, epoch {epoch})"), &key);
            laws::key(&found, &member, &latest, *epoch, &key)?;
        }
    }
    Ok(seen)
}

async fn observe_users(store: &dyn Store, users: &[UserKey]) -> Verdict<Observed> {
    let mut seen = Observed::default();
    let (all, has_admin) = try_join(all_users(store), store.has_admin()).await?;
    seen.note("users()".to_owned(), &all);
    laws::ascend(&all, |user| user.key)?;
    seen.note("has_admin()".to_owned(), &has_admin);
    laws::has_admin(&all, has_admin)?;
    let each = users
        .iter()
        .map(|key| join3(store.user(key), store.is_authorized(key), store.is_admin(key)));
    for (key, (user, authorized, admin)) in users.iter().zip(join_all(each).await) {
        let user = answer(user)?;
        seen.note(format!("user({key})"), &user);
        seen.note(format!("is_authorized({key})"), &authorized);
        seen.note(format!("is_admin({key})"), &admin);
        laws::user(&all, key, &user, &authorized, &admin)?;
    }
    Ok(seen)
}

/// `NotFound` is an answer. Any other error fails the case.
fn answer<T>(result: Result<T, Error>) -> Verdict<Result<T, Error>> {
    match result {
        Err(error @ Error::NotFound(_)) => Ok(Err(error)),
        other => Ok(Ok(other?)),
    }
}

/// The epochs whose keys are read: the first ones, and those around the current one.
fn epochs(room: Option<&Room>) -> BTreeSet<Epoch> {
    let current = room.map_or(0, |room| room.epoch.get());
    let around = [current.saturating_sub(1), current, current + 1];
    (0..4).chain(around).filter_map(|number| Epoch::new(number).ok()).collect()
}

/// All members of a room, page by page.
pub(crate) async fn members(store: &dyn Store, room: &RoomId) -> Result<Vec<Member>, Error> {
    walk(|member: &Member| member.endpoint.clone(), |page| store.members(room, page)).await
}

/// All rooms of an endpoint, page by page.
pub(crate) async fn rooms_of(store: &dyn Store, endpoint: &EndpointId) -> Result<Vec<Room>, Error> {
    walk(|room: &Room| room.id.clone(), |page| store.rooms_of(endpoint, page)).await
}

/// All users, page by page.
pub(crate) async fn all_users(store: &dyn Store) -> Result<Vec<User>, Error> {
    walk(|user: &User| user.key, |page| store.users(page)).await
}

/// Reads page after page, until one is not full. A page that does not advance ends the walk, too:
/// otherwise a store that breaks LIST-1 would keep it going for ever.
async fn walk<T, Id: Ord + Clone, Fetch: Future<Output = Result<Vec<T>, Error>>>(
    id: impl Fn(&T) -> Id,
    fetch: impl Fn(Page<Id>) -> Fetch,
) -> Result<Vec<T>, Error> {
    let (mut all, mut page) = (Vec::new(), Page::first());
    loop {
        let got = fetch(page.clone()).await?;
        let full = got.len() == page.limit();
        let last = got.last().map(&id);
        all.extend(got);
        match last {
            Some(last) if full && page.after().is_none_or(|after| last > *after) => {
                page = Page::after_id(last);
            }
            _ => return Ok(all),
        }
    }
}

/// The ids that a case observes: those it uses, and some that it does not.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    rooms: Vec<RoomId>,
    endpoints: Vec<EndpointId>,
    users: Vec<UserKey>,
}

impl Scope {
    /// Observes these rooms and endpoints, and no user.
    #[must_use]
    pub(crate) fn new(rooms: &[&str], endpoints: &[&str]) -> Self {
        let rooms = rooms.iter().map(|id| room(id)).collect();
        let endpoints = endpoints.iter().map(|id| endpoint(id)).collect();
        Self { rooms, endpoints, users: Vec::new() }
    }

    /// Observes these users, beside the rooms and endpoints.
    #[must_use]
    pub(crate) fn with_users(self, users: &[UserKey]) -> Self {
        Self { users: users.to_vec(), ..self }
    }

    /// [`observe`]s all of them. The calls stay out of the transcript.
    #[track_caller]
    pub(crate) fn observe(
        &self,
        client: &Client,
    ) -> impl Future<Output = Verdict<Observed>> + Send {
        let at = Location::caller();
        let store = client.unrecorded();
        async move {
            let seen = observe(&*store, &self.rooms, &self.endpoints, &self.users).await;
            seen.map_err(|failure| Failure { at, ..failure })
        }
    }

    /// Awaits a write that must fail with exactly `expected` and change nothing (clause ERR-2).
    #[track_caller]
    pub(crate) fn refuses<T: Show + Send>(
        &self,
        client: &Client,
        call: impl Future<Output = Result<T, Error>> + Send,
        expected: &Error,
    ) -> impl Future<Output = Verdict> + Send {
        let at = Location::caller();
        async move {
            let before = self.observe(client).await?;
            fails(call.await, expected)?;
            self.observe(client).await?.unchanged_since(&before)
        }
        .map_err(move |failure| Failure { at, ..failure })
    }
}
