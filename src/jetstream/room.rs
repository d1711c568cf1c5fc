//! A room's life: its creation, members, keys, rekeys and deletion, and the garbage that changes leave.
//!
//! A change is planned on a [`View`](view::View) and made by the commit of a [`PlannedChange`](commit::PlannedChange),
//! which fails if the room has changed since.

pub(super) mod add;
mod addition_queue;
mod background_tasks;
pub(super) mod commit;
mod decode;
mod end_head;
mod epoch_guesses;
mod generation;
mod index_entry;
mod lifetime;
mod members;
mod occupant;
mod read_key;
mod rekey;
mod renewals;
pub(super) mod room_client;
mod rooms_of;
pub(super) mod roster;
mod roster_cache;
mod sweep;
mod turns;
pub(super) mod view;
