//! The stores that ship with the project, as targets.

mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::sync::Arc;

pub use memory::Memory;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;

use crate::target::Target;

/// One of each, in the order of the matrix.
#[must_use]
pub fn shipped() -> Vec<Arc<dyn Target>> {
    vec![
        Arc::new(Memory),
        #[cfg(feature = "sqlite")]
        Arc::new(Sqlite),
    ]
}
