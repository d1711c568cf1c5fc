//! The memory that a client of the JetStream store takes for each user.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::alloc::System;

use cap::Cap;
use futures_util::future::try_join_all;
use membership::{JetStreamConfig, JetStreamStore, Simulation, Store, Weather};
use membership_conformance::make::{admin, user, user_number};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

const USERS: u64 = 5_000;

/// The most bytes a user, without what the allocator itself adds to each piece of memory.
const MOST: usize = 400;

async fn open(simulation: &Simulation) -> JetStreamStore {
    let config = JetStreamConfig::new(["nats://simulated"]);
    simulation.open("client", 0, false, config).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_takes_at_most_400_bytes_for_each_user() {
    let simulation = Simulation::new(1, 1, Weather::CALM);
    let first = open(&simulation).await;
    let empty = MEMORY.allocated();
    drop(open(&simulation).await);
    let base = MEMORY.allocated() - empty;
    first.bootstrap_admin(admin(user_number(0))).await.unwrap();
    for thousand in 0..USERS / 1_000 {
        let numbers = thousand * 1_000 + 1..=(thousand + 1) * 1_000;
        let adding = numbers.map(|number| first.add_user(user(user_number(number))));
        try_join_all(adding).await.unwrap();
    }
    let before = MEMORY.allocated();
    let second = open(&simulation).await;
    let took = (MEMORY.allocated() - before).saturating_sub(base);
    let each = took / usize::try_from(USERS).unwrap();
    println!("{each} bytes a user");
    assert!(second.user(&user_number(USERS)).await.is_ok());
    assert!(each <= MOST, "{each} bytes a user, in {USERS} users");
}
