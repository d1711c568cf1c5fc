//! Simulated servers whose data go back in time, vanish, or differ for good.

use std::time::Duration;

use membership::{
    Blow, Decision, DenyReason, Error, JetStreamConfig, JetStreamDefect, JetStreamStore, NewUser,
    ReadMode, Simulation, Store, Timestamp, UserKey, Weather,
};
use rstest::rstest;

use crate::cluster;

const AT: Timestamp = Timestamp::from_millis(1);
const BOUND: Duration = Duration::from_secs(1);

fn user(number: u8) -> NewUser {
    cluster::user(number, false)
}

fn admin(number: u8) -> NewUser {
    cluster::user(number, true)
}

fn user_number(number: u8) -> UserKey {
    user(number).key
}

async fn open(simulation: &Simulation, name: &str, servers: u8, mode: ReadMode) -> JetStreamStore {
    let servers_config = JetStreamConfig::new(["nats://simulated"]);
    let config = JetStreamConfig { replicas: servers, read_mode: mode, ..servers_config };
    simulation.open(name, 0, true, config).await.unwrap()
}

/// Repairs the servers, and waits until the buckets have leaders.
async fn start_again(simulation: &Simulation) {
    simulation.heal();
    tokio::time::sleep(Duration::from_secs(10)).await;
}

/// The numbers of the users that a client lets in.
async fn let_in(store: &JetStreamStore) -> Vec<u8> {
    let mut all = Vec::new();
    for number in 0..40 {
        if store.is_authorized(&user_number(number)).await == Decision::Allow {
            all.push(number);
        }
    }
    all
}

/// Adds users 0 to 9, and then 30 and 31. Returns the moment in between.
async fn fill(simulation: &Simulation, store: &JetStreamStore) -> u64 {
    store.bootstrap_admin(admin(0)).await.unwrap();
    for number in 1..10 {
        store.add_user(user(number)).await.unwrap();
    }
    let moment = simulation.moment();
    for number in 30..32 {
        store.add_user(user(number)).await.unwrap();
    }
    moment
}

