//! The proof that the copy of users is fresh: the latest barrier that the copy has received. While this barrier is
//! young enough, the bounded mode decides by the proof alone (clause AUTH-4).

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::barrier::Sender;
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::clock::Clock;
use crate::jetstream::gateway::exchange::{Fresh, Passed};
use crate::jetstream::gateway::tries::Gateway;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key;
use crate::jetstream::user::user_client::missing;
use crate::jetstream::user::users_copy::{CopyLife, UsersCopy};
use crate::mutation::Mutation;
use crate::trace::event;

/// The latest barrier of `users` that the copy has received: the time at which it was sent, and the life of the copy at
/// that time. The clock goes on while the machine is suspended.
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

    /// Returns the life in which the copy received the latest barrier, if the barrier was sent less than `bound` ago.
    pub(in crate::jetstream) fn within(&self, bound: Duration) -> Option<CopyLife> {
        let latest = *self.latest.read().unwrap_or_else(PoisonError::into_inner);
        let (began, reached) = latest?;
        (self.now().saturating_sub(began) < bound).then_some(reached)
    }
}

/// The barriers of `users` that one client sends, one after the other.
///
/// No consumer reports messages that vanished before their delivery. So each barrier proves that nothing vanished since
/// the barrier before it: the server stores the new barrier only if the one before is still there. That one is older
/// than every message since, and a stream loses its oldest messages first.
#[derive(Default)]
struct Chain {
    /// How many barriers are in flight.
    in_flight: usize,
    /// The sequence of the newest barrier, if it is proved that no message up to that barrier has vanished.
    newest: Option<u64>,
}

/// A barrier in flight.
struct InFlight<'a> {
    chain: &'a Mutex<Chain>,
    /// The sequence of the barrier before this one. `None` if it is unknown, or if that barrier may not be the newest
    /// any more when this one is stored.
    previous: Option<u64>,
}

impl<'a> InFlight<'a> {
    fn begin(chain: &'a Mutex<Chain>) -> Self {
        let mut held = chain.lock().unwrap_or_else(PoisonError::into_inner);
        held.in_flight += 1;
        let previous = held.newest.filter(|_| held.in_flight == 1);
        drop(held);
        Self { chain, previous }
    }

    /// Records that no message up to this barrier has vanished.
    fn proved(&self, passed: Passed) {
        let mut held = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        held.newest = held.newest.max(Some(passed.sequence));
    }

    /// Records that vanished messages may have gone unnoticed.
    fn failed(&self) {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).newest = None;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).in_flight -= 1;
    }
}

/// Makes the function that sends barriers of `users`. Such a barrier counts once the copy in memory has received it, if
/// no message vanished before it.
pub(in crate::jetstream) fn users_barrier(
    gateway: Arc<Gateway>,
    users: Arc<UsersCopy>,
    proof: Arc<CopyProof>,
) -> Sender {
    let chain = Arc::new(Mutex::new(Chain::default()));
    Box::new(move |deadline| {
        let (gateway, users, proof) =
            (Arc::clone(&gateway), Arc::clone(&users), Arc::clone(&proof));
        let chain = Arc::clone(&chain);
        Box::pin(async move {
            let this = InFlight::begin(&chain);
            let sent = send(&gateway, &users, &proof, this.previous, deadline).await;
            match &sent {
                Ok(passed) => this.proved(*passed),
                Err(_) => this.failed(),
            }
            sent
        })
    })
}

async fn send(
    gateway: &Gateway,
    users: &UsersCopy,
    proof: &CopyProof,
    previous: Option<u64>,
    deadline: Instant,
) -> Result<Passed, Error> {
    let (began, before) = (proof.now(), users.position());
    let passed = gateway.pass_behind(Bucket::Users, previous, deadline).await;
    let (passed, nothing_vanished) = passed.inspect_err(|error| {
        // If the bucket went back, the copy belongs to a history that the servers lost.
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
    if !nothing_vanished {
        has_its_first_message(gateway, passed, deadline).await?;
    }
    proof.set(began, reached);
    Ok(passed)
}

/// Fails if `users` has lost `=format`. An age limit removes this message before any change of a user that was made
/// since the first admin, and a purge removes all messages.
async fn has_its_first_message(
    gateway: &Gateway,
    passed: Passed,
    deadline: Instant,
) -> Result<(), Error> {
    let (users, format) = (Bucket::Users, bucket_key::FORMAT);
    let read = gateway.read(users, &[format.to_owned()], Fresh::Barrier(passed), deadline).await;
    match read.map_err(|error| error.for_few_keys(users))?.find(format) {
        Some(_) => Ok(()),
        None => Err(missing(format, "the bucket was used")),
    }
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
        if !matches!(renewed, Ok(Ok(_))) {
            event!(users: debug, "the proof of freshness is not renewed: decisions deny once it is too old");
        }
        // After a failure the proof grows old, and then decisions deny.
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
        // Barriers may be acknowledged in another order than that in which they were sent.
        proof.set(proof.now(), nine);
        proof.set(first, eight);
        assert_eq!(proof.within(second / 4), Some(nine));
        // The machine is suspended. Timers stand still, and the bound ends all the same.
        proof.clock.suspend(second);
        assert_eq!(proof.within(second), None);
    }
}
