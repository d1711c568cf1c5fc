use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use membership::Store;

use super::{Call, History};
use crate::model::{Answer, Op};

/// Writes down what is asked and answered, by any number of clients of one process. A clone writes
/// to the same history.
///
/// One counter orders everything: a call that had returned when another began has the lower
/// number, whichever threads they were on.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    clock: AtomicU64,
    /// A std lock: held for one push or one assignment, never across an await.
    calls: Mutex<Vec<Call>>,
}

impl Recorder {
    /// An empty history, on an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a call, as this client. Where the future is dropped before it ends, the call stays
    /// without an answer.
    pub async fn call(&self, client: usize, store: &dyn Store, op: Op) -> Answer {
        let number = self.begin(client, op.clone());
        let answer = op.apply(store).await;
        self.end(number, answer.clone());
        answer
    }

    /// A call begins now; for whoever makes it otherwise than [`call`](Self::call) does. The
    /// number is for [`end`](Self::end).
    #[must_use]
    pub fn begin(&self, client: usize, op: Op) -> usize {
        let mut calls = self.calls();
        let began = self.now();
        calls.push(Call { client, op, began, ended: None });
        calls.len() - 1
    }

    /// The call with this number returns now.
    pub fn end(&self, number: usize, answer: Answer) {
        let mut calls = self.calls();
        let ended = self.now();
        if let Some(call) = calls.get_mut(number) {
            call.ended = Some((ended, answer));
        }
    }

    /// The next moment: every one is later than those before.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// What was written down so far.
    #[must_use]
    pub fn history(&self) -> History {
        History { calls: self.calls().clone(), ..History::default() }
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
