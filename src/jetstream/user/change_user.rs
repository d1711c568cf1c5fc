//! Changes users. A change is a compare-and-set of the user's record; for an admin, a batch with `=admins`.

use tokio::time::Instant;

use crate::error::{Conflict, Record};
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::exchange::{Put, WriteError, in_doubt};
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::format::FormatRecord;
use crate::jetstream::stored::user_records::{Admins, UserRecord};
use crate::jetstream::stored::{bucket_key, random_id};
use crate::jetstream::user::user_client::UserClient;
use crate::trace::event;
use crate::{Error, NewUser, Timestamp, User, UserKey};

/// A change of one user, planned on the copy.
struct Plan {
    write: String,
    key: UserKey,
    user: UserRecord,
    revision: u64,
    /// The new `=admins` and the revision that it replaces, if the change concerns an admin.
    admins: Option<(Admins, u64)>,
    /// The revision of `=format`, if the change makes the store's first admin. The batch rewrites `=format` over this
    /// revision, so servers refuse it if the bucket was emptied (clause PAST-3).
    format: Option<u64>,
}

impl UserClient {
    pub(in crate::jetstream) async fn bootstrap_admin(
        &self,
        new: NewUser,
        deadline: Instant,
    ) -> Result<User, Error> {
        self.make_user(NewUser { admin: true, ..new }, true, deadline).await
    }

    pub(in crate::jetstream) async fn add_user(
        &self,
        new: NewUser,
        deadline: Instant,
    ) -> Result<User, Error> {
        self.make_user(new, false, deadline).await
    }

    async fn make_user(&self, new: NewUser, first: bool, deadline: Instant) -> Result<User, Error> {
        loop {
            let (seen, fresh) = self.see_users_since().await?;
            let ((admins, admins_revision), (known, revision), format) = {
                let copy = seen.look()?;
                (copy.admins()?, copy.user(&new.key)?, copy.format_revision())
            };
            if first && admins.is_some() {
                return Err(Conflict::AdminExists.into());
            }
            if known.is_some() {
                // If the copy lacks an admin that was made, the error must be the conflict, which comes first (ERR-4).
                // So the key counts as known only if `=admins` is the newest.
                if first && !self.is_newest(admins_revision, fresh).await? {
                    continue;
                }
                return Err(Error::AlreadyExists(Record::User(new.key)));
            }
            let format = (new.admin && admins.is_none()).then_some(format);
            // The copy has no `=admins`. The change makes the first admin only if the bucket has no `=admins` either.
            if format.is_some() && !self.is_newest(admins_revision, fresh).await? {
                continue;
            }
            let write = random_id::fresh()?;
            let record = UserRecord::new(&new, &write);
            let admins = new.admin.then(|| {
                let active = admins.map_or(0, |admins| admins.active);
                (Admins { active: active + 1 }, admins_revision)
            });
            let plan = Plan { write, key: new.key, user: record, revision, admins, format };
            if self.settle_user(&plan, deadline).await? {
                return Ok(new.user());
            }
        }
    }

    pub(in crate::jetstream) async fn revoke_user(
        &self,
        key: &UserKey,
        at: Timestamp,
        deadline: Instant,
    ) -> Result<(), Error> {
        loop {
            let (seen, fresh) = self.see_users_since().await?;
            let ((record, revision), admins, others) = {
                let copy = seen.look()?;
                (copy.user(key)?, copy.admins(), copy.has_admin(Some(key)))
            };
            let Some(record) = record else {
                // The copy may lack a user whose record was replaced before its delivery. So the bucket is asked before
                // the error is returned.
                let known =
                    self.look_up(&bucket_key::user(key), |copy| Ok(copy.user(key)?.0)).await?;
                if known.is_some() {
                    continue;
                }
                return Err(Error::NotFound(Record::User(*key)));
            };
            if record.revoked.is_some() {
                return Ok(());
            }
            let write = random_id::fresh()?;
            let admins = if record.admin {
                let (admins, admins_revision) = admins?;
                let active = admins.map_or(0, |admins| admins.active);
                if active <= 1 || others != Ok(true) {
                    // The copy may lack another admin whose record was replaced before its delivery. So the conflict is
                    // returned only if `=admins` is the newest.
                    if !self.is_newest(admins_revision, fresh).await? {
                        continue;
                    }
                    if active <= 1 || !others? {
                        return Err(Conflict::LastAdmin.into());
                    }
                }
                Some((Admins { active: active - 1 }, admins_revision))
            } else {
                None
            };
            let user = record.revoke(at, &write);
            let plan = Plan { write, key: *key, user, revision, admins, format: None };
            if self.settle_user(&plan, deadline).await? {
                return Ok(());
            }
        }
    }

