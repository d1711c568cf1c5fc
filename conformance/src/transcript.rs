//! Every call a case makes, with its result, in the order the calls began.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use membership::{
    Decision, EndpointId, Epoch, Error, Member, NewMember, NewRoom, NewUser, Page, Rekey, Room,
    RoomId, SealedKey, Store, Timestamp, User, UserKey,
};

use crate::clock::Stopwatch;
use crate::context::{GRACE, past};
use crate::load;
use crate::model::Op;
use crate::show::Show;
use crate::verdict::Failure;

/// How many of a case's first calls are kept.
const FIRST: usize = 40;
/// How many of a case's last calls are kept.
const LAST: usize = 60;

/// The calls of one case, by all its clients.
#[derive(Debug)]
pub struct Transcript {
    began: Instant,
    /// Whether every call is kept, however many there are.
    whole: bool,
    /// The longest time of an ordinary call and of a slow one (clause TIME-1).
    bounds: OnceLock<(Duration, Duration)>,
    /// A std lock: held for one push or one assignment, never across an await.
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    first: Vec<Entry>,
    last: VecDeque<Entry>,
    calls: usize,
    /// The calls in flight, by number.
    running: BTreeMap<usize, Running>,
    /// The first call that ended past its bound.
    overdue: Option<Overdue>,
}

#[derive(Debug)]
struct Running {
    call: String,
    bound: Duration,
    stopwatch: Arc<Stopwatch>,
}

/// A call that is past its bound.
#[derive(Clone, Debug)]
struct Overdue {
    expected: String,
    got: String,
}

impl Running {
    fn overdue(&self, bound: Duration, answer: &str) -> Option<Overdue> {
        let when = past(bound, &self.stopwatch)?;
        let expected = format!("an answer to {} within {:?}", self.call, self.bound);
        Some(Overdue { expected, got: format!("{answer} {when}") })
    }
}

#[derive(Debug)]
struct Entry {
    number: usize,
    client: usize,
    call: String,
    began: Duration,
    took: Duration,
    result: Option<String>,
}

impl Transcript {
    /// An empty transcript, whose clock starts now.
    #[must_use]
    pub fn new() -> Self {
        let (bounds, log) = (OnceLock::new(), Mutex::default());
        Self { began: Instant::now(), whole: false, bounds, log }
    }

    /// An empty transcript that keeps every call, for [`golden`](Self::golden).
    #[must_use]
    pub fn whole() -> Self {
        Self { whole: true, ..Self::new() }
    }

    /// Wraps a store, so that the transcript records its calls as those of `client`.
    pub fn record(self: &Arc<Self>, client: usize, store: Arc<dyn Store>) -> Client {
        Client { store, number: client, transcript: Arc::clone(self) }
    }

    /// The calls, one on each line, aligned.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let log = self.lock();
        let entries = log.first.iter().chain(&log.last);
        let width = entries.clone().map(|e| e.call.chars().count()).max().unwrap_or(0).min(72);
        let several = entries.clone().any(|entry| entry.client > 1);
        let mut lines = Vec::new();
        let mut next = 1;
        for entry in entries {
            if entry.number > next {
                lines.push(format!("… {} calls left out …", entry.number - next));
            }
            next = entry.number + 1;
            let mut line = format!("#{:<4} ", entry.number);
            if several {
                let _ = write!(line, "client {:<2} ", entry.client);
            }
            let _ = write!(line, "{:<width$} -> ", entry.call);
            match &entry.result {
                Some(result) => {
                    let took = entry.took.as_secs_f64() * 1e3;
                    let at = entry.began.as_secs_f64() * 1e3;
                    let _ = write!(line, "{result}   ({at:.1} ms + {took:.1} ms)");
                }
                None => line.push_str("no answer"),
            }
            lines.push(line);
        }
        lines
    }

    /// The calls and results alone, without numbers and times: what a golden transcript holds.
    ///
    /// Only a transcript that was made by [`whole`](Self::whole) has every call.
    #[must_use]
    pub fn golden(&self) -> String {
        let log = self.lock();
        let entries = log.first.iter().chain(&log.last);
        let several = entries.clone().any(|entry| entry.client > 1);
        let mut text = String::new();
        for entry in entries {
            let result = entry.result.as_deref().unwrap_or("no answer");
            if several {
                let _ = write!(text, "client {}: ", entry.client);
            }
            let _ = writeln!(text, "{}\n    -> {result}", entry.call);
        }
        text
    }

    /// The number of calls.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// Measures every call from now on (clause TIME-1).
    pub(crate) fn bounds(&self, ordinary: Duration, slow: Duration) {
        // A second store of the same case has the same bounds.
        let _ = self.bounds.set((ordinary, slow));
    }

    /// A call that took too long, or that still has no answer after too long (clause TIME-1).
    pub(crate) fn overdue(&self) -> Option<Failure> {
        let log = self.lock();
        // A case that measures its calls itself reports them better, and gets some extra time for
        // that.
        let hangs =
            || log.running.values().find_map(|call| call.overdue(call.bound + GRACE, "none"));
        let Overdue { expected, got } = log.overdue.clone().or_else(hangs)?;
        Some(Failure::new(expected, got).of_time())
    }

    /// Whether some call has no answer yet, long after its bound.
    pub(crate) fn hangs(&self) -> bool {
        let log = self.lock();
        let hangs = |call: &Running| {
            let patience = load::patience(call.bound + GRACE, call.stopwatch.began());
            call.overdue(patience, "none").is_some()
        };
        log.running.values().any(hangs)
    }

    fn begin(self: &Arc<Self>, client: usize, op: &Op) -> Call {
        let (call, stopwatch) = (op.show(), Arc::new(Stopwatch::start()));
        let mut log = self.lock();
        log.calls += 1;
        let number = log.calls;
        if let Some((ordinary, slow)) = self.bounds.get() {
            // A client that closes waits for its slow calls, too.
            let slowly = matches!(op, Op::Rekey(..) | Op::DeleteRoom(_) | Op::Close);
            let bound = *if slowly { slow } else { ordinary };
            let stopwatch = Arc::clone(&stopwatch);
            log.running.insert(number, Running { call: call.clone(), bound, stopwatch });
        }
        let began = stopwatch.began().duration_since(self.began);
        let entry = Entry { number, client, call, began, took: Duration::ZERO, result: None };
        if self.whole || log.first.len() < FIRST {
            log.first.push(entry);
        } else {
            if log.last.len() == LAST {
                log.last.pop_front();
            }
            log.last.push_back(entry);
        }
        Call { number, stopwatch, transcript: Arc::clone(self), result: None }
    }

    fn end(&self, call: &mut Call) {
        let took = call.stopwatch.began().elapsed();
        let mut log = self.lock();
        let Log { first, last, running, overdue, .. } = &mut *log;
        if let Some(running) = running.remove(&call.number) {
            let answer = if call.result.is_some() { "one" } else { "none" };
            *overdue = overdue.take().or_else(|| running.overdue(running.bound, answer));
        }
        let entry = first.iter_mut().chain(last).find(|entry| entry.number == call.number);
        if let (Some(entry), Some(result)) = (entry, call.result.take()) {
            entry.took = took;
            entry.result = Some(result);
        }
    }

    /// A panic in a case must not hide the calls before it.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Transcript {
    fn default() -> Self {
        Self::new()
    }
}

