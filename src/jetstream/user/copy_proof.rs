//! The proof that the copy of users is fresh: the latest barrier that the copy has received. While this barrier is
//! young enough, the bounded mode decides by the proof alone (clause AUTH-4).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
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

/// The lanes in which one client sends its barriers of `users`. Each lane has a key, and one barrier in flight.
///
/// Messages that vanish are not delivered, and no consumer reports them missing. So each barrier proves that nothing
/// vanished since its lane's barrier before it: the server stores it only if that one, which is older than everything
/// after it, is still there.
#[derive(Default)]
struct Lanes(Mutex<Vec<Lane>>);

#[derive(Clone, Copy, Default)]
struct Lane {
    is_busy: bool,
    /// The sequence of the lane's newest barrier, if everything up to it was proved to be there.
    newest: Option<u64>,
}

impl Lanes {
    fn lanes(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the first free lane.
    fn enter(self: &Arc<Self>) -> InFlight {
        let mut lanes = self.lanes();
        let number = lanes.iter().position(|lane| !lane.is_busy).unwrap_or(lanes.len());
        if number == lanes.len() {
            lanes.push(Lane::default());
        }
        let previous = lanes.get_mut(number).and_then(|lane| {
            lane.is_busy = true;
            lane.newest.take()
        });
        drop(lanes);
        InFlight { lanes: Arc::clone(self), number, previous, proved: None }
    }
}

/// A barrier in flight.
struct InFlight {
    lanes: Arc<Lanes>,
    /// The lane's number.
    number: usize,
    /// The lane's barrier before this one, if it is known.
    previous: Option<u64>,
    /// The sequence of this barrier, once everything up to it is proved to be there.
    proved: Option<u64>,
}

impl InFlight {
    fn proves(&mut self, passed: Passed) {
        self.proved = Some(passed.sequence);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(lane) = self.lanes.lanes().get_mut(self.number) {
            *lane = Lane { is_busy: false, newest: self.proved };
        }
    }
}

/// Makes the function that sends barriers of `users`. Such a barrier counts once the copy in memory has received it, if
/// no message vanished before it.
pub(in crate::jetstream) fn users_barrier(
    gateway: Arc<Gateway>,
    users: Arc<UsersCopy>,
    proof: Arc<CopyProof>,
) -> Sender {
    let lanes = Arc::new(Lanes::default());
    Box::new(move |deadline| {
        let (gateway, users, proof) =
            (Arc::clone(&gateway), Arc::clone(&users), Arc::clone(&proof));
        let mut this = lanes.enter();
        Box::pin(async move {
            let passed = send(&gateway, &users, &proof, &this, deadline).await?;
            this.proves(passed);
            Ok(passed)
        })
    })
}

async fn send(
    gateway: &Gateway,
    users: &UsersCopy,
    proof: &CopyProof,
    this: &InFlight,
    deadline: Instant,
) -> Result<Passed, Error> {
    let (began, before) = (proof.now(), users.position());
    let (lane, previous) = (this.number, this.previous);
    let passed = gateway.pass_behind(Bucket::Users, lane, previous, deadline).await;
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
            event!(users: debug, "no barrier: the proof of freshness grows old");
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
