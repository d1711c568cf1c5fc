//! Servers that lose sight of one another.

pub(super) mod cut_off;
pub(super) mod in_step;
