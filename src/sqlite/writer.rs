//! The writing thread of a client: it owns the connection, and runs waiting writes as one
//! transaction.

mod group;
mod job;

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout_at;

use super::config::SqliteConfig;
use super::defect::{self, SqliteDefect};
use super::driver::Result;
use super::open;
use super::place::Place;
use super::readers::Readers;
use crate::Error;
use crate::mutation::Mutation;
use group::{Files, Grouping};
use job::{Job, Write};

/// The most writes that may wait. A further write waits for a free place, until its deadline.
const QUEUE: usize = 4096;

/// The handle of the writing thread. The thread ends when the handle is dropped or closed; before
/// that it runs or refuses all waiting writes.
pub(super) struct Writer {
    /// `None` once the handle is closed.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    places: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: watch::Receiver<bool>,
    mutation: Mutation<SqliteDefect>,
}

impl Writer {
    /// Starts the thread, which opens the file, and makes or migrates it if needed. Returns when
    /// the file is open, or at `deadline`.
    pub(super) async fn start(
        readers: Arc<Readers>,
        config: SqliteConfig,
        mutation: Mutation<SqliteDefect>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let (queue, jobs) = mpsc::channel();
        let (end, ended) = watch::channel(false);
        let (opened, outcome) = oneshot::channel();
        let grouping = Grouping::new(config.group_commit);
        let thread = thread::Builder::new()
            .name("membership-sqlite".to_owned())
            .spawn(move || {
                defect::work_for(mutation);
                let end = End { end, readers };
                let (connection, result) = match open::writer(&config, deadline) {
                    Ok((place, connection)) => {
                        end.readers.settle(place);
                        (Some(connection), Ok(()))
                    }
                    Err(error) => (None, Err(error)),
                };
                // If the caller of `start` has gone, the queue is gone, too, and `serve` ends at
                // once.
                drop(opened.send(result));
                if let (Some(connection), Ok(place)) = (connection, end.readers.place()) {
                    serve(connection, &jobs, grouping, &end.readers, place);
                }
                drop(end);
            })
            .map_err(Error::unavailable)?;
        let writer = Self {
            queue: Mutex::new(Some(queue)),
            places: Arc::new(Semaphore::new(QUEUE)),
            thread: Mutex::new(Some(thread)),
            ended,
            mutation,
        };
        match timeout_at(deadline.into(), outcome).await {
            Ok(Ok(result)) => result.map(|()| writer),
            Ok(Err(_)) => Err(Error::unavailable("the writer's thread panicked while opening")),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Runs `work` inside a transaction, and answers after the commit. At the deadline it fails
    /// with `Timeout`, and `work` takes effect later or never.
    ///
    /// `work` may run more than once. A run that did not commit is rolled back before the next one.
    pub(super) async fn write<T, F>(&self, budget: Duration, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T> + Send + 'static,
    {
        let budget =
            if self.mutation.is(SqliteDefect::WaitsForEver) { budget * 1000 } else { budget };
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

    /// Accepts no more writes. Returns when all waiting writes are answered, the connection is
    /// closed and the thread has ended.
    pub(super) async fn close(&self) {
        self.places.close();
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        // An error means that the thread ended without a notification. The error is ignored, since
        // the thread has ended all the same.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread has nothing left to do, so `join` waits for microseconds only.
            let _ = thread.join();
        }
    }
}

/// Notifies the handle that the thread has ended, also if the thread panicked.
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

fn serve(
    mut connection: Connection,
    jobs: &mpsc::Receiver<Box<dyn Job>>,
    mut grouping: Grouping,
    readers: &Readers,
    place: &Place,
) {
    let Ok(cutoff) = super::cutoff::Cutoff::install(&mut connection) else { return };
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        group.extend(jobs.try_iter().take(grouping.limit() - 1));
        grouping.commit(&Files { db: &connection, cutoff: &cutoff, place }, group);
    }
    // The readers close first, so that this connection is the last one: it copies the log into the
    // file and removes the log. If another file has the log's name by now, that file must not be
    // touched.
    readers.close();
    if place.check().is_err() {
        // An error is ignored: nothing else could keep SQLite from copying the log.
        let _ = open::leave_the_log(&connection, true);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn start(dir: &tempfile::TempDir) -> Writer {
        let config = SqliteConfig::new(dir.path().join("members.db"));
        let readers = Arc::new(Readers::new(Mutation::NONE));
        let deadline = Instant::now() + 10 * SECOND;
        Writer::start(readers, config, Mutation::NONE, deadline).await.unwrap()
    }

    fn count(db: &Connection) -> Result<i64> {
        Ok(db.query_row("SELECT count(*) FROM revocations", [], |row| row.get(0))?)
    }

    /// Blocks the writer until `queued` further writes wait, so that they share a transaction.
    async fn together<T>(writer: &Writer, queued: usize, rest: impl Future<Output = T>) -> T {
        let (go, wait) = mpsc::channel();
        // This write may run twice. The second time the sender is gone, and `recv` fails at once.
        let first = writer.write(10 * SECOND, move |_| {
            let _ = wait.recv();
            Ok(())
        });
        let release = async move {
            while QUEUE - writer.places.available_permits() < queued + 1 {
                tokio::task::yield_now().await;
            }
            go.send(()).unwrap();
        };
        let (done, (), answers) = tokio::join!(first, release, rest);
        done.unwrap();
        answers
    }

    #[tokio::test]
    async fn a_panic_is_the_callers_own_and_the_thread_lives_on() {
        let dir = tempfile::tempdir().unwrap();
        let writer = start(&dir).await;
        let panics = writer.write(SECOND, |db| -> Result<()> {
            db.execute("UPDATE bootstrap SET sum = sum + 1", [])?;
            panic!("on purpose")
        });
        let before = writer.write(SECOND, sum).await.unwrap();
        let (panicked, neighbour) =
            together(&writer, 2, async { tokio::join!(panics, writer.write(SECOND, sum)) }).await;
        assert_eq!(panicked, Err(Error::unavailable("a write panicked")));
        assert_eq!(neighbour, Ok(before));
        assert_eq!(writer.write(SECOND, sum).await, Ok(before));
        writer.close().await;
    }

    #[tokio::test]
    async fn what_a_job_that_fails_has_done_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let writer = start(&dir).await;
        let before = writer.write(SECOND, sum).await.unwrap();
        let fails = writer.write(SECOND, |db| -> Result<()> {
            db.execute("UPDATE bootstrap SET sum = sum + 1", [])?;
            Err(crate::Conflict::LastAdmin.into())
        });
        let (failed, neighbour) =
            together(&writer, 2, async { tokio::join!(fails, writer.write(SECOND, sum)) }).await;
        assert_eq!(failed, Err(crate::Conflict::LastAdmin.into()));
        assert_eq!(neighbour, Ok(before));
        assert_eq!(writer.write(SECOND, sum).await, Ok(before));
        writer.close().await;
    }

    /// One write ends the transaction of its group. The other writes run again, once each.
    #[tokio::test]
    async fn a_job_that_breaks_the_transaction_breaks_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let writer = start(&dir).await;
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let good = writer.write(SECOND, move |db| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(db.execute("UPDATE bootstrap SET sum = sum + 1", []).map(drop)?)
        });
        let breaks = writer.write(SECOND, |db| -> Result<()> {
            db.execute_batch("ROLLBACK")?;
            Err(Error::Timeout.into())
        });
        let before = writer.write(SECOND, sum).await.unwrap();
        let (good, broken) = together(&writer, 2, async { tokio::join!(good, breaks) }).await;
        assert_eq!((good, broken), (Ok(()), Err(Error::Timeout)));
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        assert_eq!(writer.write(SECOND, sum).await, Ok(before + 1));
        writer.close().await;
    }

    fn sum(db: &Connection) -> Result<i64> {
        Ok(db.query_row("SELECT sum FROM bootstrap", [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn a_slow_write_is_cut_off_and_its_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let writer = start(&dir).await;
        let slow = writer.write(SECOND / 5, |db| {
            let sql = "INSERT INTO revocations (key)
                       WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n
                                         LIMIT 30000000)
                       SELECT CAST(x AS BLOB) FROM n WHERE x < 0";
            Ok(db.execute(sql, []).map(drop)?)
        });
        let started = Instant::now();
        let (slow, fast) =
            together(&writer, 2, async { tokio::join!(slow, writer.write(SECOND, count)) }).await;
        assert_eq!((slow, fast), (Err(Error::Timeout), Ok(0)));
        assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
        writer.close().await;
    }
}
