//! Many callers at once: whatever happens has an order that explains it (LIN-1), and what must
//! hold in every state holds in each that somebody sees.

pub(super) mod index;
pub(super) mod memberships;
pub(super) mod orders;
pub(super) mod readers;
pub(super) mod rekeys;
pub(super) mod rooms;

use crate::context::Cx;
use crate::transcript::Client;
use crate::verdict::Verdict;

/// So many clients of one store; for cases that need `Clients`.
async fn clients(cx: &Cx, count: usize) -> Verdict<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(cx.open().await?);
    }
    Ok(clients)
}
