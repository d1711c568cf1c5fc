//! The store that most people would write: the same five buckets, plain `kv.get` and `kv.put`.
//!
//! This store has no deliberate defect. It writes with `create` and `update` where two writers could race, every call
//! has a deadline, and its decisions are right while no server fails. But any single server answers a `kv.get` from its
//! own data. A server that is cut off from the others goes on to allow users whom the others revoked, for as long as
//! the cut lasts (clause AUTH-3).

mod bucket;
mod record;
mod store;

use std::sync::Arc;

use futures::future::BoxFuture;
use membership::{Error, JetStreamConfig};

use crate::targets::{JetStream, Opened};
use membership_conformance::Need;
use membership_conformance::controls::Control;
use nats_cluster::Provision;

/// Its name, for `--store`.
const NAME: &str = "naive-kv";

/// The abilities that the suite does not ask of this store, with the reasons.
const DECLINES: &[(Need, &str)] = &[
    (Need::Processes, "only cases that harm its servers matter"),
    (Need::Corruption, "the suite does not know its records"),
    (Need::Epochs, "the suite does not know its records"),
    (Need::Bounded, "it has no bounded-staleness mode"),
    (Need::Suspend, "it has no bounded-staleness mode"),
];

/// The naive store on three servers, as a target.
#[must_use]
pub fn target(provision: Provision) -> JetStream {
    JetStream::another(NAME, 3, provision, Arc::new(open), DECLINES)
}

/// The cases that must catch the naive store: a revoked user is allowed at a server that is cut off, and there is a
/// second first admin after all users vanished.
#[must_use]
pub fn controls() -> Vec<Control> {
    let control = |name, clause, first, what| Control {
        name,
        clause,
        what,
        visible: false,
        first: Some(first),
        target: Arc::new(target(Provision::Auto)),
    };
    vec![
        control(
            "naive-kv",
            "AUTH-3",
            "partitions::a_cut_off_server_denies_users_that_the_others_revoked",
            "decides by a plain kv.get, which any single server answers",
        ),
        control(
            "naive-kv-emptied",
            "USER-1",
            "past::vanished_records_do_not_free_the_bootstrap",
            "takes a bucket that lost all users for a new one",
        ),
    ]
}

fn open(config: JetStreamConfig) -> BoxFuture<'static, Result<Opened, Error>> {
    Box::pin(async move {
        let store = Box::pin(store::NaiveKv::open(&config)).await?;
        Ok(Opened::of(Arc::new(store)))
    })
}
