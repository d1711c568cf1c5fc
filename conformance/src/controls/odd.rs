//! Verdicts on unusual stores: a sound one passes, and any other fails for the right reason.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use membership::{
    Decision, EndpointId, Error, MemoryStore, NewRoom, Page, Room, RoomId, Store, UserKey,
};

use super::broken_memory::BrokenMemory;
use super::defect::{Broken, Defect};
use super::listings::locked;
use crate::case::registry;
use crate::run::{Report, Status, run_case_within};
use crate::target::{Claim, Instance, Need, Target, TargetError};

/// Runs the case of this name on the memory store with the defect `D`.
async fn tried<D: Defect>(name: &str, deadline: Duration) -> Result<(), Box<Report>> {
    let target: Arc<dyn Target> = Arc::new(BrokenMemory::<D>::new("odd"));
    let case = registry().find(|case| case.name() == name).unwrap();
    match run_case_within(case, &target, 1, deadline).await.status {
        Status::Pass => Ok(()),
        Status::Fail(report) | Status::Inconclusive(report) => Err(report),
        Status::NotClaimed(need, _) => panic!("{need} is not claimed"),
    }
}

const LONG: Duration = Duration::from_mins(2);

/// Rooms whose creation timed out.
///
/// Such a room is created when a client next lists rooms, which ERR-2 allows.
#[derive(Default)]
struct LandsLate(Mutex<Vec<NewRoom>>);

#[async_trait]
impl Defect for LandsLate {
    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        let made = inner.create_room(new.clone()).await;
        if made == Err(Error::Timeout) {
            locked(&self.0).push(new);
        }
        made
    }

    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        let late: Vec<_> = locked(&self.0).drain(..).collect();
        for new in late {
            inner.create_room(new).await?;
        }
        inner.rooms_of(endpoint, page).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_unknown_outcome_may_take_effect_between_two_reads() {
    let name = "fail_closed::a_write_acknowledged_during_a_fault_takes_effect";
    tried::<LandsLate>(name, LONG).await.unwrap();
}

/// The eleventh list of rooms is empty.
#[derive(Default)]
struct ListsNothingOnce(AtomicUsize);

