//! One simulated history: clients, calls, and what happens to the servers meanwhile.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use membership::{
    EndpointId, Epoch, Error, JetStreamConfig, JetStreamStore, Page, RoomId, Simulation, Store,
    UserKey,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::plan::Plan;
use super::tally::Tally;
use crate::history::{Caller, History, Recorder, Scene, Violation, check};
use crate::model::{Answer, Op};
use crate::show::Show;

/// How long a call may take on simulated servers (clause TIME-1).
pub(super) const OP_TIMEOUT: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_millis(250);
/// How long everything may take to work again once everything is healed.
const HEALING: Duration = Duration::from_secs(30);

/// How long it may take, whatever happens, until a client opens.
const OPENING: Duration = Duration::from_mins(2);

/// A simulated history, and what is to be said of it.
#[derive(Debug)]
pub struct Played {
    /// What was asked and answered.
    pub history: History,
    /// What was reached.
    pub tally: Tally,
    /// What happened between clients and servers, where that was asked for.
    pub trace: String,
    /// What is wrong with it, if something is.
    pub problem: Option<String>,
}

/// Plays the history of a seed, and judges it. With `traced`, everything that happened between
/// clients and servers is written down.
#[must_use]
pub fn play(seed: u64, traced: bool) -> Played {
    play_plan(&Plan::draw(seed), seed, traced)
}

/// The same, of another plan than the seed's own.
#[must_use]
pub fn play_plan(plan: &Plan, seed: u64, traced: bool) -> Played {
    let world = alone(async || {
        let mut simulation = Simulation::new(seed, plan.servers, plan.weather);
        if let Some(defect) = plan.defect {
            simulation = simulation.with_defect(defect);
        }
        if traced {
            simulation.keep_trace();
        }
        let world = Arc::new(World::new(plan.clone(), seed, simulation));
        World::run(&world).await;
        world
    });
    let history = world.recorder.history();
    let mut said = world.said();
    let problem =
        said.problem.take().or_else(|| check(&history).err().map(|violation| shown(&violation)));
    let mut tally = said.tally;
    tally.histories = 1;
    tally.calls = u64::try_from(history.calls.len()).unwrap_or(u64::MAX);
    tally.reached = world.simulation.reached();
    Played { history, tally, trace: world.simulation.trace(), problem }
}

/// A violation, with the calls that show it.
pub(super) fn shown(violation: &Violation) -> String {
    let calls = violation.witness.calls.iter().map(|call| {
        let ended = match &call.ended {
            Some((at, answer)) => format!("{at}: {}", answer.show()),
            None => "never".to_owned(),
        };
        format!("\n  client {} {}..{ended}  {:?}", call.client, call.began, call.op)
    });
    format!("{violation}:{}", calls.collect::<String>())
}

/// Runs a future on a runtime of its own, whose time goes by when there is nothing else to do.
pub(super) fn alone<T>(run: impl AsyncFnOnce() -> T) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    #[expect(clippy::expect_used, reason = "it needs nothing from the system")]
    runtime.expect("a runtime without I/O").block_on(run())
}

struct World {
    plan: Plan,
    seed: u64,
    simulation: Simulation,
    scene: Arc<Scene>,
    recorder: Recorder,
    /// A std lock: held for a moment, never across an await.
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    tally: Tally,
    problem: Option<String>,
}

impl World {
    fn new(plan: Plan, seed: u64, simulation: Simulation) -> Self {
        let (scene, recorder) = (Arc::new(Scene::new(u64::MAX)), Recorder::new());
        Self { plan, seed, simulation, scene, recorder, said: Mutex::default() }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, problem: String) {
        self.said().problem.get_or_insert(problem);
    }

    async fn run(world: &Arc<Self>) {
        // Whoever comes first makes the buckets, and that takes its time in no weather.
        let mut clients = JoinSet::new();
        for number in 0..world.plan.clients {
            let world = Arc::clone(world);
            clients.spawn(async move { Client::new(&world, number).run().await });
        }
        let began = Instant::now();
        let blows = async {
            for (at, blow) in &world.plan.blows {
                sleep_until(began + *at).await;
                world.simulation.strike(*blow);
            }
            std::future::pending::<()>().await;
        };
        let all = async {
            while let Some(ended) = clients.join_next().await {
                if let Err(error) = ended {
                    world.complain(format!("a client panicked: {error}"));
                }
            }
        };
        tokio::select! {
            biased;
            () = all => {}
            () = blows => {}
        }
        world.simulation.heal();
        world.look().await;
    }

