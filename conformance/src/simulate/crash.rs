//! Crash points: every kind of write, stopped dead after each of its exchanges with the servers,
//! the last request sent or not; alone, and beside every other kind.
//!
//! What a client that is stopped leaves is taken up by two others at once. Whatever they are
//! answered must be what complete calls could have left: the call that was cut short took effect
//! once, or not at all (clauses DUR-2, ERR-2, LIN-1).

use std::sync::{Mutex, PoisonError};

use membership::{Error, JetStreamConfig, JetStreamStore, NewUser, Simulation, Store, Weather};

use super::world::{OP_TIMEOUT, alone};
use crate::history::{History, Recorder, check};
use crate::judge;
use crate::make::{admin, at, encrypted, endpoint, joins_at, plain, rekey, room, user, user_key};
use crate::model::{Model, Op};

/// What is stored before a write is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// A room at epoch 2 with three members and a former one, another room, a deleted one, two
    /// admins and a user.
    Full,
    /// No user.
    NoUsers,
}

/// A kind of write.
#[derive(Clone, Debug)]
pub struct Write {
    /// What it is, in words.
    pub name: &'static str,
    op: Op,
    start: Start,
}

/// Every kind of write there is.
#[must_use]
pub fn writes() -> Vec<Write> {
    let full = |name, op| Write { name, op, start: Start::Full };
    let bare = |name, op| Write { name, op, start: Start::NoUsers };
    let ops = || room("ops");
    vec![
        full("create", Op::CreateRoom(encrypted("new", "bob"))),
        full("create, unencrypted", Op::CreateRoom(plain("new", "ann"))),
        full("create again", Op::CreateRoom(encrypted("gone", "cat"))),
        full("delete", Op::DeleteRoom(ops())),
        full("add", Op::AddMember(ops(), joins_at("eve", 2))),
        full("come back", Op::AddMember(ops(), joins_at("dan", 2))),
        full("remove", Op::RemoveMember(ops(), endpoint("bob"))),
        full("rekey", Op::Rekey(ops(), rekey(2, [], ["ann", "bob", "cat"]))),
        full("rekey and remove", Op::Rekey(ops(), rekey(2, ["bob"], ["ann", "cat"]))),
        full("add a user", Op::AddUser(user(user_key(9)))),
        full("add an admin", Op::AddUser(admin(user_key(9)))),
        full("revoke a user", Op::RevokeUser(user_key(3), at(5))),
        full("revoke an admin", Op::RevokeUser(user_key(1), at(5))),
        full("revoke the other admin", Op::RevokeUser(user_key(2), at(5))),
        bare("bootstrap", Op::BootstrapAdmin(admin(user_key(1)))),
        bare(
            "bootstrap another",
            Op::BootstrapAdmin(NewUser { added_at: at(9), ..admin(user_key(2)) }),
        ),
        bare("add a first admin", Op::AddUser(admin(user_key(1)))),
    ]
}

fn setup(start: Start) -> Vec<Op> {
    let ops = || room("ops");
    let mut all = vec![
        Op::CreateRoom(encrypted("ops", "ann")),
        Op::AddMember(ops(), joins_at("bob", 1)),
        Op::AddMember(ops(), joins_at("cat", 1)),
        Op::AddMember(ops(), joins_at("dan", 1)),
        Op::Rekey(ops(), rekey(1, ["dan"], ["ann", "bob", "cat"])),
        Op::CreateRoom(plain("other", "bob")),
        Op::CreateRoom(encrypted("gone", "bob")),
        Op::DeleteRoom(room("gone")),
    ];
    if start == Start::Full {
        all.extend([
            Op::BootstrapAdmin(admin(user_key(1))),
            Op::AddUser(admin(user_key(2))),
            Op::AddUser(user(user_key(3))),
        ]);
    }
    all
}

/// Cuts `write` short everywhere, beside `rival` if there is one; returns in how many places.
///
/// # Errors
/// What is wrong, and where it was cut short.
pub fn cut_everywhere(write: &Write, rival: Option<&Write>, seed: u64) -> Result<u64, String> {
    let mut points = 0;
    for sends in [false, true] {
        for exchanges in 0.. {
            let cut = Cut { write, rival, exchanges, sends, seed };
            let stopped = cut.play().map_err(|problem| {
                let how = if sends { "the next sent, its answer lost" } else { "none sent after" };
                let beside = rival.map(|r| format!(" beside {:?}", r.name)).unwrap_or_default();
                let name = write.name;
                format!("{name:?}{beside}, stopped after {exchanges} exchanges, {how}: {problem}")
            })?;
            if !stopped {
                break;
            }
            points += 1;
        }
    }
    Ok(points)
}

