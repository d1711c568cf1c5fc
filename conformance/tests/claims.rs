//! A target with false claims fails the suite: both one that lacks what it claims, and one that has
//! what it declines.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use membership::{Epoch, Error, MemoryStore, RoomId, Store};
use membership_conformance::case::registry;
use membership_conformance::run::{Status, run_case};
use membership_conformance::{
    Claim, Fault, Harm, Instance, Need, Replicas, Target, TargetError, async_trait,
};
use rstest::rstest;

/// A target with false claims. The target claims servers and faults, but its faults stop no call.
/// The target declines to plant epochs, but plants them.
struct FalseClaims;

const STOPS: Fault = Fault { name: "it is stopped", stops_reads: true, stops_writes: true };

#[async_trait]
impl Target for FalseClaims {
    fn name(&self) -> &'static str {
        "boasts"
    }

    fn op_timeout(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn claims(&self, need: Need) -> Claim {
        match need {
            Need::Clients | Need::Faults | Need::Replicas => Claim::Claimed,
            _ => Claim::Declined("it does not say so"),
        }
    }

    fn faults(&self) -> &[Fault] {
        &[STOPS]
    }

    async fn create(&self) -> Result<Box<dyn Instance>, TargetError> {
        Ok(Box::new(Data(MemoryStore::new())))
    }
}

struct Data(MemoryStore);

#[async_trait]
impl Instance for Data {
    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        Ok(Arc::new(self.0.client()))
    }

    async fn inject(&self, _: &Fault) -> Result<(), TargetError> {
        Ok(())
    }

    async fn heal(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn replicas(&self) -> Result<&dyn Replicas, TargetError> {
        Ok(self)
    }

    async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), TargetError> {
        Ok(self.0.plant_epoch(room, epoch)?)
    }
}

#[async_trait]
impl Replicas for Data {
    fn count(&self) -> usize {
        3
    }

    fn parts(&self) -> &[&'static str] {
        &["all"]
    }

    async fn open_at(&self, _: usize) -> Result<Arc<dyn Store>, Error> {
        self.open().await
    }

    async fn lead(&self, _: usize, _: &str) -> Result<(), TargetError> {
        Ok(())
    }

    async fn leader(&self, _: &str) -> Result<usize, TargetError> {
        Ok(0)
    }

    async fn harm(&self, _: usize, _: Harm) -> Result<(), TargetError> {
        Ok(())
    }

    async fn heal(&self) -> Result<(), TargetError> {
        Ok(())
    }

    async fn keep_by(&self, _: usize) -> Result<(), TargetError> {
        Ok(())
    }
}

#[rstest]
#[case::harm("every_harm_affects_the_harmed_server", "the harm to affect")]
#[case::in_a_history(
    "concurrent_calls_during_server_failures_are_linearizable",
    "some call to be hit"
)]
#[case::fault_in_a_history(
    "concurrent_calls_during_faults_are_linearizable",
    "it is stopped: some call to be hit"
)]
#[case::unclaimed(
    "an_unclaimed_ability_is_refused_and_changes_nothing",
    "plant_epoch to be refused"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_a_false_claim_fails(#[case] title: &str, #[case] said: &str) {
    let target: Arc<dyn Target> = Arc::new(FalseClaims);
    let case = registry().find(|case| case.title == title).unwrap();
    // The seed decides which fault the nemesis injects first. That fault must not be a change of
    // replicas: a change of replicas that does nothing looks like one that works.
    let Status::Fail(report) = run_case(case, &target, 1).await.status else {
        panic!("{title} passed");
    };
    assert!(report.failure.expected.contains(said), "{:?}", report.failure);
}
