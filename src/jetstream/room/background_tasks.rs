use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::Error;
use crate::trace::{event, span};

/// Work that goes on in the background after a call was answered: garbage collection. No answer depends on this work,
/// so errors are only traced, and other calls find and collect what is left. The tasks end when this value is dropped.
#[derive(Default)]
pub(in crate::jetstream) struct BackgroundTasks {
    /// A std lock: held to add a task or to take them all.
    tasks: Mutex<JoinSet<()>>,
}

/// Background tasks of one client at once; more work is left to others.
const MOST: usize = 256;

impl BackgroundTasks {
    pub(super) fn spawn(&self, work: impl Future<Output = Result<(), Error>> + Send + 'static) {
        let work = span!("background").inside(async move {
            if let Err(error) = work.await {
                event!(garbage: debug, "left to later calls", error);
            }
        });
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        if tasks.len() < MOST {
            tasks.spawn(work);
            return;
        }
        // The subscriber is the caller's code, so no event is emitted under the lock.
        drop(tasks);
        event!(garbage: debug, "left to later calls: too much is being collected");
    }

    /// As [`spawn`](Self::spawn), for work that a caller waits for.
    pub(super) fn spawn_surely(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Waits for the running tasks until the deadline.
    pub(in crate::jetstream) async fn finish(&self, deadline: Instant) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout_at(deadline, all).await.is_err() {
            event!(garbage: debug, "left to other clients: closing waits no longer");
        }
    }

    /// Ends the running tasks.
    pub(in crate::jetstream) fn abandon(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn what_is_abandoned_ends() {
        let (background, work) = (BackgroundTasks::default(), Arc::new(()));
        for endless in [Arc::clone(&work), Arc::clone(&work)] {
            background.spawn(async move {
                std::future::pending::<()>().await;
                drop(endless);
                Ok(())
            });
        }
        assert_eq!(Arc::strong_count(&work), 3);
        background.abandon();
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&work), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_waited_for_until_then() {
        let background = BackgroundTasks::default();
        let begun = Instant::now();
        let second = std::time::Duration::from_secs(1);
        background.spawn_surely(tokio::time::sleep(second));
        background.finish(begun + 2 * second).await;
        assert_eq!(begun.elapsed(), second);
        background.spawn_surely(std::future::pending());
        background.finish(begun + 2 * second).await;
        assert_eq!(begun.elapsed(), 2 * second);
    }
}