    /// Everything that can be seen when all is healed, as the last calls of the history.
    async fn look(&self) {
        let healed = Instant::now();
        let store = loop {
            match self.open("last", 0).await {
                Ok(store) => break store,
                Err(error) if healed.elapsed() > HEALING => {
                    return self.complain(format!("no client opens after healing: {error}"));
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        };
        for view in views(&self.recorder.history()) {
            let call = self.recorder.begin(0, view.clone());
            let answer = loop {
                let answer = view.apply(&store).await;
                match answer.error() {
                    Some(error) if error.outcome_unknown() => {
                        if healed.elapsed() > HEALING {
                            return self.complain(format!("{view:?} fails after healing: {error}"));
                        }
                    }
                    _ => break answer,
                }
            };
            self.recorder.end(call, answer);
        }
        let _ = store.close().await;
    }

    async fn open(&self, name: &str, server: usize) -> Result<JetStreamStore, Error> {
        let config = JetStreamConfig {
            replicas: u8::try_from(self.plan.servers).unwrap_or(u8::MAX),
            op_timeout: OP_TIMEOUT,
            ..JetStreamConfig::new(["nats://simulated"])
        };
        self.simulation.open(name, server, true, config).await
    }
}

/// Reads of everything that a history is about.
fn views(history: &History) -> Vec<Op> {
    let (mut rooms, mut endpoints, mut users) =
        <(BTreeSet<RoomId>, BTreeSet<EndpointId>, BTreeSet<UserKey>)>::default();
    let mut epochs = BTreeSet::from([Epoch::FIRST]);
    for call in &history.calls {
        match &call.op {
            Op::CreateRoom(new) => {
                rooms.insert(new.id.clone());
                endpoints.insert(new.owner.clone());
            }
            Op::AddMember(_, new) => {
                endpoints.insert(new.endpoint.clone());
            }
            Op::Rekey(_, rekey) => epochs.extend(rekey.from().next()),
            Op::BootstrapAdmin(new) | Op::AddUser(new) => {
                users.insert(new.key);
            }
            _ => {}
        }
    }
    let mut views = Vec::new();
    for room in &rooms {
        views.extend([Op::Room(room.clone()), Op::Members(room.clone(), Page::first())]);
        for who in &endpoints {
            views.push(Op::LatestKey(room.clone(), who.clone()));
            let recent = epochs.iter().rev().take(3);
            views.extend(recent.map(|epoch| Op::Key(room.clone(), who.clone(), *epoch)));
        }
    }
    views.extend(endpoints.into_iter().map(|who| Op::RoomsOf(who, Page::first())));
    if !users.is_empty() {
        views.extend([Op::HasAdmin, Op::Users(Page::first())]);
        views.extend(users.into_iter().map(Op::IsAuthorized));
    }
    views
}

struct Client<'a> {
    world: &'a World,
    caller: Caller,
    number: usize,
    /// How often it was stopped dead.
    lives: usize,
}

impl<'a> Client<'a> {
    fn new(world: &'a World, number: usize) -> Self {
        let stream = u64::try_from(number).unwrap_or(u64::MAX);
        let caller = Caller::new(world.seed, stream, world.plan.mix, &world.scene);
        Self { world, caller, number, lives: 0 }
    }

    fn name(&self) -> String {
        format!("client {}.{}", self.number + 1, self.lives)
    }

    fn millis(&mut self, below: u32) -> Duration {
        Duration::from_millis(u64::from(self.caller.number(below)))
    }

    async fn run(mut self) {
        let Some(mut store) = self.open().await else { return };
        for _ in 0..self.world.plan.calls {
            let pause = self.millis(self.world.plan.pace + 1);
            sleep(pause).await;
            if self.caller.number(1000) < self.world.plan.crashes {
                store.stop_after(self.caller.number(24), self.caller.number(2) == 1);
            }
            self.call(&store).await;
            if store.is_stopped() {
                drop(store);
                self.world.said().tally.crashes += 1;
                self.lives += 1;
                let pause = self.millis(1_500);
                sleep(pause).await;
                let Some(again) = self.open().await else { return };
                store = again;
            }
        }
        if self.caller.number(2) == 0 {
            let _ = store.close().await;
        }
    }

    async fn open(&mut self) -> Option<JetStreamStore> {
        let servers = u32::try_from(self.world.plan.servers).unwrap_or(u32::MAX);
        let server = usize::try_from(self.caller.number(servers)).unwrap_or(0);
        let began = Instant::now();
        loop {
            match self.world.open(&self.name(), server).await {
                Ok(store) => return Some(store),
                Err(error) if began.elapsed() > OPENING => {
                    self.world.complain(format!("{} cannot open: {error}", self.name()));
                    return None;
                }
                Err(error) if error.outcome_unknown() => {
                    sleep(Duration::from_millis(100)).await;
                }
                Err(error) => {
                    self.world.complain(format!("{} must not open: {error}", self.name()));
                    return None;
                }
            }
        }
    }

    async fn call(&mut self, store: &JetStreamStore) {
        let world = self.world;
        let op = self.caller.next_call();
        let dropped = (self.caller.number(1000) < world.plan.drops).then(|| self.millis(300));
        let doubts = world.simulation.doubts(&self.name());
        let call = world.recorder.begin(self.number + 1, op.clone());
        let began = Instant::now();
        let answer = tokio::select! {
            biased;
            answer = op.apply(store) => Some(answer),
            () = store.stopped() => None,
            () = sleep(dropped.unwrap_or_default()), if dropped.is_some() => {
                world.said().tally.dropped += 1;
                None
            }
        };
        let Some(answer) = answer.filter(|_| !store.is_stopped()) else { return };
        world.recorder.end(call, answer.clone());
        world.scene.learn(&op, &answer);
        let long = matches!(op, Op::Rekey(..) | Op::DeleteRoom(_));
        let limit = if long { OP_TIMEOUT * 10 } else { OP_TIMEOUT } + SLACK;
        if began.elapsed() > limit {
            world.complain(format!("{op:?} took {:?}", began.elapsed()));
        }
        let mut said = world.said();
        let unknown = op.is_write() && answer.error().is_some_and(Error::outcome_unknown);
        said.tally.unknown += u64::from(unknown);
        let doubted = world.simulation.doubts(&self.name()) > doubts;
        said.tally.resolved += u64::from(op.is_write() && doubted && !unknown);
        let late = matches!(answer, Answer::Room(Err(Error::StaleEpoch { .. })));
        said.tally.contended += u64::from(late);
    }
}
