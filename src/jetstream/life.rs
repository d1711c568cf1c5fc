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
