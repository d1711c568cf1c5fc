//! Many calls in flight at once, where one after the other would take too long.

use futures::{StreamExt, TryStreamExt, stream};

use crate::context::Cx;
use crate::verdict::Verdict;

/// How many are in flight: enough for a store that groups its writes to do so.
const IN_FLIGHT: usize = 64;

/// How many are in flight where they change one record of a store that is not in this process,
/// which may have them all try again whenever one has won: that they starve each other is no
/// failure of a store.
const RIVALS: usize = 4;

/// Runs all of `calls`, and ends with the first that fails; the results are in their order.
pub fn together<T, Call>(
    calls: impl IntoIterator<Item = Call>,
) -> impl Future<Output = Verdict<Vec<T>>>
where
    Call: Future<Output = Verdict<T>>,
{
    few(IN_FLIGHT, calls)
}

/// The same for calls that all change one room.
pub fn in_one_room<T, Call>(
    cx: &Cx,
    calls: impl IntoIterator<Item = Call>,
) -> impl Future<Output = Verdict<Vec<T>>>
where
    Call: Future<Output = Verdict<T>>,
{
    few(if cx.target().pace() > 1 { RIVALS } else { IN_FLIGHT }, calls)
}

fn few<T, Call>(
    in_flight: usize,
    calls: impl IntoIterator<Item = Call>,
) -> impl Future<Output = Verdict<Vec<T>>>
where
    Call: Future<Output = Verdict<T>>,
{
    // Made here, not inside: a future that held the caller's iterator would be hard to spawn.
    let calls: Vec<_> = calls.into_iter().collect();
    stream::iter(calls).buffered(in_flight).try_collect()
}
