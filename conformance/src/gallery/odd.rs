//! What the suite says of odd stores: of some that are right, and of some whose defect it must name.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use membership::{Decision, EndpointId, Error, NewRoom, Page, Room, RoomId, Store, UserKey};

use super::defect::Defect;
use super::listings::locked;
use super::mutant::Museum;
use crate::case::registry;
use crate::run::{Report, Status, run_case_within};
use crate::target::Target;

/// How the case of this name ends on the memory store with this defect.
async fn tried<D: Defect>(name: &str, deadline: Duration) -> Result<(), Box<Report>> {
    let target: Arc<dyn Target> = Arc::new(Museum::<D>::new("odd"));
    let case = registry().find(|case| case.name() == name).unwrap();
    match run_case_within(case, &target, 1, deadline).await.status {
        Status::Pass => Ok(()),
        Status::Fail(report) => Err(report),
        Status::NotClaimed(need, _) => panic!("{need} is not claimed"),
    }
}

const LONG: Duration = Duration::from_mins(2);

/// Rooms whose creation nobody answered, and which appear when somebody lists rooms.
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
    let name = "fail_closed::writes_are_not_acknowledged_or_take_effect";
    tried::<LandsLate>(name, LONG).await.unwrap();
}

/// The tenth list of bob's rooms has none.
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
    let name = "concurrency::who_moves_from_room_to_room_is_always_in_one";
    let report = tried::<ListsNothingOnce>(name, LONG).await.unwrap_err();
    assert!(report.failure.expected.contains("among bob's rooms"), "{:?}", report.failure);
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
}

/// Never says who is let in.
#[derive(Default)]
struct NeverDecides;

#[async_trait]
impl Defect for NeverDecides {
    async fn is_authorized(&self, _: &dyn Store, _: &UserKey) -> Decision {
        std::future::pending().await
    }
}

/// Says it after three bounds, and is right.
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
