//! Everything a caller can see of some rooms, endpoints and users, as one value: two of them are
//! equal when nothing that can be seen has changed (ERR-2).

use membership::{EndpointId, Epoch, Error, Page, RoomId, Store, UserKey};

use crate::show::Show;
use crate::verdict::Verdict;

/// What was seen, one line a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed(Vec<String>);

impl Show for Observed {
    fn show(&self) -> String {
        self.0.join("\n            ")
    }
}

/// Looks at everything through every read there is. Errors are part of what is seen, except those
/// that say the store could not look.
pub async fn observe(
    store: &dyn Store,
    rooms: &[RoomId],
    endpoints: &[EndpointId],
    users: &[UserKey],
) -> Verdict<Observed> {
    let mut lines = Vec::new();
    for id in rooms {
        let room = seen(store.room(id).await)?;
        lines.push(format!("{id:?}: {}", room.show()));
        lines.push(format!("in {id:?}: {}", seen(store.members(id, Page::first()).await)?.show()));
        let epoch = room.map_or(0, |room| room.epoch.get());
        for who in endpoints {
            let mut view = |what: String| lines.push(format!("{who:?} in {id:?}: {what}"));
            view(seen(store.member(id, who).await)?.show());
            view(seen(store.latest_key(id, who).await)?.show());
            for number in epoch.saturating_sub(8)..=epoch + 1 {
                if let Ok(epoch) = Epoch::new(number) {
                    view(seen(store.key(id, who, epoch).await)?.show());
                }
            }
        }
    }
    for who in endpoints {
        let found = seen(store.rooms_of(who, Page::first()).await)?;
        lines.push(format!("rooms of {who:?}: {}", found.show()));
    }
    for key in users {
        lines.push(seen(store.user(key).await)?.show());
        lines.push(store.is_authorized(key).await.show());
        lines.push(store.is_admin(key).await.show());
    }
    lines.push(format!("users: {}", seen(store.users(Page::first()).await)?.show()));
    lines.push(format!("has_admin: {}", store.has_admin().await?));
    Ok(Observed(lines))
}

/// `NotFound` is something to see; that nothing could be looked at is a failure.
#[track_caller]
fn seen<T>(result: Result<T, Error>) -> Verdict<Result<T, Error>> {
    match result {
        Ok(_) | Err(Error::NotFound(_)) => Ok(result),
        Err(error) => Err(error.into()),
    }
}
