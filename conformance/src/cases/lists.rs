//! Pages of members, of an endpoint's rooms, and of users.

pub(super) mod contents;
pub(super) mod cursors;
pub(super) mod order;
pub(super) mod paging;
