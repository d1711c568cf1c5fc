//! Sealed keys, epochs and rekeys.

pub(super) mod lookup;
pub(super) mod members;
pub(super) mod refusals;
pub(super) mod rekeys;
