//! `is_authorized` by one caller, by many concurrent callers, and from memory in the bounded mode.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use membership::{ReadMode, Store};
use tokio::runtime::Runtime;

use crate::jetstream::bare::Bare;
use crate::jetstream::{LARGE, Servers, open};
use crate::measure::{Limit, Row, each};
use crate::world::{USERS, by, user_key};

const CALLS: u32 = 400;
/// The least cost that a ratio demands of a concurrent decision, however many callers share a
/// barrier.
const LEAST: Duration = Duration::from_nanos(1_500);
const SHARED: f64 = 1.6;

pub(super) fn rows(servers: &Servers<'_>, bare: &Bare) -> Vec<Row> {
    let Servers { runtime, name, large: store, .. } = servers;
    let mut rows = vec![Row::cost(
        &format!("{name} is_authorized, 1 caller"),
        "acknowledged publish + core round trip",
        Limit::AtMost(0.9),
        15,
        || asked_by(runtime, slice::from_ref(store), 1, CALLS),
        || {
            publishes(runtime, bare)
                + each(CALLS, || {
                    runtime.block_on(async {
                        for _ in 0..CALLS {
                            bare.round_trip().await;
                        }
                    });
                })
        },
    )];
    rows.extend([64, 256].map(|callers| {
        Row::cost(
            &format!("{name} is_authorized, {callers} callers"),
            &format!("acknowledged publish / {callers}, or {LEAST:?} / {SHARED}"),
            Limit::AtMost(SHARED),
            15,
            || asked_by(runtime, slice::from_ref(store), callers, CALLS / 2 * callers),
            || (publishes(runtime, bare) / callers).max(LEAST.div_f64(SHARED)),
        )
    }));
    rows.push(bounded(servers, bare));
    rows
}

fn publishes(runtime: &Runtime, bare: &Bare) -> Duration {
    each(CALLS, || {
        runtime.block_on(async {
            for _ in 0..CALLS {
                bare.publish("users").await;
            }
        });
    })
}

/// The time of one decision, by concurrent callers who are spread over these clients.
pub(super) fn asked_by(
    runtime: &Runtime,
    clients: &[Arc<dyn Store>],
    callers: u32,
    calls: u32,
) -> Duration {
    each(calls, || {
        let clients: Arc<[_]> = clients.into();
        runtime.block_on(by(callers, 0..calls, move |number| {
            let store = Arc::clone(clients.get(number as usize % clients.len()).unwrap());
            async move {
                let key = user_key(number.wrapping_mul(7_919) % USERS);
                assert!(store.is_authorized(&key).await.is_allowed());
            }
        }));
    })
}

fn bounded(servers: &Servers<'_>, bare: &Bare) -> Row {
    let Servers { runtime, name, .. } = servers;
    let mode = ReadMode::BoundedStaleness { bound: Duration::from_secs(1) };
    let store: Arc<dyn Store> =
        Arc::new(runtime.block_on(open(&servers.url, servers.replicas, LARGE, mode)));
    let users = runtime.block_on(bare.kv("users"));
    let row = Row::cost(
        &format!("{name} is_authorized, bounded staleness, 1 caller"),
        "kv.get",
        Limit::AtMost(0.02),
        15,
        || asked_by(runtime, slice::from_ref(&store), 1, CALLS * 50),
        || {
            each(CALLS, || {
                runtime.block_on(async {
                    for number in 0..CALLS {
                        let key = user_key(number).to_string();
                        assert!(users.get(key).await.unwrap().is_some());
                    }
                });
            })
        },
    );
    runtime.block_on(store.close()).unwrap();
    row
}
