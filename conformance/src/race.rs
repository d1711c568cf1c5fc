//! Calls that begin together.

use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use crate::context::Cx;
use crate::target::{Claim, Need};
use crate::transcript::Client;
use crate::verdict::Verdict;

/// `count` clients of the same data; handles of one client if the target has only one.
pub(crate) async fn clients(cx: &Cx, count: usize) -> Verdict<Vec<Client>> {
    let several = cx.target().claims(Need::Clients) == Claim::Claimed;
    let mut clients = vec![cx.open().await?];
    while clients.len() < count {
        let next = match clients.first() {
            Some(first) if !several => first.clone(),
            _ => cx.open().await?,
        };
        clients.push(next);
    }
    Ok(clients)
}

/// Runs each future in a task of its own and starts them together. Returns the results in order.
///
/// If one of the futures panics, its panic is resumed here.
pub(crate) async fn together<T: Send + 'static>(
    racers: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let racers: Vec<_> = racers.into_iter().collect();
    let barrier = Arc::new(Barrier::new(racers.len()));
    let tasks: Vec<_> = racers
        .into_iter()
        .map(|racer| {
            let barrier = Arc::clone(&barrier);
            tokio::spawn(async move {
                barrier.wait().await;
                racer.await
            })
        })
        .collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(joined(task).await);
    }
    results
}

/// Runs two futures as [`together`] does.
pub(crate) async fn both<A: Send + 'static, B: Send + 'static>(
    one: impl Future<Output = A> + Send + 'static,
    two: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    let here = Arc::new(Barrier::new(2));
    let also_here = Arc::clone(&here);
    let one = tokio::spawn(async move {
        here.wait().await;
        one.await
    });
    let two = tokio::spawn(async move {
        also_here.wait().await;
        two.await
    });
    (joined(one).await, joined(two).await)
}

/// Returns a task's result. If the task panicked, the panic is resumed here.
pub(crate) async fn joined<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
