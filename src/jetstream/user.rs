//! A user's life: additions, revocations and decisions. Decisions read a copy of the users in memory.

mod change_user;
pub(super) mod copy_proof;
pub(super) mod user_client;
pub(super) mod users_copy;
