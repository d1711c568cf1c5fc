//! Users: read from the copy in memory behind a barrier; written by compare-and-set, admins in one batch with
//! `=admins`.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::decision::Standing;
use crate::error::{Conflict, Record};
use crate::jetstream::core::{Core, few, in_doubt, put};
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::exchange::{Fresh, Put, WriteError};
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::format::FormatRecord;
use crate::jetstream::stored::user_records::{Admins, UserRecord};
use crate::jetstream::stored::{bucket_key, format, random_id};
use crate::jetstream::users_copy::{Contents, Seen};
use crate::{Error, NewUser, Page, Timestamp, User, UserKey};

/// How many barriers a call waits for a record that the bucket has and the copy lacks.
const LOOKS: usize = 3;

/// A change of one user, planned on the copy.
struct Plan {
    write: String,
    key: UserKey,
    user: UserRecord,
    revision: u64,
    /// `=admins` and the revision that it replaces, if the change concerns an admin.
    admins: Option<(Admins, u64)>,
    /// The revision of `=format`, if the change makes the store's first admin. The batch rewrites `=format` over
    /// this revision, so an emptied bucket refuses the batch (clause PAST-3).
    format: Option<u64>,
}

fn differs(key: &str) -> Error {
    Error::unavailable(format!("some replica of users has {key}, and the one that leads has not"))
}

