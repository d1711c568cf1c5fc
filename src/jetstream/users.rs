//! Users: read from the copy in memory behind a barrier; written by compare-and-set, changes of
//! admins together with the one record they are decided on.

use std::sync::Arc;

use tokio::time::Instant;

use crate::decision::Standing;
use crate::error::{Conflict, Record};
use crate::jetstream::bucket::Bucket;
use crate::jetstream::core::{Core, in_doubt, put};
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::{Pause, Put, WriteError};
use crate::jetstream::key;
use crate::jetstream::record::{Admins, UserRecord};
use crate::jetstream::replica::Seen;
use crate::{Error, NewUser, Page, Timestamp, User, UserKey};

/// A change to one user, planned on the copy.
struct Plan {
    write: String,
    key: UserKey,
    user: UserRecord,
    revision: u64,
    /// The record of admins, where the change concerns them, and the revision it replaces.
    admins: Option<(Admins, u64)>,
}

impl Core {
    /// The copy has everything that was acknowledged before this call.
    async fn see_users(&self) -> Result<Seen<'_>, Error> {
        Ok(self.users.since(self.barrier(Bucket::Users).await?))
    }

    pub(super) async fn standing(&self, key: &UserKey) -> Result<Option<Standing>, Error> {
        self.see_users().await?.standing(key)
    }

    pub(super) async fn user(&self, key: &UserKey) -> Result<User, Error> {
        let (record, _) = self.see_users().await?.user(key)?;
        record.ok_or(Error::NotFound(Record::User(*key)))?.user(key)
    }

    pub(super) async fn users(&self, page: &Page<UserKey>) -> Result<Vec<User>, Error> {
        self.see_users().await?.users(page)
    }

    pub(super) async fn has_admin(&self) -> Result<bool, Error> {
        self.see_users().await?.has_admin(None)
    }

    pub(super) async fn bootstrap_admin(
        self: &Arc<Self>,
        new: NewUser,
        by: Instant,
    ) -> Result<User, Error> {
        self.make_user(NewUser { admin: true, ..new }, true, by).await
    }

    pub(super) async fn add_user(
        self: &Arc<Self>,
        new: NewUser,
        by: Instant,
    ) -> Result<User, Error> {
        self.make_user(new, false, by).await
    }

    async fn make_user(&self, new: NewUser, first: bool, by: Instant) -> Result<User, Error> {
        loop {
            let seen = self.see_users().await?;
            let (admins, admins_revision) = seen.admins()?;
            if first && admins.is_some() {
                return Err(Conflict::AdminExists.into());
            }
            let (known, revision) = seen.user(&new.key)?;
            if known.is_some() {
                return Err(Error::AlreadyExists(Record::User(new.key)));
            }
            let write = key::fresh()?;
            let record = UserRecord::new(&new, &write);
            let admins = new.admin.then(|| {
                let active = admins.map_or(0, |admins| admins.active);
                (Admins { active: active + 1 }, admins_revision)
            });
            let plan = Plan { write, key: new.key, user: record, revision, admins };
            if self.settle_user(&plan, by).await? {
                return Ok(new.user());
            }
        }
    }

    pub(super) async fn revoke_user(
        &self,
        key: &UserKey,
        at: Timestamp,
        by: Instant,
    ) -> Result<(), Error> {
        loop {
            let seen = self.see_users().await?;
            let (record, revision) = seen.user(key)?;
            let record = record.ok_or(Error::NotFound(Record::User(*key)))?;
            if record.revoked.is_some() {
                return Ok(());
            }
            let write = key::fresh()?;
            let admins = if record.admin {
                let (admins, admins_revision) = seen.admins()?;
                let active = admins.map_or(0, |admins| admins.active);
                if active <= 1 || !seen.has_admin(Some(key))? {
                    return Err(Conflict::LastAdmin.into());
                }
                Some((Admins { active: active - 1 }, admins_revision))
            } else {
                None
            };
            let user = record.revoke(at, &write);
            let plan = Plan { write, key: *key, user, revision, admins };
            if self.settle_user(&plan, by).await? {
                return Ok(());
            }
        }
    }

    /// Makes a change happen if nothing it was planned on has changed. `false`: it did not and
    /// will not happen.
    async fn settle_user(&self, plan: &Plan, by: Instant) -> Result<bool, Error> {
        let user = put(Bucket::Users, key::user(&plan.key), &plan.user)?.expecting(plan.revision);
        let mut puts: Vec<Put> = vec![user];
        if let Some((admins, revision)) = &plan.admins {
            let admins = put(Bucket::Users, key::ADMINS.to_owned(), admins)?;
            puts.push(if self.is(JetStreamDefect::CountsAdminsApart) {
                admins
            } else {
                admins.expecting(*revision)
            });
        }
        let mut doubt = false;
        let mut pause = Pause::new(by);
        loop {
            let sent = match puts.as_slice() {
                [one] => self.gateway.publish(Bucket::Users, one.clone(), by).await,
                all => self.gateway.batch(Bucket::Users, all.to_vec(), by).await,
            };
            let error = match sent {
                Ok(_) => return Ok(true),
                Err(WriteError::Failed(error)) if !doubt => return Err(error),
                Err(WriteError::Refused) => Error::Timeout,
                Err(WriteError::Failed(error) | WriteError::Unknown(error)) => {
                    doubt = true;
                    error
                }
            };
            let told = |error| if doubt { in_doubt(error) } else { error };
            // A refusal proves nothing: it may be a former leader's, or that of a second copy.
            let happened = self.see_users().await.and_then(|seen| happened(seen, plan));
            if let Some(happened) = happened.map_err(told)? {
                return Ok(happened);
            }
            pause.after(error).await.map_err(told)?;
        }
    }
}

/// Whether a change happened, by the copy; `None`: it did not, but may still.
///
/// A user's record is written at most twice, and knows both writes: so what became of a change
/// can always be told.
fn happened(seen: Seen<'_>, plan: &Plan) -> Result<Option<bool>, Error> {
    // Before the user: what the change itself did to it must not look like another's.
    let (_, admins_revision) = seen.admins()?;
    let (now, revision) = seen.user(&plan.key)?;
    if now.is_some_and(|now| now.is_by(&plan.write)) {
        return Ok(Some(true));
    }
    let admins_changed =
        plan.admins.as_ref().is_some_and(|(_, planned)| *planned != admins_revision);
    Ok((admins_changed || revision != plan.revision).then_some(false))
}
