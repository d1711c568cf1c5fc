//! The JetStream store on simulated servers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use membership::{Blow, Weather};
use membership_conformance::history::Mix;
use membership_lab::simulate::{Plan, Tally, broken, crash, pause, play, play_plan, run, writes};

/// The seed of `MEMBERSHIP_SEED`, or the same every time: what is new is for longer runs to find.
fn seed() -> u64 {
    std::env::var("MEMBERSHIP_SEED").map_or(0, |text| text.parse().unwrap())
}

#[test]
fn one_order_explains_every_answer_of_each_history() {
    let outcome = run(seed(), 600, None, 2, &|_| {});
    if let Some((seed, problem)) = outcome.failure {
        panic!("{problem}\nagain: cargo conformance simulate --seed {seed} --trace");
    }
    assert_eq!(outcome.tally.histories, 600);
}

#[test]
fn a_seed_brings_a_history_back_byte_for_byte() {
    for seed in (0..40).map(|n| seed() + n) {
        let (one, other) = (play(seed, true), play(seed, true));
        assert!(!one.trace.is_empty());
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.history, other.history, "seed {seed}");
        // Nobody who looks changes anything.
        assert_eq!(play(seed, false).history, one.history, "seed {seed}");
    }
}

#[test]
fn seeds_differ() {
    assert_ne!(play(1, true).trace, play(2, true).trace);
}

#[test]
fn a_write_that_is_cut_short_anywhere_is_whole_or_nothing() {
    let all = writes().into_iter().map(|write| (write, None)).collect();
    let points = crash::cut_all(all, seed(), 2).unwrap();
    assert!(points > 200, "{points} points");
}

#[test]
fn a_run_that_met_nothing_says_what() {
    let missed = Tally::default().missed();
    assert!(missed.contains(&"clients stopped dead"));
    assert_eq!(missed.len(), Tally::default().lines().len());
}

/// So many histories of plans that are all alike in something, and in which no data go back: those are drawn
/// for what the plan was before.
fn hold(histories: u64, alike: impl Fn(&mut Plan)) {
    for seed in (0..histories).map(|n| seed() + n) {
        let mut plan = Plan::draw(seed);
        plan.back = None;
        alike(&mut plan);
        if let Some(problem) = play_plan(&plan, seed, false).problem {
            panic!("seed {seed}, {plan:?}: {problem}");
        }
    }
}

#[test]
fn a_copy_that_comes_late_replaces_nothing() {
    hold(150, |plan| {
        plan.mix = Mix::Rooms;
        plan.weather = Weather { late_requests: 120, ..Weather::CALM };
        (plan.blows, plan.pace) = (Vec::new(), 400);
    });
}

#[test]
fn a_room_that_is_there_has_its_owner() {
    hold(60, |plan| {
        (plan.servers, plan.mix) = (3, Mix::Rooms);
        plan.weather = Weather { lag: 400, ..Weather::CALM };
    });
}

#[test]
fn what_a_former_leader_refused_may_have_been_made() {
    hold(150, |plan| {
        (plan.servers, plan.mix, plan.calls, plan.pace) = (3, Mix::Rooms, 14, 400);
        plan.weather = Weather::CALM;
        let after = |n| Duration::from_millis(700 * n);
        let cut = |n: u64| (after(2 * n), Blow::Isolate(usize::try_from(n % 3).unwrap()));
        let healed = |n: u64| (after(2 * n + 1), Blow::Join);
        plan.blows = (0..20).flat_map(|n| [cut(n), healed(n)]).collect();
    });
}

#[test]
fn clients_that_come_at_once_make_one_store() {
    hold(60, |plan| (plan.clients, plan.calls) = (4, 1));
}

#[test]
fn users_are_only_seen_as_they_were() {
    hold(300, |plan| {
        plan.mix = Mix::Users;
        plan.weather = Weather { lag: 300, latency: 20, feed_faults: 60, ..Weather::CALM };
    });
}

#[test]
fn a_room_that_was_joined_and_one_that_was_left_are_not_both_missed() {
    hold(200, |plan| {
        (plan.mix, plan.clients, plan.calls, plan.pace) = (Mix::Lists, 4, 14, 5);
        plan.weather = Weather { latency: 20, ..Weather::CALM };
    });
}

#[test]
fn a_room_whose_entry_comes_after_its_counter_is_not_missed() {
    hold(100, |plan| {
        (plan.mix, plan.clients, plan.calls, plan.pace) = (Mix::Lists, 4, 14, 5);
        plan.weather = Weather { latency: 20, lost_requests: 100, ..Weather::CALM };
        plan.blows = Vec::new();
    });
}

#[test]
fn every_client_that_is_broken_on_purpose_is_caught() {
    let escaped = broken::all().into_iter().filter(|broken| {
        // No call that takes too long, nor one that fails: an answer that is wrong.
        let caught = broken.hunt(seed());
        let says = |caught: &broken::Catch| {
            ["that no order explains", "after the revocation"]
                .map(|words| caught.problem.contains(words))
        };
        caught.is_none_or(|caught| !says(&caught).contains(&true))
    });
    let escaped: Vec<_> = escaped.map(|broken| (broken.name, broken.clause, broken.what)).collect();
    assert!(escaped.is_empty(), "nothing showed what is wrong with {escaped:#?}");
}

#[test]
fn the_same_clients_without_a_defect_are_sound() {
    let controls =
        broken::all().into_iter().filter_map(|broken| Some((broken.name, broken.control()?)));
    for (name, control) in controls {
        for seed in (0..40).map(|n| seed() + n) {
            if let Some(problem) = play_plan(&control, seed, false).problem {
                panic!("{name}, seed {seed}: {problem}");
            }
        }
    }
}

#[test]
fn a_call_that_is_held_anywhere_is_right_afterwards() {
    let points = pause::hold_all(pause::pairs(), seed(), 2).unwrap();
    assert!(points > 1_200, "{points} points");
}

/// With this seed an earlier barrier of a client arrives after a later one and replaces it, twice in a
/// row. A client that waits for the later one misses its deadline, though every server works.
#[test]
fn a_call_whose_barrier_was_replaced_by_an_earlier_one_sends_another() {
    let mut pairs = pause::pairs();
    pairs.retain(|(call, _)| call.name == "create");
    assert!(pause::hold_all(pairs, 0x36c_5e20, 2).unwrap() > 0);
}

#[test]
fn a_room_that_is_known_to_be_gone_is_gone_for_those_who_are_behind() {
    let places = pause::hold_a_deletion(None, seed()).unwrap();
    assert!(places > 100, "{places} places");
}

#[test]
fn who_moves_while_a_listing_is_held_anywhere_is_always_somewhere() {
    let points = pause::hold_a_move(None, seed()).unwrap();
    assert!(points > 50, "{points} points");
}
