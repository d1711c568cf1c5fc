//! The JetStream store on simulated servers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use membership::{Blow, Weather};
use membership_conformance::history::Mix;
use membership_lab::simulate::{Plan, Tally, broken, crash, pause, play, play_plan, run, writes};

/// The seed in `MEMBERSHIP_SEED`, or else 0. Without the variable every run has the same seed, since new seeds are for
/// longer runs.
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

/// Seeds of histories that had no order that explains them, before the store or the simulation was fixed.
#[test]
fn histories_that_once_failed_pass() {
    for seed in
        [0x26a_f538, 0x36c_4633, 0x36c_5e1f, 0x36d_cc84, 0x7ddd_b1ac, 0x2cc3_efcb, 0x7169_7e1b]
    {
        assert_eq!(play(seed, false).problem, None, "{seed:#x}");
    }
}

#[test]
fn a_seed_replays_a_history_byte_for_byte() {
    for seed in (0..40).map(|n| seed() + n) {
        let (one, other) = (play(seed, true), play(seed, true));
        assert!(!one.trace.is_empty());
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.history, other.history, "seed {seed}");
        // Tracing changes nothing.
        assert_eq!(play(seed, false).history, one.history, "seed {seed}");
    }
}

#[test]
fn different_seeds_give_different_histories() {
    assert_ne!(play(1, true).trace, play(2, true).trace);
}

#[test]
fn a_write_interrupted_anywhere_takes_effect_entirely_or_not_at_all() {
    let all = writes().into_iter().map(|write| (write, None)).collect();
    let points = crash::cut_all(all, seed(), 2).unwrap();
    assert!(points > 200, "{points} points");
}

#[test]
fn an_empty_run_lists_all_events_as_missed() {
    let missed = Tally::default().missed();
    assert!(missed.contains(&"clients stopped dead"));
    assert_eq!(missed.len(), Tally::default().lines().len());
}

/// Plays `histories` drawn plans, each changed by `change`; none of them may show a problem. Their
/// data never go back: that was drawn to fit the plan before the change.
fn play_plans(histories: u64, change: impl Fn(&mut Plan)) {
    for seed in (0..histories).map(|n| seed() + n) {
        let mut plan = Plan::draw(seed);
        plan.back = None;
        change(&mut plan);
        if let Some(problem) = play_plan(&plan, seed, false).problem {
            panic!("seed {seed}, {plan:?}: {problem}");
        }
    }
}

#[test]
fn a_request_that_arrives_late_overwrites_nothing() {
    play_plans(150, |plan| {
        plan.mix = Mix::Rooms;
        plan.weather = Weather { late_requests: 120, ..Weather::CALM };
        (plan.blows, plan.pace) = (Vec::new(), 400);
    });
}

#[test]
fn a_room_that_exists_has_its_owner() {
    play_plans(60, |plan| {
        (plan.servers, plan.mix) = (3, Mix::Rooms);
        plan.weather = Weather { lag: 400, ..Weather::CALM };
    });
}

#[test]
fn a_write_that_a_former_leader_refused_may_have_taken_effect() {
    play_plans(150, |plan| {
        (plan.servers, plan.mix, plan.calls, plan.pace) = (3, Mix::Rooms, 14, 400);
        plan.weather = Weather::CALM;
        let after = |n| Duration::from_millis(700 * n);
        let cut = |n: u64| (after(2 * n), Blow::Isolate(usize::try_from(n % 3).unwrap()));
        let healed = |n: u64| (after(2 * n + 1), Blow::Join);
        plan.blows = (0..20).flat_map(|n| [cut(n), healed(n)]).collect();
    });
}

#[test]
fn clients_that_open_at_the_same_time_create_one_store() {
    play_plans(60, |plan| (plan.clients, plan.calls) = (4, 1));
}

#[test]
fn users_are_seen_only_in_states_that_existed() {
    play_plans(300, |plan| {
        plan.mix = Mix::Users;
        plan.weather = Weather { lag: 300, latency: 20, feed_faults: 60, ..Weather::CALM };
    });
}

#[test]
fn a_listing_never_misses_both_the_joined_and_the_left_room() {
    play_plans(200, |plan| {
        (plan.mix, plan.clients, plan.calls, plan.pace) = (Mix::Lists, 4, 14, 5);
        plan.weather = Weather { latency: 20, ..Weather::CALM };
    });
}

#[test]
fn a_listing_finds_a_room_whose_entry_is_written_after_its_counter() {
    play_plans(100, |plan| {
        (plan.mix, plan.clients, plan.calls, plan.pace) = (Mix::Lists, 4, 14, 5);
        plan.weather = Weather { latency: 20, lost_requests: 100, ..Weather::CALM };
        plan.blows = Vec::new();
    });
}

#[test]
fn every_client_with_a_defect_is_caught() {
    let escaped = broken::all().into_iter().filter(|broken| {
        // Each of these clients must be caught by a wrong answer. A call that is late or fails does not count.
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
fn the_same_clients_without_a_defect_pass() {
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
fn a_call_paused_anywhere_answers_right() {
    let points = pause::hold_all(pause::pairs(), seed(), 2).unwrap();
    assert!(points > 1_200, "{points} points");
}

/// With this seed an earlier barrier of a client arrives after a later one and replaces it, twice in a row. A client
/// that waited for the later one would miss its deadline, although every server works.
#[test]
fn a_call_whose_barrier_was_replaced_by_an_earlier_one_sends_another() {
    let mut pairs = pause::pairs();
    pairs.retain(|(call, _)| call.name == "create");
    assert!(pause::hold_all(pairs, 0x36c_5e20, 2).unwrap() > 0);
}

#[test]
fn no_client_sees_a_room_that_another_knows_to_be_deleted() {
    let places = pause::hold_a_deletion(None, seed()).unwrap();
    assert!(places > 100, "{places} places");
}

#[test]
fn a_listing_paused_anywhere_shows_a_moving_endpoint_in_some_room() {
    let points = pause::hold_a_move(None, seed()).unwrap();
    assert!(points > 50, "{points} points");
}
