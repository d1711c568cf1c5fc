//! Callers who stop waiting: every call is dropped at its first poll, at its second, and so on
//! until it ends by itself.
//!
//! A call that is dropped is done once or not at all, then or later; the store goes on; and
//! nothing of it is left behind.

pub(super) mod clients;
pub(super) mod leaks;
pub(super) mod reads;
pub(super) mod rekeys;
pub(super) mod writes;

use std::pin::pin;
use std::task::Poll;

use crate::context::Cx;
use crate::race::joined;
use crate::verdict::Failure;

/// Calls are polled far less often than this before they end.
const MOST: u64 = 2000;

/// Polls the call so many times, each time it asks to be, in a task of its own; and drops it if it
/// has not ended by then.
pub(super) async fn cut<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
    polls: u64,
) -> Option<T> {
    joined(tokio::spawn(cut_here(call, polls))).await
}

/// The same, inside the caller's task.
async fn cut_here<T>(call: impl Future<Output = T>, polls: u64) -> Option<T> {
    let (mut call, mut left) = (pin!(call), polls);
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// After how many polls to drop a call: none, one, and so on, for the caller to stop when a call
/// ends. A target on which calls are slow leaves out some, other ones with another seed: the code
/// that is dropped is the same as on a faster one of its kind.
fn each_poll(cx: &Cx) -> impl Iterator<Item = u64> + Send + use<> {
    let step = u64::from(cx.target().pace() / 5).max(1);
    let first = cx.seed() % step;
    (0..MOST).map(move |tries| first + tries * step)
}

/// What a case ends with that has tried each of them.
fn never_ends() -> Failure {
    Failure::new(format!("a call that ends within {MOST} polls"), "one that does not")
}