/// Every pair of kinds that may meet.
#[must_use]
pub fn pairs() -> Vec<(Write, Write)> {
    let all = writes();
    let pairs = all.iter().flat_map(|one| all.iter().map(move |other| (one, other)));
    pairs
        .filter(|(one, other)| one.start == other.start)
        .map(|(a, b)| (a.clone(), b.clone()))
        .collect()
}

/// The same for many, on several threads.
///
/// # Errors
/// As [`cut_everywhere`]; of several the first that was met.
pub fn cut_all(all: Vec<(Write, Option<Write>)>, seed: u64, jobs: usize) -> Result<u64, String> {
    let (all, points) = (Mutex::new(all.into_iter()), Mutex::new(Ok(0)));
    std::thread::scope(|threads| {
        for _ in 0..jobs.max(1) {
            threads.spawn(|| {
                loop {
                    let next = all.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((write, rival)) = next else { break };
                    let cut = cut_everywhere(&write, rival.as_ref(), seed);
                    let mut points = points.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *points, cut) {
                        (Ok(sum), Ok(cut)) => *sum += cut,
                        (sum, Err(problem)) => {
                            *sum = Err(problem);
                            break;
                        }
                        (Err(_), Ok(_)) => break,
                    }
                }
            });
        }
    });
    points.into_inner().unwrap_or_else(PoisonError::into_inner)
}

struct Cut<'a> {
    write: &'a Write,
    rival: Option<&'a Write>,
    exchanges: u32,
    sends: bool,
    seed: u64,
}

impl Cut<'_> {
    /// Whether the client was stopped at all.
    fn play(&self) -> Result<bool, String> {
        let (stopped, history) = alone(async || self.run().await)?;
        check(&history).map_err(|violation| super::world::shown(&violation))?;
        Ok(stopped)
    }

    async fn run(&self) -> Result<(bool, History), String> {
        let simulation = Simulation::new(self.seed, 3, Weather::CALM);
        let first = open(&simulation, "first").await?;
        let mut start = Model::new();
        for op in setup(self.write.start) {
            let (expected, got) = (start.apply(&op), op.apply(&first).await);
            if got != expected {
                return Err(format!("{op:?} answers {got:?} before anything was cut short"));
            }
        }
        first.close().await.map_err(|error| error.to_string())?;

        let recorder = Recorder::new();
        let victim = open(&simulation, "victim").await?;
        let rival = open(&simulation, "rival").await?;
        let (fresh, second) =
            (open(&simulation, "fresh").await?, open(&simulation, "second").await?);
        victim.stop_after(self.exchanges, self.sends);
        let ((), ()) = tokio::join!(self.cut_short(&recorder, &victim), async {
            if let Some(write) = self.rival {
                recorder.call(2, &rival, write.op.clone()).await;
            }
        });
        // What it does after its answer counts, too.
        let _ = victim.close().await;
        let stopped = victim.is_stopped();
        drop(victim);

        let views = self.views();
        tokio::join!(look(&recorder, 3, &fresh, &views), async {
            recorder.call(4, &second, self.write.op.clone()).await;
            if let Some(write) = self.rival {
                recorder.call(4, &second, write.op.clone()).await;
            }
        });
        look(&recorder, 3, &fresh, &views).await;
        Ok((stopped, History { start, ..recorder.history() }))
    }

    async fn cut_short(&self, recorder: &Recorder, victim: &JetStreamStore) {
        let call = recorder.begin(1, self.write.op.clone());
        tokio::select! {
            biased;
            answer = self.write.op.apply(victim) => {
                if !victim.is_stopped() {
                    recorder.end(call, answer);
                }
            }
            () = victim.stopped() => {}
        }
    }

    fn views(&self) -> Vec<Op> {
        let rooms = ["ops", "new", "gone"].map(room);
        let endpoints = ["ann", "bob", "cat", "dan", "eve"].map(endpoint);
        let users = [1, 2, 3, 9].map(user_key);
        let mut views = judge::views(&rooms, &endpoints, &users, 3);
        if self.rival.is_some() {
            // What is asked of many pairs is asked of each once.
            views.retain(|view| !matches!(view, Op::Member(..) | Op::User(_) | Op::IsAdmin(_)));
        }
        views
    }
}

async fn look(recorder: &Recorder, client: usize, store: &dyn Store, views: &[Op]) {
    for view in views {
        recorder.call(client, store, view.clone()).await;
    }
}

async fn open(simulation: &Simulation, name: &str) -> Result<JetStreamStore, String> {
    let config = JetStreamConfig {
        replicas: 3,
        op_timeout: OP_TIMEOUT,
        ..JetStreamConfig::new(["nats://simulated"])
    };
    let opened: Result<_, Error> = simulation.open(name, 0, true, config).await;
    opened.map_err(|error| format!("{name} cannot open: {error}"))
}
