//! What can go wrong, said without naming any backend.

use std::fmt;
use std::sync::Arc;

use crate::{EndpointId, Epoch, RoomId, UserKey};

/// Why a call did not do what it was asked (section 2 of the contract).
///
/// Where several apply, a store answers with the first of: `Closed`, `Invalid`, `NotFound` of the
/// room, `Conflict` because the room is of the wrong kind, `AlreadyExists`, `StaleEpoch`,
/// `NotFound` of a member or user, any other `Conflict` (clause ERR-4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub enum Error {
    /// What was looked up is not there (clause ERR-1).
    #[error("no {0}")]
    NotFound(Record),
    /// What was to be made is there already, and is untouched.
    #[error("{0} exists already")]
    AlreadyExists(Record),
    /// The caller acted on an epoch that is not the room's current one.
    #[error("the room is at epoch {current}")]
    StaleEpoch {
        /// The room's current epoch.
        current: Epoch,
    },
    /// The call contradicts what is stored.
    #[error("{0}")]
    Conflict(Conflict),
    /// An argument is illegal whatever is stored.
    #[error("{0}")]
    Invalid(Invalid),
    /// The deadline passed. A write may still take effect, once and entirely, or never.
    #[error("no answer within the deadline")]
    Timeout,
    /// The backend cannot be reached or cannot serve. A write may have taken effect, once and
    /// entirely, or not.
    #[error("unavailable: {0}")]
    Unavailable(Cause),
    /// This client was closed.
    #[error("the store is closed")]
    Closed,
    /// What is stored cannot be what a store wrote (clause ERR-3). Never skipped, never treated
    /// as absent.
    #[error("corrupt {0}")]
    Corrupt(Corrupt),
}

impl Error {
    /// Whether a write that ended so may have taken effect (clause ERR-2): `Timeout` and
    /// `Unavailable`. After every other error nothing changed.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable(_))
    }

    /// The backend failed with `source`.
    pub fn unavailable(
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Self::Unavailable(Cause(Arc::from(source.into())))
    }

    /// The record at `key` of the table or bucket `place` cannot be decoded, because of `problem`.
    pub fn corrupt(
        place: impl Into<String>,
        key: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Corrupt(Corrupt { place: place.into(), key: key.into(), problem: problem.into() })
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

/// A record, named by what identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub enum Record {
    /// A room.
    Room(RoomId),
    /// The membership of an endpoint in a room.
    Member {
        /// The room.
        room: RoomId,
        /// The endpoint.
        endpoint: EndpointId,
    },
    /// The sealed key of an endpoint for one epoch of a room.
    Key {
        /// The room.
        room: RoomId,
        /// The endpoint.
        endpoint: EndpointId,
        /// The epoch; `None` where the room's current one was asked for.
        epoch: Option<Epoch>,
    },
    /// A user.
    User(UserKey),
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(room) => write!(f, "room {room:?}"),
            Self::Member { room, endpoint } => write!(f, "member {endpoint:?} of room {room:?}"),
            Self::Key { room, endpoint, epoch: Some(epoch) } => {
                write!(f, "key of {endpoint:?} for epoch {epoch} of room {room:?}")
            }
            Self::Key { room, endpoint, epoch: None } => {
                write!(f, "key of {endpoint:?} for the current epoch of room {room:?}")
            }
            Self::User(key) => write!(f, "user {key}"),
        }
    }
}

