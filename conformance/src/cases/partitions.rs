//! Clients of different servers, while a server is cut off, paused or slow.

pub(super) mod cut_off;
pub(super) mod in_step;
