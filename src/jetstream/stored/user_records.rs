//! The stored records of users.

use serde::{Deserialize, Serialize};

use crate::jetstream::stored::bucket::Bucket;
use crate::{Error, Label, NewUser, Timestamp, User, UserKey};

/// `users`: a user. The record is stored at the addition and again at the revocation, and keeps the ids of both writes.
/// A writer that got no answer looks for its write here. Users are never deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct UserRecord {
    label: String,
    pub(in crate::jetstream) admin: bool,
    added_at: i64,
    /// The id of the addition.
    write: String,
    pub(in crate::jetstream) revoked: Option<Revocation>,
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct Revocation {
    at: i64,
    /// The id of the revocation.
    write: String,
}

impl UserRecord {
    pub(in crate::jetstream) fn new(new: &NewUser, write: &str) -> Self {
        Self {
            label: new.label.as_str().to_owned(),
            admin: new.admin,
            added_at: new.added_at.as_millis(),
            write: write.to_owned(),
            revoked: None,
        }
    }

    /// This user, revoked.
    pub(in crate::jetstream) fn revoke(&self, at: Timestamp, write: &str) -> Self {
        let revocation = Revocation { at: at.as_millis(), write: write.to_owned() };
        Self { revoked: Some(revocation), ..self.clone() }
    }

    /// Whether this write added the user, or revoked it.
    pub(in crate::jetstream) fn is_by(&self, write: &str) -> bool {
        self.write == write || self.revoked.as_ref().is_some_and(|end| end.write == write)
    }

    pub(in crate::jetstream) fn user(&self, key: &UserKey) -> Result<User, Error> {
        let label = Label::new(&self.label).map_err(|error| {
            Error::corrupt(Bucket::Users.name(), key.to_string(), error.to_string())
        })?;
        Ok(User {
            key: *key,
            label,
            admin: self.admin,
            revoked: self.revoked.is_some(),
            added_at: Timestamp::from_millis(self.added_at),
            revoked_at: self.revoked.as_ref().map(|end| Timestamp::from_millis(end.at)),
        })
    }
}

/// `users`: the number of active admins, by which a bootstrap and the last admin's revocation are decided (clauses
/// USER-1, USER-4). The record exists exactly if an admin was ever made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct Admins {
    pub(in crate::jetstream) active: u64,
}