impl Core {
    /// The copy, with everything that was acknowledged before this call began.
    async fn see_users(&self) -> Result<Seen<'_>, Error> {
        self.see_users_since().await.map(|(seen, _)| seen)
    }

    /// As [`see_users`](Self::see_users), and the freshness for a read that confirms an absence.
    async fn see_users_since(&self) -> Result<(Seen<'_>, Fresh), Error> {
        if self.is(JetStreamDefect::NoBarrier) || self.is(JetStreamDefect::NoBarrierForUsers) {
            return Ok((self.users.unproved(), Fresh::Whatever));
        }
        for _ in 0..LOOKS {
            let passed = self.barrier(Bucket::Users).await?;
            let seen = self.users.since(self.users.reached(passed)?);
            let fresh = Fresh::Barrier(passed);
            // The first admin's batch replaces `=format`. Until the feed delivers the new one, the copy may
            // have none.
            if self.users.format_revision() > 0 {
                return Ok((seen, fresh));
            }
            self.revision_of(bucket_key::FORMAT, fresh).await?;
        }
        Err(differs(bucket_key::FORMAT))
    }

    /// Reads a key's revision from the bucket, from a state that is at least as fresh as `fresh`; 0 if the key
    /// is absent. `Corrupt` if the same state lacks `=format`, since the bucket was emptied then, or `=admins` although
    /// `=format` says that an admin was made.
    async fn revision_of(&self, key: &str, fresh: Fresh) -> Result<u64, Error> {
        let mut filters = vec![bucket_key::FORMAT.to_owned()];
        filters.extend((key != bucket_key::FORMAT).then(|| key.to_owned()));
        let deadline = Instant::now() + self.op_timeout;
        let found = self.gateway.read(Bucket::Users, &filters, fresh, deadline).await;
        let found = found.map_err(|error| few(Bucket::Users, error))?;
        let missing = |key: &str, though: &str| {
            let problem = format!("missing, though {though}: it was purged, or messages vanished");
            Err(Error::corrupt(Bucket::Users.name(), key, problem))
        };
        let Some(format) = found.find(bucket_key::FORMAT) else {
            return missing(bucket_key::FORMAT, "the bucket was used");
        };
        match found.find(key) {
            Some(entry) => Ok(entry.sequence),
            None if key == bucket_key::ADMINS => {
                let format = format::format_of(Bucket::Users, &format.value, format.removal)?;
                if format.admin_made { missing(key, "an admin was made") } else { Ok(0) }
            }
            None => Ok(0),
        }
    }

    /// Whether the bucket has a key that the copy lacks. The copy lacks a user, for example, who was added and revoked before
    /// the addition could be delivered.
    ///
    /// The value is not used: the replica that answers may differ from the leader. If the leader has the key, the copy
    /// receives it by the next barrier.
    async fn is_there(&self, key: &str, fresh: Fresh) -> Result<bool, Error> {
        Ok(!self.is(JetStreamDefect::BelievesGaps) && self.revision_of(key, fresh).await? > 0)
    }

    /// The result of `look` in the copy; `None` only if the bucket lacks the key, too.
    async fn look_up<T>(
        &self,
        key: &str,
        look: impl Fn(&Contents) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let deadline = Instant::now() + self.op_timeout;
        let looks = async {
            for _ in 0..LOOKS {
                let (seen, fresh) = self.see_users_since().await?;
                if let Some(found) = look(&*seen.look()?)? {
                    return Ok(Some(found));
                }
                if !self.is_there(key, fresh).await? {
                    return Ok(None);
                }
            }
            Err(differs(key))
        };
        // Decisions have no other deadline.
        timeout_at(deadline, looks).await.unwrap_or(Err(Error::Timeout))
    }

    pub(super) async fn standing(&self, key: &UserKey) -> Result<Option<Standing>, Error> {
        self.look_up(&bucket_key::user(key), |copy| copy.standing(key)).await
    }

    pub(super) async fn user(&self, key: &UserKey) -> Result<User, Error> {
        let key_of_record = bucket_key::user(key);
        let record = self.look_up(&key_of_record, |copy| Ok(copy.user(key)?.0)).await?;
        record.ok_or(Error::NotFound(Record::User(*key)))?.user(key)
    }

    pub(super) async fn users(&self, page: &Page<UserKey>) -> Result<Vec<User>, Error> {
        loop {
            let (users, gaps) = self.see_users().await?.look()?.users(page)?;
            // A user who was missing from the page had been revoked before, and has arrived by now.
            if self.is(JetStreamDefect::BelievesGaps)
                || self.see_users().await?.look()?.gaps() == gaps
            {
                return Ok(users);
            }
        }
    }

    pub(super) async fn has_admin(&self) -> Result<bool, Error> {
        for _ in 0..LOOKS {
            let (seen, fresh) = self.see_users_since().await?;
            let (there, (_, revision)) = {
                let copy = seen.look()?;
                (copy.has_admin(None), copy.admins()?)
            };
            if there == Ok(true) || self.is_newest(revision, fresh).await? {
                return there;
            }
        }
        let problem = "some replica of users has other admins than the one that leads";
        Err(Error::unavailable(problem))
    }

    /// Whether `=admins` has this revision in the bucket. Every change of an admin changes it, so if it has, the copy lacks
    /// no admin.
    async fn is_newest(&self, revision: u64, fresh: Fresh) -> Result<bool, Error> {
        if self.is(JetStreamDefect::BelievesGaps) {
            return Ok(true);
        }
        Ok(self.revision_of(bucket_key::ADMINS, fresh).await? == revision)
    }

    pub(super) async fn bootstrap_admin(
        self: &Arc<Self>,
        new: NewUser,
        deadline: Instant,
    ) -> Result<User, Error> {
        self.make_user(NewUser { admin: true, ..new }, true, deadline).await
    }

    pub(super) async fn add_user(
        self: &Arc<Self>,
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
                // Unless an admin was made whom the copy lacks: that conflict comes first (ERR-4).
                if first && !self.is_newest(admins_revision, fresh).await? {
                    continue;
                }
                return Err(Error::AlreadyExists(Record::User(new.key)));
            }
            let format = (new.admin && admins.is_none()).then_some(format);
            // The first admin: unless `=admins` vanished, or the copy lacks it.
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

    pub(super) async fn revoke_user(
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
                // Unless the copy receives the user: the record may have been replaced before its delivery.
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
                    // Unless the copy lacks an admin whose record was replaced before its delivery.
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

    /// Commits a change if the records that it was planned on have not changed. `false`: the change was not made and never
    /// will be.
    async fn settle_user(&self, plan: &Plan, deadline: Instant) -> Result<bool, Error> {
        let user =
            put(Bucket::Users, bucket_key::user(&plan.key), &plan.user)?.expecting(plan.revision);
        let mut puts: Vec<Put> = Vec::new();
        if let Some(revision) = plan.format {
            let store = self.users.store().to_owned();
            let format = FormatRecord { admin_made: true, ..FormatRecord::new(store) };
            let format = put(Bucket::Users, bucket_key::FORMAT.to_owned(), &format)?;
            puts.push(format.expecting(revision));
        }
        puts.push(user);
        if let Some((admins, revision)) = &plan.admins {
            let admins = put(Bucket::Users, bucket_key::ADMINS.to_owned(), admins)?;
            puts.push(if self.is(JetStreamDefect::CountsAdminsApart) {
                admins
            } else {
                admins.expecting(*revision)
            });
        }
        let mut doubt = false;
        let mut pause = Pause::new(deadline);
        loop {
            let sent = match puts.as_slice() {
                [one] => self.gateway.publish(Bucket::Users, one.clone(), deadline).await,
                all => self.gateway.batch(Bucket::Users, all.to_vec(), deadline).await,
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
            // A refusal proves nothing: it may be a former leader's, or the answer to a second copy of the message.
            if let Some(happened) = self.happened(plan).await.map_err(told)? {
                return Ok(happened);
            }
            pause.after(error).await.map_err(told)?;
        }
    }

    /// Whether the copy has a change; `None`: the change was not made, and may still be.
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
        // Unless this change added the user, and the user was revoked before the addition could be delivered.
        let hidden = revision == 0 && self.is_there(&bucket_key::user(&plan.key), fresh).await?;
        Ok((!hidden).then_some(false))
    }
}
