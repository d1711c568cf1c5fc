//! The store that most people would write: the same five buckets, plain `kv.get` and `kv.put`.
//!
//! Nothing in it is made wrong on purpose. It writes with `create` and `update` where two writers
//! could meet, it bounds every call, and on servers that nobody breaks it decides correctly. But a
//! `kv.get` is answered by any one server, from what that server has: cut one off, and it lets in
//! whom the others revoked, for as long as the cut lasts (clause AUTH-3).

mod bucket;
mod record;
mod store;

use std::sync::Arc;

use futures::future::BoxFuture;
use membership::{Error, JetStreamConfig};

use crate::targets::{JetStream, Opened};
use membership_conformance::Need;
use nats_cluster::Provision;

/// Its name, for `--store`.
const NAME: &str = "naive-kv";

/// What it cannot do, so that it is judged by what it can.
const DECLINES: &[(Need, &str)] = &[
    (Need::Processes, "it is there to be cut apart, not to be run"),
    (Need::Corruption, "its records are its own"),
    (Need::Epochs, "its records are its own"),
    (Need::Bounded, "it knows no bound"),
    (Need::Suspend, "it knows no bound"),
];

/// The naive store on three servers, as a target.
#[must_use]
pub fn target(provision: Provision) -> JetStream {
    JetStream::another(NAME, 3, provision, Arc::new(open), DECLINES)
}

fn open(config: JetStreamConfig) -> BoxFuture<'static, Result<Opened, Error>> {
    Box::pin(async move {
        let store = Box::pin(store::NaiveKv::open(&config)).await?;
        Ok(Opened::of(Arc::new(store)))
    })
}
