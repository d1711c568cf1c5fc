//! Many users, many clients, a room that nearly all members leave, and a server that hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::{ReadMode, RoomId, Store};

use crate::jetstream::bare::Bare;
use crate::jetstream::decisions::asked_by;
use crate::jetstream::{FILLERS, LARGE, Servers, open};
use crate::measure::{Limit, Row, each};
use crate::world::{USERS, big_room, endpoint, room_id, user};

const CLIENTS: u32 = 100;
/// The decisions of one round, of all clients together.
const DECISIONS: u32 = 4_000;
/// The reads of one round beside a paused server.
const READS: u32 = 300;
/// The members of the room that is left.
const MEMBERS: u32 = 2_000;

pub(super) fn rows(servers: &Servers<'_>, bare: &Bare) -> Vec<Row> {
    let mut rows = vec![opens(servers, bare), clients(servers), removals(servers)];
    // The server that is paused stays so, so this row is the last.
    rows.extend((servers.replicas > 1).then(|| paused(servers)));
    rows
}

fn opens(servers: &Servers<'_>, bare: &Bare) -> Row {
    let Servers { runtime, name, url, replicas, .. } = servers;
    Row::cost(
        &format!("{name} open, {USERS} users"),
        "a bare consumer of the same users",
        Limit::AtMost(2.0),
        5,
        || {
            let began = Instant::now();
            let store = runtime.block_on(open(url, *replicas, LARGE, ReadMode::Linearizable));
            let took = began.elapsed();
            runtime.block_on(store.close()).unwrap();
            took
        },
        || {
            each(1, || {
                runtime.block_on(bare.consume("users", USERS));
            })
        },
    )
}

fn clients(servers: &Servers<'_>) -> Row {
    let Servers { runtime, name, url, replicas, .. } = servers;
    let all: Vec<Arc<dyn Store>> = (0..CLIENTS)
        .map(|_| -> Arc<dyn Store> {
            let open = open(url, *replicas, LARGE, ReadMode::Linearizable);
            Arc::new(runtime.block_on(open))
        })
        .collect();
    let one = all.get(..1).unwrap();
    let row = Row::rate(
        &format!("{name} is_authorized, {CLIENTS} clients of 1 caller, in all"),
        "the same, 1 client",
        Limit::AtLeast(1.0),
        5,
        || asked_by(runtime, &all, CLIENTS, DECISIONS),
        || asked_by(runtime, one, 1, DECISIONS),
    );
    for client in all {
        runtime.block_on(client.close()).unwrap();
    }
    row
}

/// The slowest removals stand beside the median: a store that cleans up after former members must not hold up the
/// next removal.
fn removals(servers: &Servers<'_>) -> Row {
    let Servers { runtime, name, large, .. } = servers;
    let room: RoomId = runtime.block_on(big_room(large, FILLERS, "left", MEMBERS));
    let mut took: Vec<Duration> = (1..MEMBERS)
        .map(|number| {
            let who = endpoint(number);
            let began = Instant::now();
            runtime.block_on(large.remove_member(&room, &who)).unwrap();
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
    Row::cost(
        &format!("{name} remove_member, the slowest 1 % of {MEMBERS}"),
        "the median",
        Limit::AtMost(3.0),
        1,
        || at(99),
        || at(50),
    )
}

/// A server that the client is not connected to hangs. The others go on giving it reads.
fn paused(servers: &Servers<'_>) -> Row {
    let Servers { runtime, name, large, cluster, .. } = servers;
    let reads = || {
        each(READS, || {
            runtime.block_on(async {
                for number in 0..READS {
                    large.room(&room_id(number)).await.unwrap();
                }
            });
        })
    };
    let mut before: Vec<Duration> = (0..5).map(|_| reads()).collect();
    before.sort_unstable();
    let before = before.get(2).copied().unwrap_or_default();
    runtime.block_on(async {
        cluster.pause(cluster.size() - 1).await.unwrap();
        let began = Instant::now();
        // Another server is elected leader of what the paused one led.
        while large.add_user(user(USERS)).await.is_err_and(|error| error.outcome_unknown()) {
            assert!(began.elapsed() < Duration::from_mins(1), "no call works after a minute");
        }
    });
    Row::cost(
        &format!("{name} room, one server paused"),
        "the same, before",
        Limit::AtMost(2.0),
        5,
        reads,
        || before,
    )
}
