use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::Error;

/// Who is in, and whether anybody may still come in.
#[derive(Debug, Default)]
pub(super) struct Life {
    closed: AtomicBool,
    calls: AtomicUsize,
    /// Told when the last call is out.
    idle: Notify,
    /// Told when the calls that are left must end.
    over: Notify,
    ended: AtomicBool,
}

/// One call under way.
struct Call<'a>(&'a Life);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.0.calls.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Life {
    /// Runs a call, unless the store is closed, for as long as it may take.
    pub(super) async fn call<T>(
        &self,
        limit: Duration,
        call: impl AsyncFnOnce(Instant) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _call = self.enter()?;
        let by = Instant::now() + limit;
        let over = self.over.notified();
        tokio::pin!(over);
        over.as_mut().enable();
        if self.ended.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        tokio::select! {
            biased;
            done = timeout_at(by, call(by)) => done.unwrap_or(Err(Error::Timeout)),
            () = over => Err(Error::Timeout),
        }
    }

    /// The same for a call that keeps its time by itself and is worth no timer.
    pub(super) async fn quick<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let _call = self.enter()?;
        call.await
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }

    fn enter(&self) -> Result<Call<'_>, Error> {
        // Counted first: whoever closes sees either the call or a call that sees the closing.
        self.calls.fetch_add(1, Ordering::SeqCst);
        let call = Call(self);
        self.check()?;
        Ok(call)
    }

    /// Lets nobody in any more, waits for those inside until `by`, then has them end.
    pub(super) async fn close(&self, by: Instant) {
        self.closed.store(true, Ordering::SeqCst);
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.calls.load(Ordering::SeqCst) == 0 {
                return;
            }
            if timeout_at(by, idle).await.is_err() {
                self.ended.store(true, Ordering::SeqCst);
                self.over.notify_waiters();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Calls that take so many seconds each, while the store is closed; what they said, and for how long
    /// the closing waited.
    async fn closed_during<const N: usize>(
        seconds: [u32; N],
        patience: Duration,
    ) -> (Vec<Result<(), Error>>, Duration) {
        let (life, begun) = (Life::default(), Instant::now());
        let calls = seconds.map(|takes| {
            life.call(100 * SECOND, async move |_| {
                tokio::time::sleep(takes * SECOND).await;
                Ok(())
            })
        });
        let close = async {
            life.close(begun + patience).await;
            begun.elapsed()
        };
        let (said, waited) = future::join(future::join_all(calls), close).await;
        assert_eq!(life.check(), Err(Error::Closed));
        assert_eq!(life.call(SECOND, async |_| Ok(())).await, Err(Error::Closed));
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
