//! The calls in flight: each has a deadline, and closing the store ends those that last too long.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::Error;
use crate::gate::Gate;
use crate::trace::event;

/// The calls in flight, and whether new ones may begin.
#[derive(Debug, Default)]
pub(super) struct Calls {
    gate: Gate,
    /// Notified when the remaining calls must end.
    over: Notify,
    ended: AtomicBool,
}

impl Calls {
    /// Runs a call until its deadline, unless the store is closed.
    pub(super) async fn call<T>(
        &self,
        limit: Duration,
        call: impl AsyncFnOnce(Instant) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _inside = self.gate.enter()?;
        let deadline = Instant::now() + limit;
        let over = self.over.notified();
        tokio::pin!(over);
        over.as_mut().enable();
        if self.ended.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        tokio::select! {
            biased;
            done = timeout_at(deadline, call(deadline)) => done.unwrap_or(Err(Error::Timeout)),
            () = over => Err(Error::Timeout),
        }
    }

    /// As [`call`](Self::call), for a call that keeps its deadline itself.
    pub(super) async fn quick<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let _inside = self.gate.enter()?;
        call.await
    }

    pub(super) fn is_closed(&self) -> bool {
        self.gate.is_shut()
    }

    /// Fails once the store is closed.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Refuses new calls, waits for those in flight until the deadline, and then ends them.
    pub(super) async fn close(&self, deadline: Instant) {
        self.gate.shut();
        if timeout_at(deadline, self.gate.empty()).await.is_err() {
            event!(call: debug, "the calls in flight were ended: closing waits no longer");
            self.ended.store(true, Ordering::SeqCst);
            self.over.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Makes calls that take this many seconds each, and closes the store meanwhile. Returns the results of the calls,
    /// and how long the closing took.
    async fn closed_during<const N: usize>(
        seconds: [u32; N],
        patience: Duration,
    ) -> (Vec<Result<(), Error>>, Duration) {
        let (store, begun) = (Calls::default(), Instant::now());
        let calls = seconds.map(|takes| {
            store.call(100 * SECOND, async move |_| {
                tokio::time::sleep(takes * SECOND).await;
                Ok(())
            })
        });
        let close = async {
            store.close(begun + patience).await;
            begun.elapsed()
        };
        let (said, waited) = future::join(future::join_all(calls), close).await;
        assert_eq!(store.check(), Err(Error::Closed));
        assert_eq!(store.call(SECOND, async |_| Ok(())).await, Err(Error::Closed));
        (said, waited)
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_the_last_call_and_no_longer() {
        assert_eq!(closed_during([], 10 * SECOND).await, (vec![], Duration::ZERO));
        assert_eq!(closed_during([2], 10 * SECOND).await, (vec![Ok(())], 2 * SECOND));
        assert_eq!(closed_during([1, 3, 2], 10 * SECOND).await, (vec![Ok(()); 3], 3 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_the_calls_that_last_too_long() {
        let (said, waited) = closed_during([1, 30], 10 * SECOND).await;
        assert_eq!((said, waited), (vec![Ok(()), Err(Error::Timeout)], 10 * SECOND));
    }
}
