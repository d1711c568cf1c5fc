//! The stores that ship with the project, as targets.

mod memory;

use std::sync::Arc;

pub use memory::Memory;

use crate::target::Target;

/// One of each, in the order of the matrix.
#[must_use]
pub fn shipped() -> Vec<Arc<dyn Target>> {
    vec![Arc::new(Memory)]
}
