//! The one thread of a client that writes: it owns the connection, runs what is waiting as one
//! transaction, and answers each caller after the commit that holds its write.

mod group;
mod job;

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout_at;

use super::driver::Result;
use super::open;
use super::options::SqliteOptions;
use super::readers::Readers;
use crate::Error;
use group::Grouping;
use job::{Job, Write};

/// The most writes that may wait. Who comes beyond waits for a place, until its deadline.
const QUEUE: usize = 4096;

/// The handle of the writer's thread. The thread ends when the handle is dropped or closed, after
/// it has done or refused what waits.
pub(super) struct Writer {
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    places: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: watch::Receiver<bool>,
}

impl Writer {
    /// Starts the thread, which opens (and makes, and brings forward) the file; returns when it
    /// has, or at `deadline`.
    pub(super) async fn start(
        readers: Arc<Readers>,
        path: std::path::PathBuf,
        options: SqliteOptions,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let (queue, jobs) = mpsc::channel();
        let (end, ended) = watch::channel(false);
        let (opened, outcome) = oneshot::channel();
        let grouping = Grouping::new(options.group_commit);
        let thread = thread::Builder::new()
            .name("membership-sqlite".to_owned())
            .spawn(move || {
                let end = End { end, readers };
                let (connection, result) = match open::writer(&path, &options, deadline) {
                    Ok(connection) => (Some(connection), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                // Where nobody waits any more, the queue is gone too, and `serve` ends at once.
                drop(opened.send(result));
                if let Some(connection) = connection {
                    serve(connection, &jobs, grouping);
                }
                drop(end);
            })
            .map_err(Error::unavailable)?;
        let writer = Self {
            queue: Mutex::new(Some(queue)),
            places: Arc::new(Semaphore::new(QUEUE)),
            thread: Mutex::new(Some(thread)),
            ended,
        };
        match timeout_at(deadline.into(), outcome).await {
            Ok(Ok(result)) => result.map(|()| writer),
            Ok(Err(_)) => Err(Error::unavailable("the writer's thread panicked while opening")),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Has `work` done inside a transaction, and answers after its commit; or at the deadline,
    /// when it is done later or never.
    ///
    /// `work` may run more than once; each time from the state that was there before it.
    pub(super) async fn write<T, F>(&self, budget: Duration, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T> + Send + 'static,
    {
        let deadline = Instant::now() + budget;
        let place = timeout_at(deadline.into(), Arc::clone(&self.places).acquire_owned());
        let place = place.await.map_err(|_| Error::Timeout)?.map_err(|_| Error::Closed)?;
        let (job, answer) = Write::new(work, deadline, place);
        self.send(Box::new(job))?;
        match timeout_at(deadline.into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::unavailable("the writer's thread has ended")),
            Err(_) => Err(Error::Timeout),
        }
    }

    fn send(&self, job: Box<dyn Job>) -> Result<(), Error> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or(Error::Closed)?;
        queue.send(job).map_err(|_| Error::unavailable("the writer's thread has ended"))
    }

    /// Takes nothing more, and returns when all that waited is answered, the connection is closed
    /// and the thread has ended.
    pub(super) async fn close(&self) {
        self.places.close();
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        // An error is a thread that ended without saying so: ended all the same.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has said its last word: this waits for microseconds.
            let _ = thread.join();
        }
    }
}

/// Tells that the thread has ended, also when it panicked.
struct End {
    end: watch::Sender<bool>,
    readers: Arc<Readers>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.readers.close();
        self.end.send_replace(true);
    }
}

fn serve(mut connection: Connection, jobs: &mpsc::Receiver<Box<dyn Job>>, mut grouping: Grouping) {
    let Ok(cutoff) = super::cutoff::Cutoff::install(&mut connection) else { return };
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        group.extend(jobs.try_iter().take(grouping.limit() - 1));
        grouping.commit(&connection, &cutoff, group);
    }
}