/// How a call contradicts what is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub enum Conflict {
    /// A member of an encrypted room needs a sealed key (clause MEM-1).
    #[error("the room is encrypted: a member needs a sealed key")]
    KeyMissing,
    /// An unencrypted room has no keys and no epochs (clauses MEM-1, KEY-10).
    #[error("the room is unencrypted: it has no keys")]
    RoomUnencrypted,
    /// The owner cannot be removed (clause MEM-4).
    #[error("the owner of a room cannot be removed from it")]
    OwnerStays,
    /// The room is at [`Epoch::MAX`] (clause TYPE-6).
    #[error("the room is at the last epoch there can be")]
    LastEpoch,
    /// A rekey's keys are not for exactly the members that remain (clause KEY-6).
    #[error("the keys are not for exactly the remaining members:{missing}{extra}")]
    KeysMismatch {
        /// Members that would be left without a key.
        missing: Endpoints,
        /// Endpoints with a key that are no remaining members.
        extra: Endpoints,
    },
    /// An admin was made before: the bootstrap is over (clause USER-1).
    #[error("an admin was made before; the bootstrap works once")]
    AdminExists,
    /// The last active admin cannot be revoked (clause USER-4).
    #[error("the last active admin cannot be revoked")]
    LastAdmin,
}

/// How a rekey's keys are not those of the remaining members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
enum Side {
    Missing,
    Extra,
}

/// Endpoints of a [`Conflict::KeysMismatch`]: the first few in byte order, and how many more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct Endpoints {
    side: Side,
    first: Vec<EndpointId>,
    more: usize,
}

impl Endpoints {
    /// The most endpoints that are named (clause KEY-6).
    pub const NAMED: usize = 10;

    fn collect<'a>(side: Side, all: impl Iterator<Item = &'a EndpointId>) -> Self {
        let mut all = all;
        let first = all.by_ref().take(Self::NAMED).cloned().collect();
        Self { side, first, more: all.count() }
    }

    /// The endpoints that are named.
    #[must_use]
    pub fn first(&self) -> &[EndpointId] {
        &self.first
    }

    /// How many there are beyond those that are named.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first.is_empty() {
            return Ok(());
        }
        f.write_str(match self.side {
            Side::Missing => " missing",
            Side::Extra => " extra",
        })?;
        for endpoint in &self.first {
            write!(f, " {endpoint:?}")?;
        }
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        f.write_str(";")
    }
}

impl Conflict {
    /// The mismatch between the members that a rekey must give a key and those it does, both in
    /// byte order; `None` where they are the same.
    pub fn keys_mismatch<'a>(
        missing: impl Iterator<Item = &'a EndpointId>,
        extra: impl Iterator<Item = &'a EndpointId>,
    ) -> Option<Self> {
        let missing = Endpoints::collect(Side::Missing, missing);
        let extra = Endpoints::collect(Side::Extra, extra);
        (!missing.first.is_empty() || !extra.first.is_empty())
            .then_some(Self::KeysMismatch { missing, extra })
    }
}

/// An argument that is illegal whatever is stored: which, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: {problem}")]
pub struct Invalid {
    field: &'static str,
    problem: String,
}

impl Invalid {
    /// `field` is illegal, because it `problem`: a fragment that reads on after the field's name.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    /// The argument's name.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// What is wrong with it: a fragment that reads on after the name.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// Stored bytes that no store of this version wrote there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} {key}: {problem}")]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub struct Corrupt {
    place: String,
    key: String,
    problem: String,
}

impl Corrupt {
    /// The table or bucket.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The record's key in it.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Why it cannot be decoded.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// What a backend said when it failed. Shared, so that an [`Error`] can be cloned; equal when the
/// texts are.
#[derive(Clone)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl Cause {
    /// The backend's own error.
    #[must_use]
    pub fn get(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invalid_is_said_in_parts_as_well() {
        let invalid = Invalid::new("limit", "is 0");
        assert_eq!((invalid.field(), invalid.problem()), ("limit", "is 0"));
        assert_eq!(invalid.to_string(), "invalid limit: is 0");
    }

    #[test]
    fn causes_are_shown_as_the_backend_shows_them_and_equal_when_that_is() {
        let broken = Error::unavailable("the disk is full");
        assert_eq!(broken, Error::unavailable("the disk is full"));
        assert_ne!(broken, Error::unavailable("the disk is gone"));
        assert_eq!(broken.to_string(), "unavailable: the disk is full");
        assert_eq!(format!("{broken:?}"), r#"Unavailable("the disk is full")"#);
    }
}
