//! Decisions of concurrent callers, answered together from one read transaction.
//!
//! Most of a point read's time is its transaction: SQLite takes and releases a lock in the write-ahead log's index,
//! under a mutex of the whole process. So readers on several threads block one another, and many are slower than one. A
//! group shares the transaction. Nothing is kept from one group to the next, so each answer is as fresh as a read of
//! its own (clause AUTH-3).

use std::collections::VecDeque;
use std::mem;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Instant;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::timeout_at;

use super::driver::Result;
use super::readers::{Readers, one_state};
use super::users;
use crate::decision::Standing;
use crate::{Error, UserKey};

/// The most decisions in one transaction: enough to share its cost well, and few enough that a second thread finds
/// work.
const TOGETHER: usize = 32;

/// A user's standing; `None` without a record.
type Answer = Result<Option<Standing>, Error>;

/// The waiting decisions.
#[derive(Default)]
pub(super) struct Decisions {
    /// A std lock, never held across an await or a read.
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// How many threads read now.
    reading: usize,
    waiting: VecDeque<Question>,
}

struct Question {
    key: UserKey,
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Decisions {
    /// Returns the user's standing at a moment after this call began. A single caller reads at once. If callers are
    /// concurrent, one of them lets the others join and then reads for all of them.
    pub(super) async fn ask(&self, readers: &Readers, key: &UserKey, deadline: Instant) -> Answer {
        let Some(mut answer) = self.join(key, deadline) else {
            let _reading = Reading(self);
            return readers.run(deadline, |db| users::standing(db, key));
        };
        others_first().await;
        loop {
            match answer.try_recv() {
                Err(TryRecvError::Empty) if self.read_some(readers) => {}
                Err(TryRecvError::Empty) => break,
                Ok(found) => return found,
                Err(TryRecvError::Closed) => return Err(panicked()),
            }
        }
        match timeout_at(deadline.into(), answer).await {
            Ok(found) => found.unwrap_or_else(|_| Err(panicked())),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Joins the waiting decisions. `None` if no thread reads: then the caller must read, and counts as reading.
    fn join(&self, key: &UserKey, deadline: Instant) -> Option<oneshot::Receiver<Answer>> {
        let mut queue = self.lock();
        if queue.reading == 0 && queue.waiting.is_empty() {
            queue.reading += 1;
            return None;
        }
        let (answer, answered) = oneshot::channel();
        queue.waiting.push_back(Question { key: *key, deadline, answer });
        Some(answered)
    }

    /// Answers the decisions that have waited longest, from one state of the database. The read begins after their
    /// calls began. Returns whether any decision was waiting.
    fn read_some(&self, readers: &Readers) -> bool {
        let questions: Vec<_> = {
            let mut queue = self.lock();
            let first = queue.waiting.len().min(TOGETHER);
            let questions: Vec<_> = queue.waiting.drain(..first).collect();
            queue.reading += usize::from(!questions.is_empty());
            questions
        };
        let Some(deadline) = questions.iter().map(|question| question.deadline).min() else {
            return false;
        };
        let _reading = Reading(self);
        let read = readers.run_some(
            deadline,
            |db| {
                one_state(db, |db| {
                    let answer =
                        |one: &Question| users::standing(db, &one.key).map_err(Error::from);
                    Ok(questions.iter().map(answer).collect::<Vec<Answer>>())
                })
                .map_err(Error::from)
            },
            |read| match read {
                // An error in one answer may come from the connection, which is then dropped.
                Ok(answers) => answers.iter().find_map(|answer| answer.as_ref().err()),
                Err(error) => Some(error),
            },
        );
        match read.and_then(|read| read) {
            Ok(answers) => {
                for (question, answer) in questions.into_iter().zip(answers) {
                    // The caller of this decision may be gone: then the answer is dropped.
                    let _ = question.answer.send(answer);
                }
            }
            Err(error) => {
                for question in questions {
                    let _ = question.answer.send(Err(error.clone()));
                }
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Each change of the queue is one step, so a panic leaves the queue valid.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reading thread did not finish, so the decision denies.
fn panicked() -> Error {
    Error::unavailable("the read panicked")
}

/// Counts a thread as reading until dropped, also by a panic.
struct Reading<'decisions>(&'decisions Decisions);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.lock().reading -= 1;
    }
}

/// Lets the runtime's other tasks run once. Tokio's `yield_now` would also poll for I/O, which costs more than a
/// decision.
async fn others_first() {
    let mut yielded = false;
    let once = std::future::poll_fn(move |context| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    pin!(once).await;
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use futures_util::{FutureExt, poll};

    use super::*;
    use crate::mutation::Mutation;
    use crate::{Label, NewUser, SqliteConfig, SqliteStore, Store, Timestamp};

    const SECOND: Duration = Duration::from_secs(1);

    fn key(number: u8) -> UserKey {
        UserKey::from_bytes([number; 32])
    }

    /// A file with users 0 to 9.
    async fn ten_users(path: &Path) -> SqliteStore {
        let store = SqliteStore::open(SqliteConfig::new(path)).await.unwrap();
        for number in 0..10 {
            let (key, label) = (key(number), Label::new("").unwrap());
            let added_at = Timestamp::from_millis(0);
            store.add_user(NewUser { key, label, admin: false, added_at }).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn those_who_ask_at_once_are_answered_from_one_later_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members.db");
        let store = ten_users(&path).await;
        let (readers, decisions) = (&store.readers, Decisions::default());
        let deadline = Instant::now() + SECOND;

        // One thread counts as reading, so all callers join the waiting decisions.
        decisions.lock().reading += 1;
        let all = TOGETHER + 4;
        let keys: Vec<_> = (0..).take(all).map(key).collect();
        let mut asked: Vec<_> =
            keys.iter().map(|key| decisions.ask(readers, key, deadline).boxed()).collect();
        for asked in &mut asked {
            assert!(poll!(asked).is_pending());
        }
        drop(asked.pop());
        store.revoke_user(&key(3), Timestamp::from_millis(1)).await.unwrap();

        for (number, asked) in asked.iter_mut().enumerate() {
            let Poll::Ready(Ok(found)) = poll!(asked) else { panic!("{number}") };
            let expected = (number < 10).then_some(number == 3);
            assert_eq!(found.map(|found| found.revoked), expected, "{number}");
            let left = if number < TOGETHER { all - TOGETHER } else { 0 };
            assert_eq!(decisions.lock().waiting.len(), left, "{number}");
        }
        assert_eq!(decisions.lock().reading, 1);
    }

    #[tokio::test]
    async fn no_answer_is_no_standing() {
        let readers = Readers::new(Mutation::NONE);
        let decisions = Decisions::default();
        let deadline = Instant::now() + Duration::from_millis(50);
        decisions.lock().reading += 1;

        // In the first round the thread that reads for the caller never answers. In the second round it panics.
        for (panics, expected) in [(false, Error::Timeout), (true, panicked())] {
            let key = key(1);
            let mut asked = decisions.ask(&readers, &key, deadline).boxed();
            assert!(poll!(&mut asked).is_pending());
            let taken = decisions.lock().waiting.pop_front();
            assert!(taken.is_some());
            let taken = taken.filter(|_| !panics);
            assert_eq!(asked.await.unwrap_err().to_string(), expected.to_string());
            drop(taken);
        }
    }
}
