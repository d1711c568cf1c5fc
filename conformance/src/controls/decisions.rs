//! Stores with wrong decisions: most allow somebody whom they must deny.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use membership::{Decision, DenyReason, Error, Store, UserKey};

use super::controls;
use super::defect::Defect;
use super::listings::locked;

controls! {
    allows_on_error: "AUTH-2", "answers is_authorized with Allow when the decision fails" => AllowsOnError;
    allows_on_timeout unseen: "AUTH-2", "answers is_authorized with Allow when the decision times out" => AllowsOnTimeout;
    admits_admins_on_error: "AUTH-2", "answers is_admin with Allow when the decision fails" => AdminOnError;
    allows_the_unknown: "AUTH-1", "answers is_authorized with Allow for an unknown user" => AllowsUnknown;
    every_user_is_an_admin: "AUTH-1", "answers is_admin with Allow for every active user" => AllAdmins;
    denies_without_the_reason: "AUTH-1", "denies a revoked user with the reason Unknown" => WrongReason;
    caches_decisions: "AUTH-3", "answers is_authorized from a cache for 50 ms" => Caches;
    caches_decisions_per_client: "AUTH-3", "answers is_authorized from a client's cache for 50 ms, which other clients do not clear" => CachesPerClient;
    no_admin_on_error unseen: "AUTH-5", "answers has_admin with false when the read fails" => NoAdminOnError;
    no_admin_when_closed: "AUTH-5", "answers has_admin with false after close" => NoAdminClosed;
    stop_stops_nothing unseen: "AUTH-2", "goes on answering during a fault that must stop it" => StopsNothing;
}

fn failed(decision: &Decision) -> bool {
    matches!(decision, Decision::Deny(DenyReason::Failed(_)))
}

#[derive(Default)]
struct AllowsOnError;

#[async_trait]
impl Defect for AllowsOnError {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let decision = inner.is_authorized(key).await;
        if failed(&decision) { Decision::Allow } else { decision }
    }
}

#[derive(Default)]
struct AllowsOnTimeout;

#[async_trait]
impl Defect for AllowsOnTimeout {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        match inner.is_authorized(key).await {
            Decision::Deny(DenyReason::Failed(Error::Timeout)) => Decision::Allow,
            other => other,
        }
    }
}

#[derive(Default)]
struct AdminOnError;

#[async_trait]
impl Defect for AdminOnError {
    async fn is_admin(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let decision = inner.is_admin(key).await;
        if failed(&decision) { Decision::Allow } else { decision }
    }
}

#[derive(Default)]
struct AllowsUnknown;

#[async_trait]
impl Defect for AllowsUnknown {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        match inner.is_authorized(key).await {
            Decision::Deny(DenyReason::Unknown) => Decision::Allow,
            other => other,
        }
    }
}

#[derive(Default)]
struct AllAdmins;

#[async_trait]
impl Defect for AllAdmins {
    async fn is_admin(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        inner.is_authorized(key).await
    }
}

#[derive(Default)]
struct WrongReason;

#[async_trait]
impl Defect for WrongReason {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        match inner.is_authorized(key).await {
            Decision::Deny(DenyReason::Revoked) => Decision::Deny(DenyReason::Unknown),
            other => other,
        }
    }
}

#[derive(Default)]
struct Cache(Mutex<BTreeMap<UserKey, (Instant, Decision)>>);

impl Cache {
    async fn decide(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let known = locked(&self.0).get(key).cloned();
        match known {
            Some((at, decision)) if at.elapsed() < Duration::from_millis(50) => decision,
            _ => {
                let decision = inner.is_authorized(key).await;
                locked(&self.0).insert(*key, (Instant::now(), decision.clone()));
                decision
            }
        }
    }
}

#[derive(Default)]
struct Caches(Cache);

#[async_trait]
impl Defect for Caches {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        self.0.decide(inner, key).await
    }
}

#[derive(Default)]
struct CachesPerClient(Cache);

#[async_trait]
impl Defect for CachesPerClient {
    const PER_CLIENT: bool = true;

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        self.0.decide(inner, key).await
    }

    async fn add_user(
        &self,
        inner: &dyn Store,
        new: membership::NewUser,
    ) -> Result<membership::User, Error> {
        locked(&self.0.0).remove(&new.key);
        inner.add_user(new).await
    }

    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: membership::Timestamp,
    ) -> Result<(), Error> {
        let done = inner.revoke_user(key, at).await;
        locked(&self.0.0).remove(key);
        done
    }
}

#[derive(Default)]
struct NoAdminOnError;

#[async_trait]
impl Defect for NoAdminOnError {
    async fn has_admin(&self, inner: &dyn Store) -> Result<bool, Error> {
        match inner.has_admin().await {
            Err(Error::Unavailable(_) | Error::Timeout) => Ok(false),
            other => other,
        }
    }
}

#[derive(Default)]
struct NoAdminClosed;

#[async_trait]
impl Defect for NoAdminClosed {
    async fn has_admin(&self, inner: &dyn Store) -> Result<bool, Error> {
        match inner.has_admin().await {
            Err(Error::Closed) => Ok(false),
            other => other,
        }
    }
}

#[derive(Default)]
struct StopsNothing;

impl Defect for StopsNothing {
    fn breaks(&self) -> bool {
        false
    }
}
