//! Values that are checked when they are built, so that no illegal one exists (clause TYPE-4).
//!
//! Stores never have to check them again.

mod ciphertext;
mod epoch;
mod id;
mod label;
mod page;
mod user_key;

pub use ciphertext::Ciphertext;
pub use epoch::{Epoch, Timestamp};
pub use id::{EndpointId, RoomId};
pub use label::Label;
pub use page::Page;
pub use user_key::UserKey;