    /// Commits a change if the records that it was planned on have not changed. Returns `false` if the change was not
    /// made and never will be.
    async fn settle_user(&self, plan: &Plan, deadline: Instant) -> Result<bool, Error> {
        let user = Put::record(Bucket::Users, bucket_key::user(&plan.key), &plan.user)?
            .expecting(plan.revision);
        let mut puts: Vec<Put> = Vec::new();
        if let Some(revision) = plan.format {
            let store = self.copy.store().to_owned();
            let format = FormatRecord { admin_made: true, ..FormatRecord::new(store) };
            let format = Put::record(Bucket::Users, bucket_key::FORMAT.to_owned(), &format)?;
            puts.push(format.expecting(revision));
        }
        puts.push(user);
        if let Some((admins, revision)) = &plan.admins {
            let admins = Put::record(Bucket::Users, bucket_key::ADMINS.to_owned(), admins)?;
            puts.push(if self.buckets.is(JetStreamDefect::CountsAdminsApart) {
                admins
            } else {
                admins.expecting(*revision)
            });
        }
        let mut doubt = false;
        let mut pause = Pause::new(deadline);
        loop {
            let sent = match puts.as_slice() {
                [one] => self.buckets.gateway.publish(Bucket::Users, one.clone(), deadline).await,
                all => self.buckets.gateway.batch(Bucket::Users, all.to_vec(), deadline).await,
            };
            let error = match sent {
                Ok(revision) => {
                    event!(call: debug, "committed", messages = puts.len(), revision);
                    return Ok(true);
                }
                Err(WriteError::Failed(error)) if !doubt => return Err(error),
                Err(WriteError::Refused) => Error::Timeout,
                Err(WriteError::Failed(error) | WriteError::Unknown(error)) => {
                    doubt = true;
                    error
                }
            };
            let told = |error| if doubt { in_doubt(error) } else { error };
            event!(call: debug, "a commit was refused or not acknowledged: the copy tells");
            // A refusal proves nothing: it may come from a former leader, or concern a second copy of the message.
            if let Some(happened) = self.happened(plan).await.map_err(told)? {
                return Ok(happened);
            }
            pause.after(error).await.map_err(told)?;
        }
    }

    /// Whether the copy has a change. `None` if the change was not made and may still be.
    ///
    /// A user's record is stored at most twice and keeps the ids of both writes, so the outcome can always be told.
    async fn happened(&self, plan: &Plan) -> Result<Option<bool>, Error> {
        let (seen, fresh) = self.see_users_since().await?;
        let ((_, admins_revision), (now, revision)) = {
            let copy = seen.look()?;
            (copy.admins()?, copy.user(&plan.key)?)
        };
        if now.is_some_and(|now| now.is_by(&plan.write)) {
            return Ok(Some(true));
        }
        if revision != plan.revision {
            return Ok(Some(false));
        }
        let planned = plan.admins.as_ref().map_or(admins_revision, |(_, planned)| *planned);
        if planned == admins_revision {
            return Ok(None);
        }
        // The change may have added a user who was revoked before the addition could be delivered. Then the copy lacks
        // the user and the bucket does not.
        let hidden = revision == 0 && self.is_there(&bucket_key::user(&plan.key), fresh).await?;
        Ok((!hidden).then_some(false))
    }
}
