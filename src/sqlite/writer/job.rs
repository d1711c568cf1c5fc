use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::driver::Result;
use crate::Error;

/// A waiting write. The trait hides the type of its answer.
pub(super) trait Job: Send {
    fn deadline(&self) -> Instant;

    /// Whether the caller still waits for the answer. A write whose caller has gone is not begun.
    fn wanted(&self) -> bool;

    /// Runs the write and keeps its result. Returns the error if the write failed.
    fn run(&mut self, db: &Connection) -> Result<(), Error>;

    /// Forgets the result of a run that was rolled back.
    fn forget(&mut self);

    /// Sends the result of the last run to the caller; `Timeout` if the write never ran.
    fn answer(self: Box<Self>);

    /// Sends an error to the caller.
    fn refuse(self: Box<Self>, error: Error);
}

/// A write: the work, and the channel to its caller.
pub(super) struct Write<T, F> {
    work: F,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
    deadline: Instant,
    /// The place in the queue, which is free again once the write is answered.
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
        // A panic is safe to catch: the work changes nothing but the database, and the transaction
        // is rolled back.
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
