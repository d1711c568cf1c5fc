//! Dropped calls: each call is dropped unpolled, after one poll, and so on until it ends by itself.
//!
//! A dropped call takes effect once or not at all, at once or later. The store goes on, and the
//! call leaves no task, file or connection behind.

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

/// How many numbers of polls are tried: far more than a call needs to end.
const MOST: u64 = 2000;

/// Runs the call in a task of its own, and drops it after `polls` polls. `None` if it was dropped.
pub(super) async fn cut<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
    polls: u64,
) -> Option<T> {
    joined(tokio::spawn(cut_here(call, polls))).await
}

/// As [`cut`], in the caller's task.
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

/// The numbers of polls after which to drop a call. A case stops trying when the call ends by
/// itself.
///
/// On a slow target only every n-th number is tried, and the seed decides where the series begins.
/// A faster target that runs the same code tries all numbers.
fn each_poll(cx: &Cx) -> impl Iterator<Item = u64> + Send + use<> {
    let step = u64::from(cx.target().pace() / 5).max(1);
    let first = cx.seed() % step;
    (0..MOST).map(move |tries| first + tries * step)
}

/// The failure of a case whose call has not ended by itself after [`MOST`] tries.
fn never_ends() -> Failure {
    Failure::new(format!("a call that ends within {MOST} polls"), "one that does not")
}
