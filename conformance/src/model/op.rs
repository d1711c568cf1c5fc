use membership::{
    Decision, EndpointId, Epoch, Error, Member, NewMember, NewRoom, NewUser, Page, Rekey, Room,
    RoomId, SealedKey, Store, Timestamp, User, UserKey,
};
use serde::{Deserialize, Serialize};

use crate::show::Show;

/// One call of [`Store`], with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Op {
    CreateRoom(NewRoom),
    Room(RoomId),
    RoomsOf(EndpointId, Page<RoomId>),
    DeleteRoom(RoomId),
    AddMember(RoomId, NewMember),
    Member(RoomId, EndpointId),
    Members(RoomId, Page<EndpointId>),
    RemoveMember(RoomId, EndpointId),
    Rekey(RoomId, Rekey),
    Key(RoomId, EndpointId, Epoch),
    LatestKey(RoomId, EndpointId),
    BootstrapAdmin(NewUser),
    AddUser(NewUser),
    User(UserKey),
    Users(Page<UserKey>),
    RevokeUser(UserKey, Timestamp),
    IsAuthorized(UserKey),
    IsAdmin(UserKey),
    HasAdmin,
    Close,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is what it holds")]
pub enum Answer {
    Room(Result<Room, Error>),
    Rooms(Result<Vec<Room>, Error>),
    Member(Result<Member, Error>),
    Members(Result<Vec<Member>, Error>),
    Key(Result<SealedKey, Error>),
    User(Result<User, Error>),
    Users(Result<Vec<User>, Error>),
    Done(Result<(), Error>),
    Bool(Result<bool, Error>),
    Decision(Decision),
}

impl Op {
    /// Makes the call.
    pub async fn apply(&self, store: &dyn Store) -> Answer {
        match self.clone() {
            Self::CreateRoom(new) => Answer::Room(store.create_room(new).await),
            Self::Room(room) => Answer::Room(store.room(&room).await),
            Self::RoomsOf(endpoint, page) => Answer::Rooms(store.rooms_of(&endpoint, page).await),
            Self::DeleteRoom(room) => Answer::Done(store.delete_room(&room).await),
            Self::AddMember(room, new) => Answer::Member(store.add_member(&room, new).await),
            Self::Member(room, who) => Answer::Member(store.member(&room, &who).await),
            Self::Members(room, page) => Answer::Members(store.members(&room, page).await),
            Self::RemoveMember(room, who) => Answer::Done(store.remove_member(&room, &who).await),
            Self::Rekey(room, rekey) => Answer::Room(store.rekey(&room, rekey).await),
            Self::Key(room, who, epoch) => Answer::Key(store.key(&room, &who, epoch).await),
            Self::LatestKey(room, who) => Answer::Key(store.latest_key(&room, &who).await),
            Self::BootstrapAdmin(new) => Answer::User(store.bootstrap_admin(new).await),
            Self::AddUser(new) => Answer::User(store.add_user(new).await),
            Self::User(key) => Answer::User(store.user(&key).await),
            Self::Users(page) => Answer::Users(store.users(page).await),
            Self::RevokeUser(key, at) => Answer::Done(store.revoke_user(&key, at).await),
            Self::IsAuthorized(key) => Answer::Decision(store.is_authorized(&key).await),
            Self::IsAdmin(key) => Answer::Decision(store.is_admin(&key).await),
            Self::HasAdmin => Answer::Bool(store.has_admin().await),
            Self::Close => Answer::Done(store.close().await),
        }
    }

    /// The answer to this call that reports `error`; `None` for `close`, which succeeds on a closed
    /// store too (CLOSE-1).
    #[must_use]
    pub fn fails_with(&self, error: Error) -> Option<Answer> {
        Some(match self {
            Self::CreateRoom(_) | Self::Room(_) | Self::Rekey(..) => Answer::Room(Err(error)),
            Self::RoomsOf(..) => Answer::Rooms(Err(error)),
            Self::AddMember(..) | Self::Member(..) => Answer::Member(Err(error)),
            Self::Members(..) => Answer::Members(Err(error)),
            Self::Key(..) | Self::LatestKey(..) => Answer::Key(Err(error)),
            Self::BootstrapAdmin(_) | Self::AddUser(_) | Self::User(_) => Answer::User(Err(error)),
            Self::Users(_) => Answer::Users(Err(error)),
            Self::DeleteRoom(_) | Self::RemoveMember(..) | Self::RevokeUser(..) => {
                Answer::Done(Err(error))
            }
            Self::HasAdmin => Answer::Bool(Err(error)),
            Self::IsAuthorized(_) | Self::IsAdmin(_) => Answer::Decision(error.into()),
            Self::Close => return None,
        })
    }

    /// Whether the call can change what is stored.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Self::CreateRoom(_)
                | Self::DeleteRoom(_)
                | Self::AddMember(..)
                | Self::RemoveMember(..)
                | Self::Rekey(..)
                | Self::BootstrapAdmin(_)
                | Self::AddUser(_)
                | Self::RevokeUser(..)
        )
    }
}

impl Answer {
    /// The error in the answer, if there is one; for a denial, the failure that led to it.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Room(result) => result.as_ref().err(),
            Self::Rooms(result) => result.as_ref().err(),
            Self::Member(result) => result.as_ref().err(),
            Self::Members(result) => result.as_ref().err(),
            Self::Key(result) => result.as_ref().err(),
            Self::User(result) => result.as_ref().err(),
            Self::Users(result) => result.as_ref().err(),
            Self::Done(result) => result.as_ref().err(),
            Self::Bool(result) => result.as_ref().err(),
            Self::Decision(Decision::Deny(membership::DenyReason::Failed(error))) => Some(error),
            Self::Decision(_) => None,
        }
    }
}

impl Show for Answer {
    fn show(&self) -> String {
        match self {
            Self::Room(result) => result.show(),
            Self::Rooms(result) => result.show(),
            Self::Member(result) => result.show(),
            Self::Members(result) => result.show(),
            Self::Key(result) => result.show(),
            Self::User(result) => result.show(),
            Self::Users(result) => result.show(),
            Self::Done(result) => result.show(),
            Self::Bool(result) => result.show(),
            Self::Decision(decision) => decision.show(),
        }
    }

    fn timed_out(&self) -> bool {
        self.error().is_some_and(Error::outcome_unknown)
    }
}
