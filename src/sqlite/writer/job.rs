use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::driver::Result;
use crate::Error;

/// A write that waits, without the type of its answer.
pub(super) trait Job: Send {
    fn deadline(&self) -> Instant;

    /// Whether anybody waits for the answer: a job that nobody waits for is not begun.
    fn wanted(&self) -> bool;

    /// Does the work and keeps the result; says why it failed, if it did.
    fn run(&mut self, db: &Connection) -> Result<(), Error>;

    /// Forgets the result of a run that was undone.
    fn forget(&mut self);

    /// Gives the caller the result of the last run; `Timeout` where there was none.
    fn answer(self: Box<Self>);

    /// Gives the caller an error.
    fn refuse(self: Box<Self>, error: Error);
}

/// A write: what is to be done, and who waits for it.
pub(super) struct Write<T, F> {
    work: F,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
    deadline: Instant,
    /// The place in the queue, given back with the answer.
    _place: OwnedSemaphorePermit,
}

impl<T, F> Write<T, F> {
    pub(super) fn new(
        work: F,
        deadline: Instant,
        place: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Result<T, Error>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work, result: None, reply, deadline, _place: place }, answer)
    }
}

impl<T, F> Job for Write<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T> + Send,
{
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn wanted(&self) -> bool {
        !self.reply.is_closed() && Instant::now() < self.deadline
    }

    fn run(&mut self, db: &Connection) -> Result<(), Error> {
        // What the work leaves half-done is in the database alone, and rolled back.
        let result = catch_unwind(AssertUnwindSafe(|| (self.work)(db)))
            .unwrap_or_else(|_| Err(Error::unavailable("a write panicked").into()))
            .map_err(Error::from);
        let said = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        said
    }

    fn forget(&mut self) {
        self.result = None;
    }

    fn answer(self: Box<Self>) {
        let result = self.result.unwrap_or(Err(Error::Timeout));
        drop(self.reply.send(result));
    }

    fn refuse(self: Box<Self>, error: Error) {
        drop(self.reply.send(Err(error)));
    }
}
