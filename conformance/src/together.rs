//! Many calls in flight at once, where one after the other would take too long.

use futures::{StreamExt, TryStreamExt, stream};

use crate::verdict::Verdict;

/// How many are in flight: enough for a store that groups its writes to do so.
const IN_FLIGHT: usize = 64;

/// Runs all of `calls`, and ends with the first that fails; the results are in their order.
pub fn together<T, Call>(
    calls: impl IntoIterator<Item = Call>,
) -> impl Future<Output = Verdict<Vec<T>>>
where
    Call: Future<Output = Verdict<T>>,
{
    // Made here, not inside: a future that held the caller's iterator would be hard to spawn.
    let calls: Vec<_> = calls.into_iter().collect();
    stream::iter(calls).buffered(IN_FLIGHT).try_collect()
}
