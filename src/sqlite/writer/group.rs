use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::super::cutoff::Cutoff;
use super::super::defect::{self, SqliteDefect};
use super::super::driver::Result;
use super::super::place::Place;
use super::job::Job;
use crate::Error;
use crate::trace::event;

/// The most writes in one transaction.
const LIMIT: usize = 256;
/// The wait between two tries for a lock that another connection holds.
const POLL: Duration = Duration::from_millis(1);
/// How long one client may write without a pause, and the length of the pause. The pause is longer
/// than [`POLL`], so that another client of the file, in this process or in another one, gets the
/// lock.
const TURN: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(3);

/// The connection, its deadline and the files of a transaction.
pub(super) struct Files<'a> {
    pub(super) db: &'a Connection,
    pub(super) cutoff: &'a Cutoff,
    pub(super) place: &'a Place,
}

impl Files<'_> {
    /// Fails if clients that open the store now would not see what is committed here.
    fn check(&self) -> Result<(), Error> {
        if defect::is(SqliteDefect::TrustsTheName) { Ok(()) } else { self.place.check() }
    }
}

/// Groups waiting writes into transactions, and pauses between them.
pub(super) struct Grouping {
    limit: usize,
    /// The end of the last pause.
    turn: Instant,
    last: Instant,
}

impl Grouping {
    pub(super) fn new(grouped: bool) -> Self {
        let now = Instant::now();
        Self { limit: if grouped { LIMIT } else { 1 }, turn: now, last: now }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Runs `jobs` as one transaction, and answers them after its commit. If the transaction fails,
    /// runs each of them alone, so that only the write that caused the failure fails.
    pub(super) fn commit(&mut self, files: &Files<'_>, jobs: Vec<Box<dyn Job>>) {
        self.let_others_in();
        for job in transact(files, jobs) {
            // A write that runs alone is never given back.
            transact(files, vec![job]);
        }
        self.last = Instant::now();
    }

    fn let_others_in(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.last) >= PAUSE {
            self.turn = now;
        } else if now.duration_since(self.turn) >= TURN {
            thread::sleep(PAUSE);
            self.turn = Instant::now();
        }
    }
}

/// Runs `jobs` in one transaction. If one of several jobs breaks the transaction, or the commit
/// fails, returns all of them, to be run one by one.
fn transact(files: &Files<'_>, mut jobs: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
    let Files { db, cutoff, .. } = *files;
    let done = files.check().and_then(|()| begin(db, &mut jobs)).and_then(|()| {
        jobs.iter_mut().try_for_each(|job| one(db, cutoff, &mut **job))?;
        if defect::is(SqliteDefect::AnswersBeforeCommit) {
            jobs.drain(..).for_each(Job::answer);
        }
        execute(db, "COMMIT")
    });
    event!(file: trace, "a transaction has ended", writes = jobs.len(), committed = done.is_ok());
    let Err(error) = done else {
        // The files may have been replaced before the commit. Then no other client will see the
        // writes, so they must not be acknowledged.
        match files.check() {
            Ok(()) => jobs.into_iter().for_each(Job::answer),
            Err(error) => jobs.into_iter().for_each(|job| job.refuse(error.clone())),
        }
        return Vec::new();
    };
    if !db.is_autocommit() {
        // If the rollback fails, the next BEGIN fails, too, and reports the error to its callers.
        let _ = execute(db, "ROLLBACK");
    }
    for job in &mut jobs {
        job.forget();
    }
    if jobs.len() > 1 {
        let writes = jobs.len();
        event!(file: debug, "a transaction failed: its writes run again alone", writes, error);
        return jobs;
    }
    for job in jobs {
        job.refuse(error.clone());
    }
    Vec::new()
}

/// Takes the write lock. Waits for it while the caller of any job still waits; refuses jobs whose
/// callers do not.
fn begin(db: &Connection, jobs: &mut Vec<Box<dyn Job>>) -> Result<(), Error> {
    loop {
        for job in jobs.extract_if(.., |job| !job.wanted()) {
            job.refuse(Error::Timeout);
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let begin = if defect::is(SqliteDefect::LocksLate) { "BEGIN" } else { "BEGIN IMMEDIATE" };
        match execute(db, begin) {
            Err(Error::Timeout) => thread::sleep(POLL),
            other => return other,
        }
    }
}

/// Runs one job inside the transaction. A job that fails is undone, and the transaction goes on. An
/// error means that the whole transaction has failed.
fn one(db: &Connection, cutoff: &Cutoff, job: &mut dyn Job) -> Result<(), Error> {
    if !job.wanted() {
        return Ok(());
    }
    execute(db, "SAVEPOINT job")?;
    cutoff.set(job.deadline());
    let result = job.run(db);
    cutoff.clear();
    match result {
        Ok(()) => execute(db, "RELEASE job"),
        // SQLite may end the whole transaction when it interrupts a write or the disk is full.
        Err(error) if matches!(error, Error::Unavailable(_)) || db.is_autocommit() => Err(error),
        Err(_) if defect::is(SqliteDefect::LosesNeighbours) => {
            execute(db, "ROLLBACK")?;
            execute(db, "BEGIN IMMEDIATE")
        }
        Err(_) => {
            execute(db, "ROLLBACK TO job")?;
            execute(db, "RELEASE job")
        }
    }
}

fn execute(db: &Connection, sql: &str) -> Result<(), Error> {
    let run = || -> Result<()> {
        db.prepare_cached(sql)?.execute([])?;
        Ok(())
    };
    Ok(run()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Semaphore, oneshot};

    use super::super::super::config::SqliteConfig;
    use super::super::super::open;
    use super::super::job::Write;
    use super::*;

    type Answer = oneshot::Receiver<Result<usize, Error>>;

    fn job(
        work: impl FnMut(&Connection) -> Result<usize> + Send + 'static,
    ) -> (Box<dyn Job>, Answer) {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (job, answer) = Write::new(work, Instant::now() + Duration::from_secs(5), place);
        (Box::new(job), answer)
    }

    #[test]
    fn what_was_undone_with_its_group_has_no_result() {
        let dir = tempfile::tempdir().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let path = dir.path().join("members.db");
        let (place, mut db) = open::writer(&SqliteConfig::new(&path), deadline).unwrap();
        let cutoff = Cutoff::install(&mut db).unwrap();
        let files = Files { db: &db, cutoff: &cutoff, place: &place };
        let (done, mut undone) =
            job(|db| Ok(db.execute("UPDATE bootstrap SET sum = sum + 1", [])?));
        let (breaks, _answer) = job(|_| Err(Error::unavailable("broken").into()));

        let mut again = transact(&files, vec![done, breaks]);
        assert_eq!(again.len(), 2);
        // The write's time is up before it can be tried again.
        again.swap_remove(0).answer();
        assert_eq!(undone.try_recv(), Ok(Err(Error::Timeout)));
    }

    #[test]
    fn who_has_written_for_a_turn_without_a_pause_pauses() {
        let turn = Instant::now();
        thread::sleep(TURN);
        let begun = Instant::now();
        // The last commit lies in the future, so that however slow the machine is, no pause is
        // seen.
        let last = begun + Duration::from_mins(1);
        let mut grouping = Grouping { limit: 1, turn, last };
        grouping.let_others_in();
        assert!(begun.elapsed() >= PAUSE);
        assert!(grouping.turn > begun);
    }
}
