//! The proof that the copy of users is fresh: the latest barrier that it has received. The bounded mode decides by it
//! alone while it is young enough (clause AUTH-4).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::Error;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::barrier::Sender;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::clock::Clock;
use crate::jetstream::gateway::tries::Gateway;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::user::users_copy::{CopyLife, UsersCopy};
use crate::mutation::Mutation;

/// The latest barrier of `users` that the copy has received: when it was sent, by a clock that goes on while the machine
/// is suspended, and in which life of the copy.
pub(in crate::jetstream) struct CopyProof {
    pub(in crate::jetstream) clock: Clock,
    /// A defect: the clock stands still while the machine is suspended.
    stops: bool,
    latest: RwLock<Option<(Duration, CopyLife)>>,
}

impl CopyProof {
    pub(in crate::jetstream) fn new(clock: Clock, mutation: Mutation<JetStreamDefect>) -> Self {
        let stops = mutation.is(JetStreamDefect::StopsItsClock);
        Self { clock, stops, latest: RwLock::default() }
    }

    fn now(&self) -> Duration {
        if self.stops { self.clock.awake() } else { self.clock.now() }
    }

    fn set(&self, began: Duration, reached: CopyLife) {
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        if latest.is_none_or(|(before, _)| before < began) {
            *latest = Some((began, reached));
        }
    }

    /// The barrier that the copy has received, if it was sent less than `bound` ago.
    pub(in crate::jetstream) fn within(&self, bound: Duration) -> Option<CopyLife> {
        let latest = *self.latest.read().unwrap_or_else(PoisonError::into_inner);
        let (began, reached) = latest?;
        (self.now().saturating_sub(began) < bound).then_some(reached)
    }
}

/// A barrier of `users` counts when the copy in memory has received it.
pub(in crate::jetstream) fn users_barrier(
    gateway: Arc<Gateway>,
    users: Arc<UsersCopy>,
    proof: Arc<CopyProof>,
) -> Sender {
    Box::new(move |deadline| {
        let (gateway, users, proof) =
            (Arc::clone(&gateway), Arc::clone(&users), Arc::clone(&proof));
        Box::pin(async move {
            let (began, before) = (proof.now(), users.position());
            let passed = gateway.pass(Bucket::Users, deadline).await.inspect_err(|error| {
                // If the bucket went back, the copy is of a history that the servers lost.
                if *error != Error::Timeout {
                    users.kick();
                }
            })?;
            if passed.sequence <= before {
                users.kick();
                let problem = "the bucket users went back, or was replaced by another";
                return Err(Error::unavailable(problem));
            }
            let reached = users.reach(passed, deadline).await?;
            proof.set(began, reached);
            Ok(passed)
        })
    })
}

/// Renews the proof of freshness for as long as the store lives. A copy that begins anew has no proof, so the next
/// barrier is sent at once.
pub(in crate::jetstream) async fn renew(
    buckets: Arc<BucketClient>,
    copy: Arc<UsersCopy>,
    bound: Duration,
) {
    loop {
        let renewed = tokio::time::timeout(bound, buckets.barrier(Bucket::Users)).await;
        // After a failure the proof grows old, and decisions deny.
        let pause = if matches!(renewed, Ok(Ok(_))) { bound / 4 } else { RETRY.min(bound / 4) };
        let _ = tokio::time::timeout(pause, copy.begins_anew()).await;
    }
}

/// The wait after a barrier that failed.
const RETRY: Duration = Duration::from_millis(500);

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_proof_is_good_until_it_is_as_old_as_the_bound() {
        let second = Duration::from_secs(1);
        let (clock, [seven, eight, nine]) = (Clock::simulated(), [7, 8, 9].map(CopyLife::in_life));
        let proof = CopyProof::new(clock, Mutation::NONE);
        assert_eq!(proof.within(second), None);
        let first = proof.now();
        proof.set(first, seven);
        tokio::time::advance(second / 2).await;
        assert_eq!((proof.within(second), proof.within(second / 2)), (Some(seven), None));
        // Barriers may pass in another order than they began in.
        proof.set(proof.now(), nine);
        proof.set(first, eight);
        assert_eq!(proof.within(second / 4), Some(nine));
        // The machine is suspended: no timer goes on, and the bound is over.
        proof.clock.suspend(second);
        assert_eq!(proof.within(second), None);
    }
}