/// Adds users 0 to 9, and then two more users of which only client `a` knows, and loses these two. Then a new client
/// `b` revokes user 5, and adds `added` users. Returns the users that `a` and `b` let in at the end.
async fn rewound(simulation: &Simulation, servers: u8, mode: ReadMode, added: u8) -> [Vec<u8>; 2] {
    let a = open(simulation, "a", servers, mode).await;
    let moment = fill(simulation, &a).await;
    // After the bound, a client in the bounded mode knows of these two users, too.
    tokio::time::sleep(BOUND).await;
    assert_eq!(a.is_authorized(&user_number(31)).await, Decision::Allow);
    simulation.strike(Blow::GoBack(moment));
    start_again(simulation).await;
    let b = open(simulation, "b", servers, ReadMode::Linearizable).await;
    b.revoke_user(&user_number(5), AT).await.unwrap();
    for number in 10..10 + added {
        b.add_user(user(number)).await.unwrap();
    }
    // A client in the bounded mode must know of the revocation after the bound.
    tokio::time::sleep(BOUND).await;
    // The first answers after the loss may be failures, but must not be wrong.
    let first = let_in(&a).await;
    assert!(!first.contains(&5) && !first.contains(&31), "{first:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    [let_in(&a).await, let_in(&b).await]
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn no_client_answers_from_a_history_that_its_servers_lost(
    #[values(1, 3)] servers: u8,
    #[values(0, 1, 2, 3, 20)] added: u8,
    #[values(ReadMode::Linearizable, ReadMode::BoundedStaleness { bound: BOUND })] mode: ReadMode,
    #[values(1, 2, 3, 4)] seed: u64,
) {
    let simulation = Simulation::new(seed, servers.into(), Weather::CALM);
    let [a, b] = rewound(&simulation, servers, mode, added).await;
    assert_eq!(a, b);
}

/// Shows that the test above can fail: with this defect a copy goes on at its old sequence without checking its anchor.
#[tokio::test(start_paused = true)]
async fn a_copy_that_ignores_its_anchor_stays_wrong() {
    let simulation = Simulation::new(1, 1, Weather::CALM);
    let simulation = simulation.with_defect(JetStreamDefect::GoesOnAnywhere);
    let a = open(&simulation, "a", 1, ReadMode::Linearizable).await;
    a.bootstrap_admin(admin(0)).await.unwrap();
    a.add_user(user(5)).await.unwrap();
    let moment = simulation.moment();
    for number in 30..32 {
        a.add_user(user(number)).await.unwrap();
    }
    simulation.strike(Blow::GoBack(moment));
    start_again(&simulation).await;
    let b = open(&simulation, "b", 1, ReadMode::Linearizable).await;
    b.revoke_user(&user_number(5), AT).await.unwrap();
    for number in 10..20 {
        b.add_user(user(number)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(let_in(&a).await.contains(&31));
}

/// Two of three servers lose their latest messages. The third server keeps them and comes back, so it differs from the
/// others for good. No client may answer from its data.
#[rstest]
#[tokio::test(start_paused = true)]
async fn a_replica_that_differs_lets_nobody_in(#[values(1, 2, 3, 4, 5, 6, 7, 8)] seed: u64) {
    let simulation = Simulation::new(seed, 3, Weather::CALM);
    let a = open(&simulation, "a", 3, ReadMode::Linearizable).await;
    let moment = fill(&simulation, &a).await;
    simulation.strike(Blow::Isolate(2));
    simulation.strike(Blow::GoBackBut(moment, 2));
    for server in 0..2 {
        simulation.strike(Blow::Start(server));
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let b = open(&simulation, "b", 3, ReadMode::Linearizable).await;
    b.revoke_user(&user_number(5), AT).await.unwrap();
    for number in 10..20 {
        b.add_user(user(number)).await.unwrap();
    }
    simulation.strike(Blow::Join);
    tokio::time::sleep(Duration::from_secs(10)).await;
    for n in 0..12 {
        let fresh = open(&simulation, &format!("fresh {n}"), 3, ReadMode::Linearizable).await;
        let all = let_in(&fresh).await;
        assert!(!all.contains(&5) && !all.contains(&31), "fresh {n}: {all:?}");
    }
    for (name, old) in [("a", &a), ("b", &b)] {
        let all = let_in(old).await;
        assert!(!all.contains(&5) && !all.contains(&31), "{name}: {all:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_vanish_let_nobody_in_and_free_no_bootstrap() {
    let simulation = Simulation::new(1, 1, Weather::CALM);
    let a = open(&simulation, "a", 1, ReadMode::Linearizable).await;
    a.bootstrap_admin(admin(0)).await.unwrap();
    a.add_user(user(1)).await.unwrap();
    simulation.strike(Blow::Expire);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let decision = a.is_authorized(&user_number(1)).await;
    assert!(matches!(decision, Decision::Deny(DenyReason::Failed(_))), "{decision:?}");
    let again = a.bootstrap_admin(admin(2)).await;
    assert!(matches!(again, Err(Error::Unavailable(_) | Error::Corrupt(_))), "{again:?}");
    let config = JetStreamConfig::new(["nats://simulated"]);
    let opened = simulation.open("b", 0, true, config).await;
    assert!(matches!(opened, Err(Error::Invalid(_) | Error::Corrupt(_))), "{opened:?}");
}

/// A client finds new buckets and pauses. Meanwhile another client makes the first admin, and all users vanish. The
/// first client must make neither a store nor a first admin of the emptied buckets (clause PAST-3).
#[tokio::test(start_paused = true)]
async fn a_late_client_makes_no_store_of_emptied_buckets() {
    let mut held = 0;
    for millis in 0..40 {
        let simulation = Simulation::new(millis, 3, Weather::STEADY);
        let config = JetStreamConfig { replicas: 3, ..JetStreamConfig::new(["nats://simulated"]) };
        let late = simulation.open("late", 1, false, config.clone());
        let others = async {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            // From here on messages that are sent to the server arrive only when it goes on.
            simulation.strike(Blow::Pause(1));
            // Making buckets takes three servers, using them takes two.
            let used = match simulation.open("a", 0, true, config).await {
                Ok(a) => a.bootstrap_admin(admin(0)).await.is_ok(),
                Err(_) => false,
            };
            simulation.strike(Blow::Expire);
            simulation.strike(Blow::Resume(1));
            used
        };
        let (late, used) = tokio::join!(late, others);
        held += u32::from(used && late.is_err());
        if let Ok(late) = late
            && used
        {
            let made = late.bootstrap_admin(admin(1)).await;
            assert!(made.is_err(), "after {millis} ms: {made:?}");
        }
    }
    assert!(held > 5, "{held} were held in time");
}

/// A client renews its proof as soon as its feed has restarted. The client does not wait for a quarter of the bound.
#[tokio::test(start_paused = true)]
async fn a_copy_that_begins_anew_decides_again_at_once() {
    let simulation = Simulation::new(1, 1, Weather::CALM);
    let bound = Duration::from_hours(1);
    let a = open(&simulation, "a", 1, ReadMode::BoundedStaleness { bound }).await;
    a.bootstrap_admin(admin(0)).await.unwrap();
    for _ in 0..3 {
        simulation.strike(Blow::Kill(0));
        tokio::time::sleep(Duration::from_secs(5)).await;
        start_again(&simulation).await;
        assert_eq!(a.is_authorized(&user_number(0)).await, Decision::Allow);
    }
}

/// Time in suspension counts against the bound (clause AUTH-4).
#[tokio::test(start_paused = true)]
async fn time_in_suspension_counts_against_the_bound() {
    let simulation = Simulation::new(1, 1, Weather::CALM);
    let bound = Duration::from_secs(10);
    let a = open(&simulation, "a", 1, ReadMode::BoundedStaleness { bound }).await;
    a.bootstrap_admin(admin(0)).await.unwrap();
    a.add_user(user(1)).await.unwrap();
    tokio::time::sleep(bound).await;
    assert_eq!(a.is_authorized(&user_number(1)).await, Decision::Allow);
    a.suspend(bound);
    let decision = a.is_authorized(&user_number(1)).await;
    assert!(matches!(decision, Decision::Deny(DenyReason::Failed(_))), "{decision:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_must_exist_is_not_made() {
    let simulation = Simulation::new(1, 1, Weather::CALM);
    let config = JetStreamConfig { must_exist: true, ..JetStreamConfig::new(["nats://simulated"]) };
    let opened = simulation.open("a", 0, true, config.clone()).await;
    let error = opened.unwrap_err().to_string();
    assert!(error.starts_with("invalid must_exist: is set, but there is no bucket"), "{error}");
    open(&simulation, "b", 1, ReadMode::Linearizable).await;
    simulation.open("a", 0, true, config).await.unwrap();
}
