//! The gate of a store: admits calls until the store closes.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::Error;

/// The bit of [`Gate::state`] that is set once the gate is shut. The other bits count the calls in flight.
const SHUT: usize = 1 << (usize::BITS - 1);

/// Admits calls until the gate is shut, and waits for the calls in flight (clauses CLOSE-1, CLOSE-2).
///
/// The shut bit and the count of calls share one atomic word. Otherwise a call could begin after the gate was seen shut
/// and before the count was seen to be 0.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: AtomicUsize,
    left: Notify,
}

impl Gate {
    /// Admits a call, which counts as in flight until the result is dropped. [`Error::Closed`] once the gate is shut.
    pub(crate) fn enter(&self) -> Result<Inside<'_>, Error> {
        let inside = Inside(self);
        if self.state.fetch_add(1, Ordering::AcqRel) & SHUT == 0 {
            Ok(inside)
        } else {
            Err(Error::Closed) // `inside` leaves again
        }
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.state.load(Ordering::Acquire) & SHUT != 0
    }

    /// Admits no more calls.
    pub(crate) fn shut(&self) {
        self.state.fetch_or(SHUT, Ordering::AcqRel);
    }

    /// Waits until a shut gate has no call in flight.
    pub(crate) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // The waiter is registered before the check. Otherwise a call that ends between the two would wake nobody.
            left.as_mut().enable();
            if self.state.load(Ordering::Acquire) == SHUT {
                return;
            }
            left.await;
        }
    }
}

/// A call that a [`Gate`] has admitted.
pub(crate) struct Inside<'gate>(&'gate Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if self.0.state.fetch_sub(1, Ordering::AcqRel) == SHUT | 1 {
            self.0.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shut_gate_is_empty_when_the_last_has_left() {
        let gate = Gate::default();
        let inside = gate.enter().unwrap();
        assert!(!gate.is_shut());
        gate.shut();
        gate.shut();
        assert!(gate.is_shut());
        assert_eq!(gate.enter().err(), Some(Error::Closed));

        let mut empty = std::pin::pin!(gate.empty());
        let pending = std::future::poll_fn(|context| {
            std::task::Poll::Ready(empty.as_mut().poll(context).is_pending())
        });
        assert!(pending.await);
        drop(inside);
        empty.await;
    }
}
