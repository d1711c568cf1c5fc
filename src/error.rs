//! The errors of all stores, without the types of any backend.

use std::fmt;
use std::sync::Arc;

use crate::{EndpointId, Epoch, RoomId, UserKey};

/// Why a call failed (section 2 of the contract).
///
/// If several errors apply, a store returns the first of these (clause ERR-4):
///
/// 1. `Closed`.
/// 2. `Invalid`.
/// 3. `NotFound` of the room.
/// 4. `Conflict` because the room is of the wrong kind (encrypted or not).
/// 5. `AlreadyExists`.
/// 6. `StaleEpoch`.
/// 7. `NotFound` of a member or user.
/// 8. Any other `Conflict`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
pub enum Error {
    /// The record that was looked up does not exist (clause ERR-1).
    #[error("no {0}")]
    NotFound(Record),
    /// The record to be created exists already, and is unchanged.
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
    /// An argument is illegal, whatever is stored.
    #[error("{0}")]
    Invalid(Invalid),
    /// The deadline passed. A write may take effect, once and entirely, even later, or never.
    #[error("no answer within the deadline")]
    Timeout,
    /// The backend cannot be reached or cannot serve. A write may take effect, once and entirely,
    /// even later, or never.
    #[error("unavailable: {0}")]
    Unavailable(Cause),
    /// This client was closed.
    #[error("the store is closed")]
    Closed,
    /// A stored record is not one that a store wrote (clause ERR-3). Such a record is never
    /// skipped, and never treated as absent.
    #[error("corrupt {0}")]
    Corrupt(Corrupt),
}

impl Error {
    /// Whether a write that failed with this error may have taken effect (clause ERR-2).
    ///
    /// True for `Timeout` and `Unavailable`. After every other error nothing has changed.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable(_))
    }

    /// Makes the error of a backend that failed with `source`.
    pub fn unavailable(
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Self::Unavailable(Cause(Arc::from(source.into())))
    }

    /// Makes the error of a record that cannot be decoded.
    ///
    /// The record is at `key` of the table or bucket `place`; `problem` says what is wrong with it.
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
        /// The epoch; `None` if the key of the room's current epoch was asked for.
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
    /// The room has as many members as the store allows in one room (clause MEM-1).
    #[error("the room has {most} members, and this store allows no more in one room")]
    RoomFull {
        /// The most members that the store allows in one room.
        most: u64,
    },
    /// The keys of a rekey are not for exactly the remaining members (clause KEY-6).
    #[error("the keys are not for exactly the remaining members:{missing}{extra}")]
    KeysMismatch {
        /// Remaining members for which the rekey has no key.
        missing: Endpoints,
        /// Endpoints for which the rekey has a key and that are not remaining members.
        extra: Endpoints,
    },
    /// An admin was made before, so there is no bootstrap any more (clause USER-1).
    #[error("an admin was made before; the bootstrap works once")]
    AdminExists,
    /// The last active admin cannot be revoked (clause USER-4).
    #[error("the last active admin cannot be revoked")]
    LastAdmin,
}

/// Which list of a [`Conflict::KeysMismatch`] some endpoints are in.
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
    /// The most endpoints that an error names (clause KEY-6).
    pub const NAMED: usize = 10;

    fn collect<'a>(side: Side, all: impl Iterator<Item = &'a EndpointId>) -> Self {
        let mut all = all;
        let first = all.by_ref().take(Self::NAMED).cloned().collect();
        Self { side, first, more: all.count() }
    }

    /// The first endpoints, at most [`NAMED`](Self::NAMED).
    #[must_use]
    pub fn first(&self) -> &[EndpointId] {
        &self.first
    }

    /// How many more endpoints there are than [`first`](Self::first()) has.
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
    /// Makes the conflict of a rekey that lacks keys for `missing` and has keys for `extra`.
    ///
    /// Both must be in byte order. Returns `None` if both are empty.
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

/// An illegal argument: its name, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: {problem}")]
pub struct Invalid {
    field: &'static str,
    problem: String,
}

impl Invalid {
    /// Makes the error of an illegal `field`. `problem` continues a sentence that begins with the
    /// field's name, as in "is 0; 1 to 1000 is allowed".
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    /// The argument's name.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// What is wrong with the argument: the rest of a sentence that begins with its name.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// A stored record that no store of this version wrote.
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

/// The error of a backend. The error is shared, so that an [`Error`] can be cloned. Two backend
/// errors are equal if their texts are equal.
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
