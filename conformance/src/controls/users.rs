//! Stores that treat users and admins wrongly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use membership::{
    Conflict, Decision, Error, Label, NewUser, Record, Store, Timestamp, User, UserKey,
};

use super::controls;
use super::defect::Defect;
use super::listings::locked;

controls! {
    bootstraps_again: "USER-1", "makes another admin at a second bootstrap" => BootstrapsAgain;
    bootstrap_tells_exists_first: "USER-1", "returns AlreadyExists instead of Conflict for a second bootstrap of a known key" => ExistsFirst;
    replaces_a_user: "USER-2", "changes a user's label when the user is added again" => Relabels;
    readmits_the_revoked: "USER-3", "lets a revoked user in again when the user is added again" => Readmits;
    revokes_the_unknown: "USER-3", "returns success when an unknown user is revoked" => RevokesUnknown;
    revokes_again_later: "USER-3", "changes the time of a revocation when the user is revoked again" => RevokesAgain;
    revokes_the_last_admin: "USER-4", "returns success for the revocation of the last active admin, and keeps the admin active" => LastAdminGoes;
    forgets_when_revoked: "USER-5", "returns a revoked user without the time of the revocation" => ForgetsWhen;
    user_from_a_missing_one: "ERR-1", "returns an empty user for a missing one" => EmptyUser;
}

#[derive(Default)]
struct BootstrapsAgain;

#[async_trait]
impl Defect for BootstrapsAgain {
    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        match inner.bootstrap_admin(new.clone()).await {
            Err(Error::Conflict(Conflict::AdminExists)) => {
                inner.add_user(NewUser { admin: true, ..new }).await
            }
            other => other,
        }
    }
}

#[derive(Default)]
struct ExistsFirst;

#[async_trait]
impl Defect for ExistsFirst {
    async fn bootstrap_admin(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        if inner.user(&new.key).await.is_ok() {
            return Err(Error::AlreadyExists(Record::User(new.key)));
        }
        inner.bootstrap_admin(new).await
    }
}

#[derive(Default)]
struct Relabels(Mutex<BTreeMap<UserKey, Label>>);

#[async_trait]
impl Defect for Relabels {
    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        let (key, label) = (new.key, new.label.clone());
        let added = inner.add_user(new).await;
        if let Err(Error::AlreadyExists(_)) = added {
            locked(&self.0).insert(key, label);
        }
        added
    }

    async fn user(&self, inner: &dyn Store, key: &UserKey) -> Result<User, Error> {
        let user = inner.user(key).await?;
        let label = locked(&self.0).get(key).cloned();
        Ok(User { label: label.unwrap_or(user.label), ..user })
    }
}

#[derive(Default)]
struct Readmits(Mutex<BTreeSet<UserKey>>);

#[async_trait]
impl Defect for Readmits {
    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        match inner.add_user(new.clone()).await {
            Err(Error::AlreadyExists(_)) if inner.user(&new.key).await?.revoked => {
                locked(&self.0).insert(new.key);
                Ok(new.user())
            }
            other => other,
        }
    }

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let decision = inner.is_authorized(key).await;
        if locked(&self.0).contains(key) { Decision::Allow } else { decision }
    }
}

#[derive(Default)]
struct RevokesUnknown;

#[async_trait]
impl Defect for RevokesUnknown {
    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        match inner.revoke_user(key, at).await {
            Err(Error::NotFound(_)) => Ok(()),
            other => other,
        }
    }
}

#[derive(Default)]
struct RevokesAgain(Mutex<BTreeMap<UserKey, Timestamp>>);

#[async_trait]
impl Defect for RevokesAgain {
    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        inner.revoke_user(key, at).await?;
        locked(&self.0).insert(*key, at);
        Ok(())
    }

    async fn user(&self, inner: &dyn Store, key: &UserKey) -> Result<User, Error> {
        let user = inner.user(key).await?;
        let last = locked(&self.0).get(key).copied();
        Ok(User { revoked_at: last.or(user.revoked_at), ..user })
    }
}

#[derive(Default)]
struct LastAdminGoes;

#[async_trait]
impl Defect for LastAdminGoes {
    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        match inner.revoke_user(key, at).await {
            Err(Error::Conflict(Conflict::LastAdmin)) => Ok(()),
            other => other,
        }
    }
}

#[derive(Default)]
struct ForgetsWhen;

#[async_trait]
impl Defect for ForgetsWhen {
    async fn user(&self, inner: &dyn Store, key: &UserKey) -> Result<User, Error> {
        Ok(User { revoked_at: None, ..inner.user(key).await? })
    }
}

#[derive(Default)]
struct EmptyUser;

#[async_trait]
impl Defect for EmptyUser {
    async fn user(&self, inner: &dyn Store, key: &UserKey) -> Result<User, Error> {
        match inner.user(key).await {
            Err(Error::NotFound(_)) => {
                let (label, added_at) = (Label::new("")?, Timestamp::from_millis(0));
                Ok(NewUser { key: *key, label, admin: false, added_at }.user())
            }
            other => other,
        }
    }
}
