//! Each kind of violation of LIN-1, from a store with that defect, is found within a minute by the
//! case that tests for it, shrunk to few calls, and found again in the saved file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::time::{Duration, Instant};

use membership_conformance::case::registry;
use membership_conformance::history::{Call, Reason, Saved, Violation, check};
use membership_conformance::run::{Status, run_case};
use membership_conformance::{controls, soak};
use rstest::rstest;

const ROOMS: &str = "concurrent_calls_on_rooms_members_and_keys_are_linearizable";
const LISTS: &str = "concurrent_listings_and_room_changes_are_linearizable";
const USERS: &str = "concurrent_decisions_and_changes_of_users_are_linearizable";

#[rstest]
#[case::stale_read("remembers_rooms", ROOMS)]
#[case::lost_update("loses_one_of_two", ROOMS)]
#[case::double_winner("lets_two_rekeys_win", ROOMS)]
#[case::key_of_another_epoch("adds_with_the_old_key", ROOMS)]
#[case::half_a_rekey("rekeys_in_steps", ROOMS)]
#[case::half_a_deletion("deletes_in_steps", LISTS)]
#[case::resurrected_member("revives_former_members", ROOMS)]
#[case::resurrected_key("returns_keys_to_who_comes_back", ROOMS)]
#[case::torn_page("tears_pages", ROOMS)]
#[case::index_that_lies("forgets_the_index_on_removal", LISTS)]
#[case::stale_allow("caches_decisions_per_client", USERS)]
#[case::stale_allow_of_all("caches_decisions", USERS)]
#[case::readmission("readmits_the_revoked", USERS)]
#[case::second_bootstrap("bootstraps_in_steps", USERS)]
#[case::last_admin_lost("revokes_the_last_admin", USERS)]
#[tokio::test(flavor = "multi_thread")]
async fn a_seeded_violation_is_found_within_a_minute_and_replays(
    #[case] control: &str,
    #[case] title: &str,
) {
    soak::set(Duration::from_mins(1));
    let began = Instant::now();
    let control = controls::all().into_iter().find(|found| found.name == control).unwrap();
    let case = registry().find(|case| case.title == title).unwrap();
    let Status::Fail(report) = run_case(case, &control.target, 1).await.status else {
        panic!("{} passed {}", control.name, case.name());
    };
    assert!(began.elapsed() < Duration::from_mins(1));
    let told = report.failure.got;
    let (picture, file) = told.split_once("saved in ").expect(&told);
    assert!(picture.contains("✗ no order explains this"), "{picture}");

    let file = Path::new(file.split_once(';').unwrap().0);
    let saved = Saved::read(file).unwrap();
    assert!(saved.replay().is_some());
    assert!(check(&saved.whole).is_err());
    let (least, whole) = (saved.least.calls.len(), saved.whole.calls.len());
    // Only the calls before the unexplained one are counted. Every write concurrent with it must
    // stay in the witness, and there are many such writes if the thread of the unexplained call did
    // not run for a while.
    let Violation { witness, reason } = *check(&saved.least).unwrap_err();
    let Reason::NoOrder(number) = reason else { panic!("{reason:?}:\n{picture}") };
    let last = witness.calls[number].began;
    let past = |call: &&Call| call.ended.as_ref().is_some_and(|(ended, _)| *ended < last);
    let before = witness.calls.iter().filter(past).count();
    assert!(before <= 8, "{before} of {whole} calls are left, and {least} in all:\n{picture}");
    println!("{} in {:?}, {least} of {whole} calls\n{picture}", control.name, began.elapsed());
    std::fs::remove_file(file).unwrap();
}
