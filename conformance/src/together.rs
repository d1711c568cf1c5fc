//! Runs many calls at once: one after the other they would take too long.

use futures::{StreamExt, TryStreamExt, stream};

use crate::verdict::Verdict;

/// How many calls are in flight: enough for a store to group its writes.
const IN_FLIGHT: usize = 64;

/// Runs all of `calls` and returns the results in order, or the first failure.
pub(crate) fn together<T, Call>(
    calls: impl IntoIterator<Item = Call>,
) -> impl Future<Output = Verdict<Vec<T>>>
where
    Call: Future<Output = Verdict<T>>,
{
    // The calls are collected first, since a future that holds the caller's iterator can hardly be
    // spawned.
    let calls: Vec<_> = calls.into_iter().collect();
    stream::iter(calls).buffered(IN_FLIGHT).try_collect()
}
