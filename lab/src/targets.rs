//! The targets of the stores that ship with the project.

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
pub use nats_cluster::Provision;
pub use sqlite::Sqlite;

/// Some targets.
pub type Targets = Vec<Arc<dyn Target>>;

/// Where NATS servers come from. On this system there are none.
#[cfg(not(unix))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Provision;

/// The targets that run if the command line names none, in the order of the matrix. `provision` says where NATS servers
/// come from.
#[must_use]
#[cfg_attr(not(unix), allow(unused_variables, unused_mut, reason = "there are no servers"))]
pub fn shipped(provision: Provision) -> Targets {
    let mut targets: Targets = vec![Arc::new(Memory), Arc::new(Sqlite::default())];
    #[cfg(unix)]
    {
        let [one, three, _] = JetStream::all(provision);
        targets.extend([one, three].map(|target| Arc::new(target) as Arc<dyn Target>));
    }
    targets
}

/// The targets that run only when they are named. A cluster of five shows little that one of three does not, and takes
/// longer; the naive store is there to fail.
#[must_use]
#[cfg_attr(not(unix), allow(unused_variables, reason = "there are no servers"))]
pub fn on_request(provision: Provision) -> Targets {
    #[cfg(unix)]
    {
        let [_, _, five] = JetStream::all(provision);
        vec![Arc::new(five), Arc::new(crate::naive::target(provision))]
    }
    #[cfg(not(unix))]
    Vec::new()
}
