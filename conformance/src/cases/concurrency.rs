//! Concurrent calls: one order of the calls must explain all answers (LIN-1).
//!
//! Readers also check rules that hold in every state, such as KEY-1.

pub(super) mod index;
pub(super) mod memberships;
pub(super) mod orders;
pub(super) mod readers;
pub(super) mod rekeys;
pub(super) mod rooms;

use crate::context::Cx;
use crate::transcript::Client;
use crate::verdict::Verdict;

/// Opens `count` clients of one store, for cases that need `Clients`.
async fn clients(cx: &Cx, count: usize) -> Verdict<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(cx.open().await?);
    }
    Ok(clients)
}