/// A call in flight. Dropping it ends the call, answered or not.
struct Call {
    number: usize,
    stopwatch: Arc<Stopwatch>,
    transcript: Arc<Transcript>,
    result: Option<String>,
}

impl Drop for Call {
    fn drop(&mut self) {
        Arc::clone(&self.transcript).end(self);
    }
}

/// A client of the store under test, whose calls are recorded.
#[derive(Clone)]
pub struct Client {
    store: Arc<dyn Store>,
    number: usize,
    transcript: Arc<Transcript>,
}

impl Client {
    /// The store itself, for calls that are too many to be recorded.
    #[must_use]
    pub fn unrecorded(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn call<T: Show>(&self, op: Op, result: impl Future<Output = T>) -> T {
        let mut call = self.transcript.begin(self.number, &op);
        let result = call.stopwatch.time(result).await;
        call.result = Some(result.show());
        result
    }
}

#[async_trait]
impl Store for Client {
    async fn create_room(&self, new: NewRoom) -> Result<Room, Error> {
        self.call(Op::CreateRoom(new.clone()), self.store.create_room(new)).await
    }

    async fn room(&self, room: &RoomId) -> Result<Room, Error> {
        self.call(Op::Room(room.clone()), self.store.room(room)).await
    }

    async fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        let op = Op::RoomsOf(endpoint.clone(), page.clone());
        self.call(op, self.store.rooms_of(endpoint, page)).await
    }

    async fn delete_room(&self, room: &RoomId) -> Result<(), Error> {
        self.call(Op::DeleteRoom(room.clone()), self.store.delete_room(room)).await
    }

    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error> {
        let op = Op::AddMember(room.clone(), new.clone());
        self.call(op, self.store.add_member(room, new)).await
    }

    async fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        let op = Op::Member(room.clone(), endpoint.clone());
        self.call(op, self.store.member(room, endpoint)).await
    }

    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error> {
        let op = Op::Members(room.clone(), page.clone());
        self.call(op, self.store.members(room, page)).await
    }

    async fn remove_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error> {
        let op = Op::RemoveMember(room.clone(), endpoint.clone());
        self.call(op, self.store.remove_member(room, endpoint)).await
    }

    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let op = Op::Rekey(room.clone(), rekey.clone());
        self.call(op, self.store.rekey(room, rekey)).await
    }

    async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        let op = Op::Key(room.clone(), endpoint.clone(), epoch);
        self.call(op, self.store.key(room, endpoint, epoch)).await
    }

    async fn latest_key(&self, room: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error> {
        let op = Op::LatestKey(room.clone(), endpoint.clone());
        self.call(op, self.store.latest_key(room, endpoint)).await
    }

    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error> {
        self.call(Op::BootstrapAdmin(new.clone()), self.store.bootstrap_admin(new)).await
    }

    async fn add_user(&self, new: NewUser) -> Result<User, Error> {
        self.call(Op::AddUser(new.clone()), self.store.add_user(new)).await
    }

    async fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.call(Op::User(*key), self.store.user(key)).await
    }

    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        self.call(Op::Users(page.clone()), self.store.users(page)).await
    }

    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        self.call(Op::RevokeUser(*key, at), self.store.revoke_user(key, at)).await
    }

    async fn is_authorized(&self, key: &UserKey) -> Decision {
        self.call(Op::IsAuthorized(*key), self.store.is_authorized(key)).await
    }

    async fn is_admin(&self, key: &UserKey) -> Decision {
        self.call(Op::IsAdmin(*key), self.store.is_admin(key)).await
    }

    async fn has_admin(&self) -> Result<bool, Error> {
        self.call(Op::HasAdmin, self.store.has_admin()).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.call(Op::Close, self.store.close()).await
    }
}
