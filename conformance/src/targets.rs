//! The stores that ship with the project, as targets.

#[cfg(all(feature = "jetstream", unix))]
mod jetstream;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::sync::Arc;

#[cfg(all(feature = "jetstream", unix))]
pub use jetstream::JetStream;
#[cfg(all(feature = "jetstream", unix))]
pub(crate) use jetstream::Opened;
pub use memory::Memory;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;

use crate::target::Target;
#[cfg(all(feature = "jetstream", unix))]
use nats_cluster::Provision;

/// Targets that run only when they are named.
///
/// Five servers show little more than three and take longer; the naive store is there to fail.
const EXTRA: &[&str] = &["jetstream-r5", "naive-kv"];

/// The targets of a run that names none, in the order of the matrix.
#[must_use]
pub fn shipped() -> Vec<Arc<dyn Target>> {
    let mut targets = all();
    targets.retain(|target| !is_extra(&**target));
    targets
}

/// Every target, also those that run only when they are named.
#[must_use]
pub fn all() -> Vec<Arc<dyn Target>> {
    #[cfg(all(feature = "jetstream", unix))]
    return all_with(Provision::Auto);
    #[cfg(not(all(feature = "jetstream", unix)))]
    alone()
}

/// As [`all`]; `provision` says where NATS servers come from.
#[cfg(all(feature = "jetstream", unix))]
#[must_use]
pub fn all_with(provision: Provision) -> Vec<Arc<dyn Target>> {
    let mut targets = alone();
    targets.extend(JetStream::all(provision).map(|target| Arc::new(target) as Arc<dyn Target>));
    targets.push(Arc::new(crate::gallery::naive::target(provision)));
    targets
}

/// The targets that need no server.
fn alone() -> Vec<Arc<dyn Target>> {
    vec![
        Arc::new(Memory),
        #[cfg(feature = "sqlite")]
        Arc::new(Sqlite::default()),
    ]
}

/// Whether the target runs only when it is named.
pub(crate) fn is_extra(target: &dyn Target) -> bool {
    EXTRA.contains(&target.name())
}
