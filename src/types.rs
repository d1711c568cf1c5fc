//! Parsed values: what is illegal cannot be built (clause TYPE-4).
//!
//! Every constructor checks its whole contract, so that a store never has to.

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
