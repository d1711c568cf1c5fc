use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use membership::Store;

use super::{Call, History};
use crate::model::{Answer, Op};

/// Records the calls and answers of any number of clients in this process. Clones record into the
/// same history.
///
/// One counter orders all events: a call that returned before another began, on whichever thread,
/// has the lower number.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    clock: AtomicU64,
    /// A std lock: held for one push or one assignment, never across an await.
    calls: Mutex<Vec<Call>>,
}

impl Recorder {
    /// Creates a recorder whose history is empty and starts from an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a call as this client, and records it. If the future is dropped before it completes,
    /// the call stays without an answer.
    pub async fn call(&self, client: usize, store: &dyn Store, op: Op) -> Answer {
        let number = self.begin(client, op.clone());
        let answer = op.apply(store).await;
        self.end(number, answer.clone());
        answer
    }

    /// Records that a call begins now, without making it; [`call`](Self::call) does both. Returns
    /// the call's number, for [`end`](Self::end).
    #[must_use]
    pub fn begin(&self, client: usize, op: Op) -> usize {
        let mut calls = self.calls();
        let began = self.now();
        calls.push(Call { client, op, began, ended: None });
        calls.len() - 1
    }

    /// Records that the call with this number returns now.
    pub fn end(&self, number: usize, answer: Answer) {
        let mut calls = self.calls();
        let ended = self.now();
        if let Some(call) = calls.get_mut(number) {
            call.ended = Some((ended, answer));
        }
    }

    /// Returns a new moment, later than all before.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// The history so far.
    #[must_use]
    pub fn history(&self) -> History {
        History { calls: self.calls().clone(), ..History::default() }
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
