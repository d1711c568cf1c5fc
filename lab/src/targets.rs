//! The stores that ship with the project, as targets.

#[cfg(unix)]
mod jetstream;
mod sqlite;

use std::sync::Arc;

#[cfg(unix)]
pub use jetstream::JetStream;
#[cfg(unix)]
pub(crate) use jetstream::Opened;
use membership_conformance::{Memory, Target};
#[cfg(unix)]
use nats_cluster::Provision;
pub use sqlite::Sqlite;

/// Some targets.
pub type Targets = Vec<Arc<dyn Target>>;

/// The targets of a run that names none, in the order of the matrix.
#[cfg(unix)]
#[must_use]
pub fn shipped() -> Targets {
    shipped_with(Provision::Auto)
}

/// The targets of a run that names none, in the order of the matrix.
#[cfg(not(unix))]
#[must_use]
pub fn shipped() -> Targets {
    alone()
}

/// As [`shipped`]; those that need NATS servers have them the way `provision` says.
#[cfg(unix)]
#[must_use]
pub fn shipped_with(provision: Provision) -> Targets {
    let [one, three, _] = JetStream::all(provision);
    let mut targets = alone();
    targets.extend([one, three].map(|target| Arc::new(target) as Arc<dyn Target>));
    targets
}

/// The targets that run only when they are named: a cluster of five shows little that one of three
/// does not and takes longer, and the naive store is there to fail.
#[cfg(unix)]
#[must_use]
pub fn on_request() -> Targets {
    on_request_with(Provision::Auto)
}

/// The targets that run only when they are named.
#[cfg(not(unix))]
#[must_use]
pub fn on_request() -> Targets {
    Vec::new()
}

/// As [`on_request`], with servers had the way `provision` says.
#[cfg(unix)]
#[must_use]
pub fn on_request_with(provision: Provision) -> Targets {
    let [_, _, five] = JetStream::all(provision);
    vec![Arc::new(five), Arc::new(crate::naive::target(provision))]
}

/// Those that need nothing from outside.
fn alone() -> Targets {
    vec![Arc::new(Memory), Arc::new(Sqlite::default())]
}
