//! Rekeys, against bare publishes of the same keys.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;

use crate::jetstream::Servers;
use crate::jetstream::bare::Bare;
use crate::measure::{Limit, Row};
use crate::world::{self, endpoint, sealed};

/// The numbers of members of the rooms "big" and "huge".
pub(super) const BIG: u32 = 1_000;
pub(super) const HUGE: u32 = 10_000;

pub(super) fn rows(servers: &Servers<'_>, bare: &Bare) -> Vec<Row> {
    vec![row(servers, bare, ("big", "1,000", BIG)), row(servers, bare, ("huge", "10,000", HUGE))]
}

fn row(servers: &Servers<'_>, bare: &Bare, (room, shown, members): (&str, &str, u32)) -> Row {
    let id = room.parse().unwrap();
    let mut epoch = 1;
    let ours = || {
        let rekey = world::rekey(epoch, members);
        epoch += 1;
        let began = Instant::now();
        servers.runtime.block_on(servers.large.rekey(&id, rekey)).unwrap();
        began.elapsed()
    };
    let round = AtomicU32::new(0);
    let floor = || {
        let round = round.fetch_add(1, Ordering::Relaxed);
        let puts = (0..members).map(|number| {
            let (attempt, who) = (format!("{round:016}"), endpoint(number));
            // The messages are as long as the store's: a key of six tokens, and a value with a
            // checksum.
            let value = [b"1:0123456789abcdef:", sealed(number).as_bytes()].concat();
            (format!("{room}.bare-incarnation.{who}.{round}.{attempt}"), Bytes::from(value))
        });
        let puts: Vec<_> = puts.collect();
        let began = Instant::now();
        servers.runtime.block_on(bare.publish_all("room_keys", puts));
        began.elapsed()
    };
    Row::cost(
        &format!("{} rekey of {shown} members", servers.name),
        "the bare pipelined publishes",
        Limit::AtMost(2.0),
        if members > BIG { 5 } else { 11 },
        ours,
        floor,
    )
}