#[async_trait]
impl Defect for ListsNothingOnce {
    async fn rooms_of(
        &self,
        inner: &dyn Store,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        let listed = inner.rooms_of(endpoint, page).await?;
        Ok(if self.0.fetch_add(1, Ordering::Relaxed) == 10 { Vec::new() } else { listed })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_finds_a_violation_ends_its_writer() {
    let began = Instant::now();
    let name = "concurrency::an_endpoint_that_moves_between_two_rooms_is_always_listed_in_one";
    let report = tried::<ListsNothingOnce>(name, LONG).await.unwrap_err();
    assert!(report.failure.expected.contains("among bob's rooms"), "{:?}", report.failure);
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
}

/// Never answers a decision.
#[derive(Default)]
struct NeverDecides;

#[async_trait]
impl Defect for NeverDecides {
    async fn is_authorized(&self, _: &dyn Store, _: &UserKey) -> Decision {
        std::future::pending().await
    }
}

/// Answers decisions rightly, three times later than the bound allows.
#[derive(Default)]
struct DecidesLate;

#[async_trait]
impl Defect for DecidesLate {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        tokio::time::sleep(Duration::from_millis(3 * 1250)).await;
        inner.is_authorized(key).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_breaks_time_1_in_any_case_and_is_not_waited_for() {
    let began = Instant::now();
    let name = "decisions::an_unknown_key_is_denied_as_unknown";
    let case = registry().find(|case| case.name() == name).unwrap();
    assert!(!case.clauses.contains(&"TIME-1"));
    let report = tried::<NeverDecides>(name, LONG).await.unwrap_err();
    assert_eq!(report.failure.clause, Some("TIME-1"), "{:?}", report.failure);
    assert!(report.failure.expected.contains("is_authorized"), "{:?}", report.failure);
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
    let report = tried::<DecidesLate>(name, LONG).await.unwrap_err();
    assert_eq!(report.failure.clause, Some("TIME-1"), "{:?}", report.failure);
    let told = crate::report::failure(case, "odd", &report);
    assert!(told.contains("TIME-1    Every call returns within"), "{told}");
}

/// The step in which a target or its store fails, and how it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    CreateHangs,
    CreateBlocks,
    CreatePanics,
    OpenHangs,
    OpenPanics,
    CallBlocks,
    CloseHangs,
    ClosePanics,
    EndBlocks,
    EndPanics,
    ClaimsPanic,
    ClaimsChange,
}

struct Troubled {
    trouble: Trouble,
    /// Set to end the blocking of a thread.
    over: Arc<AtomicBool>,
    asked: AtomicUsize,
}

impl Trouble {
    /// Blocks the thread until `over` is set, if the trouble is at this step.
    fn blocks(self, here: Self, over: &AtomicBool) {
        while self == here && !over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn hangs(self, here: Self) {
        if self == here {
            std::future::pending::<()>().await;
        }
    }

    fn panics(self, here: Self) {
        assert!(self != here, "the trouble");
    }
}

#[async_trait]
impl Target for Troubled {
    fn name(&self) -> &'static str {
        "troubled"
    }

    fn op_timeout(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn claims(&self, _: Need) -> Claim {
        self.trouble.panics(Trouble::ClaimsPanic);
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        match self.trouble {
            Trouble::ClaimsChange if asked > Need::ALL.len() => Claim::Claimed,
            _ => Claim::Declined("nothing is"),
        }
    }

    async fn create(&self) -> Result<Box<dyn Instance>, TargetError> {
        self.trouble.hangs(Trouble::CreateHangs).await;
        self.trouble.blocks(Trouble::CreateBlocks, &self.over);
        self.trouble.panics(Trouble::CreatePanics);
        Ok(Box::new(TroubledData(self.trouble, Arc::clone(&self.over))))
    }
}

struct TroubledData(Trouble, Arc<AtomicBool>);

#[async_trait]
impl Instance for TroubledData {
    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        self.0.hangs(Trouble::OpenHangs).await;
        self.0.panics(Trouble::OpenPanics);
        let defect = Arc::new(TroubledStore(self.0, Arc::clone(&self.1)));
        Ok(Arc::new(Broken { inner: Arc::new(MemoryStore::new()), defect }))
    }
}

impl Drop for TroubledData {
    fn drop(&mut self) {
        self.0.blocks(Trouble::EndBlocks, &self.1);
        self.0.panics(Trouble::EndPanics);
    }
}

struct TroubledStore(Trouble, Arc<AtomicBool>);

impl Default for TroubledStore {
    fn default() -> Self {
        Self(Trouble::CallBlocks, Arc::default())
    }
}

#[async_trait]
impl Defect for TroubledStore {
    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        self.0.blocks(Trouble::CallBlocks, &self.1);
        inner.is_authorized(key).await
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        self.0.hangs(Trouble::CloseHangs).await;
        self.0.panics(Trouble::ClosePanics);
        inner.close().await
    }
}

#[rstest::rstest]
#[case(Trouble::CreateHangs, "create to end within", "it hangs")]
#[case(Trouble::CreateBlocks, "create to end within", "it blocks its thread")]
#[case(Trouble::CreatePanics, "no panic", "the trouble, in create")]
#[case(Trouble::OpenHangs, "the case to end within", "it hangs")]
#[case(Trouble::OpenPanics, "no panic", "the trouble, in the case")]
#[case(Trouble::CallBlocks, "an answer to is_authorized", "it blocks its thread")]
#[case(Trouble::CloseHangs, "close to end within", "it hangs")]
#[case(Trouble::ClosePanics, "no panic", "the trouble, in close")]
#[case(Trouble::EndBlocks, "the store's end to end within", "it blocks its thread")]
#[case(Trouble::EndPanics, "no panic", "the trouble, in the store's end")]
#[case(Trouble::ClaimsPanic, "no panic", "claims panicked: the trouble")]
#[case(Trouble::ClaimsChange, "to claim the same each time", "its claim of")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_fails_is_the_verdict_of_its_case(
    #[case] trouble: Trouble,
    #[case] expected: &str,
    #[case] got: &str,
) {
    let over = Arc::new(AtomicBool::new(false));
    let troubled = Troubled { trouble, over: Arc::clone(&over), asked: AtomicUsize::new(0) };
    let target: Arc<dyn Target> = Arc::new(troubled);
    let name = "decisions::an_unknown_key_is_denied_as_unknown";
    let case = registry().find(|case| case.name() == name).unwrap();
    let status = run_case_within(case, &target, 1, Duration::from_secs(2)).await.status;
    // Otherwise the test's runtime would wait for the blocked thread for ever.
    over.store(true, Ordering::SeqCst);
    let Status::Fail(report) = status else { panic!("{trouble:?}: {status:?}") };
    let failure = &report.failure;
    assert!(failure.expected.contains(expected) && failure.got.contains(got), "{failure:?}");
    assert_eq!(report.blocked, got.contains("blocks"), "{failure:?}");
    let told = crate::report::failure(case, "troubled", &report);
    assert!(told.contains("AUTH-1 ") && told.contains("  again     "), "{told}");
}
