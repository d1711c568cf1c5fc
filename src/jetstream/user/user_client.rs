//! Reads users from the copy in memory, behind a barrier. A user whom the copy lacks is looked up in the bucket.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::decision::Standing;
use crate::error::Record;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::Fresh;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::{bucket_key, format};
use crate::jetstream::user::users_copy::{Contents, Seen, UsersCopy};
use crate::{Error, Page, User, UserKey};

/// How many barriers a call waits for a record that the bucket has and the copy lacks.
const LOOKS: usize = 3;

fn differs(key: &str) -> Error {
    Error::unavailable(format!("some replica of users has {key}, and the one that leads has not"))
}

/// The error for a key that is missing although its message must exist.
pub(super) fn missing(key: &str, though: &str) -> Error {
    let problem = format!("missing, though {though}: it was purged, or messages vanished");
    Error::corrupt(Bucket::Users.name(), key, problem)
}

/// Reads and changes users, for one client.
pub(in crate::jetstream) struct UserClient {
    pub(super) buckets: Arc<BucketClient>,
    pub(in crate::jetstream) copy: Arc<UsersCopy>,
    op_timeout: Duration,
}

impl UserClient {
    pub(in crate::jetstream) fn new(
        buckets: Arc<BucketClient>,
        copy: Arc<UsersCopy>,
        op_timeout: Duration,
    ) -> Self {
        Self { buckets, copy, op_timeout }
    }

    /// Returns the copy once it has every change that was acknowledged before this call began.
    async fn see_users(&self) -> Result<Seen<'_>, Error> {
        self.see_users_since().await.map(|(seen, _)| seen)
    }

    /// As [`see_users`](Self::see_users). Also returns the freshness for a read that confirms an absence.
    pub(super) async fn see_users_since(&self) -> Result<(Seen<'_>, Fresh), Error> {
        if self.buckets.is(JetStreamDefect::NoBarrier)
            || self.buckets.is(JetStreamDefect::NoBarrierForUsers)
        {
            return Ok((self.copy.unproved(), Fresh::Whatever));
        }
        for _ in 0..LOOKS {
            let passed = self.buckets.barrier(Bucket::Users).await?;
            let seen = self.copy.since(self.copy.reached(passed)?);
            let fresh = Fresh::Barrier(passed);
            // The first admin's batch replaces `=format`. Until the feed delivers the new one, the copy may have no
            // `=format`.
            if self.copy.format_revision() > 0 {
                return Ok((seen, fresh));
            }
            self.revision_of(bucket_key::FORMAT, fresh).await?;
        }
        Err(differs(bucket_key::FORMAT))
    }

    /// Reads a key's revision from the bucket, from a state that is at least as fresh as `fresh`; 0 if the key is
    /// absent.
    ///
    /// `Corrupt` if that state lacks `=format`, since the bucket was emptied then. Also `Corrupt` if it lacks `=admins`
    /// although the `=format` of both the state and the copy says that an admin was made. If the state lacks `=admins`
    /// and the copy has another `=format`, the copy is behind or the replicas differ. Then the result is the revision
    /// of `=format`, which is never that of `=admins`.
    async fn revision_of(&self, key: &str, fresh: Fresh) -> Result<u64, Error> {
        let mut filters = vec![bucket_key::FORMAT.to_owned()];
        filters.extend((key != bucket_key::FORMAT).then(|| key.to_owned()));
        let deadline = Instant::now() + self.op_timeout;
        let (users, patience) = (Bucket::Users, self.op_timeout);
        let found = self.buckets.read_since(users, &filters, fresh, patience, deadline).await;
        let found = found.map_err(|error| error.for_few_keys(users))?;
        let Some(format) = found.find(bucket_key::FORMAT) else {
            return Err(missing(bucket_key::FORMAT, "the bucket was used"));
        };
        match found.find(key) {
            Some(entry) => Ok(entry.sequence),
            None if key == bucket_key::ADMINS => {
                let revision = format.sequence;
                let format = format::format_of(Bucket::Users, &format.value, format.removal)?;
                match (format.admin_made, self.copy.format_revision() == revision) {
                    (false, _) => Ok(0),
                    (true, true) => Err(missing(key, "an admin was made")),
                    (true, false) => Ok(revision),
                }
            }
            None => Ok(0),
        }
    }

    /// Whether the bucket has a key that the copy lacks. For example, the copy lacks a user who was added and revoked
    /// before the addition could be delivered.
    ///
    /// The value is not used, since the replica that answers may differ from the leader. If the leader has the key, the
    /// copy receives it by the next barrier.
    pub(super) async fn is_there(&self, key: &str, fresh: Fresh) -> Result<bool, Error> {
        Ok(!self.buckets.is(JetStreamDefect::BelievesGaps)
            && self.revision_of(key, fresh).await? > 0)
    }

    /// Returns the result of `look` in the copy. `None` only if the bucket lacks the key, too.
    pub(super) async fn look_up<T>(
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
        // This is the only deadline of decisions.
        timeout_at(deadline, looks).await.unwrap_or(Err(Error::Timeout))
    }

    pub(in crate::jetstream) async fn standing(
        &self,
        key: &UserKey,
    ) -> Result<Option<Standing>, Error> {
        self.look_up(&bucket_key::user(key), |copy| copy.standing(key)).await
    }

    pub(in crate::jetstream) async fn user(&self, key: &UserKey) -> Result<User, Error> {
        let key_of_record = bucket_key::user(key);
        let record = self.look_up(&key_of_record, |copy| Ok(copy.user(key)?.0)).await?;
        record.ok_or(Error::NotFound(Record::User(*key)))?.user(key)
    }

    pub(in crate::jetstream) async fn users(
        &self,
        page: &Page<UserKey>,
    ) -> Result<Vec<User>, Error> {
        loop {
            let (users, gaps) = self.see_users().await?.look()?.users(page)?;
            // A user may be missing from the page although it was added before. Such a user had been revoked by then,
            // and its record has arrived by now.
            if self.buckets.is(JetStreamDefect::BelievesGaps)
                || self.see_users().await?.look()?.gaps() == gaps
            {
                return Ok(users);
            }
        }
    }

    pub(in crate::jetstream) async fn has_admin(&self) -> Result<bool, Error> {
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

    /// Whether `=admins` has this revision in the bucket. Every change of an admin changes `=admins`, so if the
    /// revision is the same, the copy lacks no admin.
    pub(super) async fn is_newest(&self, revision: u64, fresh: Fresh) -> Result<bool, Error> {
        if self.buckets.is(JetStreamDefect::BelievesGaps) {
            return Ok(true);
        }
        Ok(self.revision_of(bucket_key::ADMINS, fresh).await? == revision)
    }
}
