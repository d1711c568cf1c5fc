//! One simulated history: clients, their calls, and faults of the servers meanwhile.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use membership::{
    Blow, EndpointId, Epoch, Error, JetStreamConfig, JetStreamStore, Page, ReadMode, RoomId,
    Simulation, Store, UserKey, Weather,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::memory::{Known, without_decisions};
use super::plan::{Back, Plan};
use super::tally::Tally;
use super::vanished;
use membership_conformance::history::{Caller, History, Recorder, Scene, Violation, check};
use membership_conformance::model::{Answer, Model, Op};
use membership_conformance::show::Show;

/// The clients' `op_timeout`.
pub(super) const OP_TIMEOUT: Duration = Duration::from_secs(1);
/// How much longer a call may take (clause TIME-1).
const SLACK: Duration = Duration::from_millis(250);
/// How long calls may fail after all faults have ended.
const HEALING: Duration = Duration::from_secs(30);

/// After this time nothing is in flight any more, and no client retries anything.
const QUIET: Duration = Duration::from_mins(1);

/// How long a client may try to open, whatever the faults.
const OPENING: Duration = Duration::from_mins(2);

/// A simulated history and its verdict.
#[derive(Debug)]
pub struct Played {
    /// The calls with their answers. If the data went back, only the calls afterwards.
    pub history: History,
    /// Counts of what the history reached.
    pub tally: Tally,
    /// All exchanges between clients and servers; empty unless the trace was asked for.
    pub trace: String,
    /// What is wrong with the history, if something is.
    pub problem: Option<String>,
}

/// Plays the history of a seed and judges it.
///
/// With `traced`, everything that happens between clients and servers is written down.
#[must_use]
pub fn play(seed: u64, traced: bool) -> Played {
    play_plan(&Plan::draw(seed), seed, traced)
}

/// As [`play`], with `plan` instead of the seed's own plan.
#[must_use]
pub fn play_plan(plan: &Plan, seed: u64, traced: bool) -> Played {
    let parts = alone(async || {
        let mut simulation = Simulation::new(seed, plan.servers, plan.weather);
        if let Some(defect) = plan.defect {
            simulation = simulation.with_defect(defect);
        }
        if traced {
            simulation.keep_trace();
        }
        match plan.back {
            None => Parts::of(World::run(plan, seed, simulation).await),
            Some(back) => World::run_twice(plan, seed, simulation, back).await,
        }
    });
    let (mut tally, mut problem) = (Tally::default(), parts.problem);
    for part in &parts.worlds {
        let history = part.history();
        let judged = part.judged(history.clone());
        let mut said = part.said();
        let vanished = said.vanished.and_then(|moment| vanished::wrong(&history, moment));
        problem = problem.or(vanished);
        problem = problem
            .or_else(|| said.problem.take())
            .or_else(|| check(&judged).err().map(|violation| shown(&violation)));
        said.tally.calls = u64::try_from(history.calls.len()).unwrap_or(u64::MAX);
        tally += said.tally;
    }
    tally.histories = 1;
    tally.went_back = u64::from(plan.back.is_some());
    tally.vanished = u64::from(plan.has(|blow| *blow == Blow::Expire));
    tally.downgraded = u64::from(plan.has(|blow| *blow == Blow::Downgrade));
    tally.suspended = u64::from(plan.has(|blow| matches!(blow, Blow::Suspend(_))));
    let last = parts.worlds.last();
    tally.reached = last.map(|world| world.simulation.reached()).unwrap_or_default();
    let trace = last.map(|world| world.simulation.trace()).unwrap_or_default();
    let history = last.map(|world| world.history()).unwrap_or_default();
    Played { history, tally, trace, problem }
}

/// The parts of a history, between which the data go back. Each part needs an order of its own.
struct Parts {
    worlds: Vec<Arc<World>>,
    /// What went wrong before the first part of the history.
    problem: Option<String>,
}

impl Parts {
    fn of(world: Arc<World>) -> Self {
        Self { worlds: vec![world], problem: None }
    }
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

/// Runs a future on a runtime of its own, in virtual time: the clock advances when all tasks wait.
pub(super) fn alone<T>(run: impl AsyncFnOnce() -> T) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    #[expect(clippy::expect_used, reason = "it needs nothing from the system")]
    runtime.expect("a runtime without I/O").block_on(run())
}

struct World {
    plan: Plan,
    seed: u64,
    simulation: Arc<Simulation>,
    before: Before,
    scene: Arc<Scene>,
    recorder: Recorder,
    /// A std lock: held for a moment, never across an await.
    said: Mutex<Said>,
}

/// Gives the calls before the first part of a history other random numbers than the first part.
const BEFORE: u64 = 1 << 62;
/// Gives the second part other random numbers than the first.
const AFTER: u64 = 1 << 61;
/// How many calls are made before the first part.
const CALLS_BEFORE: usize = 12;

/// The data before a part of a history.
#[derive(Clone, Default)]
struct Before {
    /// The calls that stored the data.
    calls: Vec<Op>,
    /// The model of the data.
    stored: Model,
}

#[derive(Default)]
struct Said {
    tally: Tally,
    problem: Option<String>,
    known: Known,
    /// When the users vanished, by the recorder's clock.
    vanished: Option<u64>,
}

impl World {
    fn new(plan: &Plan, seed: u64, simulation: &Arc<Simulation>, before: Before) -> Arc<Self> {
        Arc::new(Self {
            plan: plan.clone(),
            seed,
            simulation: Arc::clone(simulation),
            before,
            scene: Arc::new(Scene::new(u64::MAX)),
            recorder: Recorder::new(),
            said: Mutex::default(),
        })
    }

    fn history(&self) -> History {
        History { start: self.before.stored.clone(), ..self.recorder.history() }
    }

    /// Returns the part of the history that one order must explain.
    fn judged(&self, mut history: History) -> History {
        if let Some(moment) = self.said().vanished {
            history = vanished::until(history, moment);
        }
        if self.plan.bound.is_some() { without_decisions(history) } else { history }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, problem: String) {
        self.said().problem.get_or_insert(problem);
    }

    async fn run(plan: &Plan, seed: u64, simulation: Simulation) -> Arc<Self> {
        let world = Self::new(plan, seed, &Arc::new(simulation), Before::default());
        drop(Self::part(&world, Vec::new(), true).await);
        world.simulation.heal();
        world.look().await;
        world
    }

    /// Plays two parts with the same clients; in between the data go back to before the first part.
    async fn run_twice(plan: &Plan, seed: u64, simulation: Simulation, back: Back) -> Parts {
        let simulation = Arc::new(simulation);
        simulation.strike(Blow::Weather(Weather::CALM));
        let before = Self::new(plan, seed ^ BEFORE, &simulation, Before::default());
        let start = match before.set_up().await {
            Ok(Some(start)) => start,
            // If a write's outcome is unknown, nobody knows which data are stored.
            Ok(None) => return Parts::of(before),
            Err(problem) => return Parts { worlds: vec![before], problem: Some(problem) },
        };
        let moment = simulation.moment();
        simulation.strike(Blow::Weather(plan.weather));
        let first = Self::new(plan, seed, &simulation, start.clone());
        let stores = Self::part(&first, Vec::new(), false).await;
        simulation.heal();
        sleep(QUIET).await;
        simulation.strike(match back {
            Back::All => Blow::GoBack(moment),
            Back::But(server) => Blow::GoBackBut(moment, server),
        });
        simulation.heal();
        simulation.strike(Blow::Weather(plan.weather));
        let second = Self::new(plan, seed ^ AFTER, &simulation, start);
        drop(Self::part(&second, stores, true).await);
        simulation.heal();
        second.look().await;
        Parts { worlds: vec![first, second], problem: None }
    }

    /// Makes some calls of one client, one after the other.
    ///
    /// Returns what is stored then, or `None` if a write's outcome is unknown.
    async fn set_up(&self) -> Result<Option<Before>, String> {
        let store = self.open("before", 0).await.map_err(|error| error.to_string())?;
        let mut caller = Caller::new(self.seed, 0, self.plan.mix, &self.scene);
        let (mut calls, mut stored) = (Vec::new(), Model::new());
        for _ in 0..CALLS_BEFORE {
            let op = caller.next_call();
            let answer = op.apply(&store).await;
            if answer.error().is_some_and(Error::outcome_unknown) {
                // A replica may be a whole second behind, and a call times out after one second.
                if op.is_write() {
                    return Ok(None);
                }
                continue;
            }
            let right = stored.apply(&op);
            if answer != right {
                let (answer, right) = (answer.show(), right.show());
                return Err(format!(
                    "{op:?} answers {answer} before anything happened, not {right}"
                ));
            }
            self.scene.learn(&op, &answer);
            calls.push(op);
        }
        store.close().await.map_err(|error| error.to_string())?;
        Ok(Some(Before { calls, stored }))
    }

    /// Lets every client make its calls, with the store that it has open, if any.
    ///
    /// Returns the clients' stores. With `closes`, some clients close their stores while others
    /// still make calls.
    async fn part(
        world: &Arc<Self>,
        stores: Vec<Option<JetStreamStore>>,
        closes: bool,
    ) -> Vec<Option<JetStreamStore>> {
        let mut clients = JoinSet::new();
        let mut stores = stores.into_iter();
        for number in 0..world.plan.clients {
            let (world, store) = (Arc::clone(world), stores.next().flatten());
            clients.spawn(async move { Client::new(&world, number).run(store, closes).await });
        }
        let mut open = Vec::new();
        let began = Instant::now();
        let blows = async {
            for (at, blow) in &world.plan.blows {
                sleep_until(began + *at).await;
                // A bucket that has no leader, or does not exist yet, cannot be changed. In that case nothing vanishes.
                let is_led = world.simulation.leader("users").is_some();
                world.simulation.strike(*blow);
                if *blow == Blow::Expire && is_led {
                    world.said().vanished = Some(world.recorder.now());
                }
            }
            std::future::pending::<()>().await;
        };
        let all = async {
            while let Some(ended) = clients.join_next().await {
                match ended {
                    Ok(store) => open.push(store),
                    Err(error) => world.complain(format!("a client panicked: {error}")),
                }
            }
        };
        tokio::select! {
            biased;
            () = all => {}
            () = blows => {}
        }
        open
    }

    /// Reads everything once all faults have ended; the reads are the history's last calls.
    async fn look(&self) {
        let healed = Instant::now();
        let store = loop {
            match self.open("last", 0).await {
                Ok(store) => break store,
                Err(error) if self.said().vanished.is_some() && !error.outcome_unknown() => return,
                Err(error) if healed.elapsed() > HEALING => {
                    return self.complain(format!("no client opens after healing: {error}"));
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        };
        if self.said().vanished.is_some() {
            return self.complain("a client opens, though the users have vanished".to_owned());
        }
        for view in views(&self.before.calls, &self.history()) {
            let call = self.recorder.begin(0, view.clone());
            let answer = loop {
                let answer = view.apply(&store).await;
                match answer.error() {
                    Some(error) if error.outcome_unknown() => {
                        if healed.elapsed() > HEALING {
                            return self.complain(format!("{view:?} fails after healing: {error}"));
                        }
                        // A decision from memory takes no time. Without a wait, time would stand still.
                        sleep(Duration::from_millis(10)).await;
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
            read_mode: self
                .plan
                .bound
                .map_or(ReadMode::Linearizable, |bound| ReadMode::BoundedStaleness { bound }),
            ..JetStreamConfig::new(["nats://simulated"])
        };
        self.simulation.open(name, server, true, config).await
    }
}

/// Reads of every room, endpoint and user that the calls of a history, and those before it, name.
fn views(before: &[Op], history: &History) -> Vec<Op> {
    let (mut rooms, mut endpoints, mut users) =
        <(BTreeSet<RoomId>, BTreeSet<EndpointId>, BTreeSet<UserKey>)>::default();
    let mut epochs = BTreeSet::from([Epoch::FIRST]);
    for op in before.iter().chain(history.calls.iter().map(|call| &call.op)) {
        match op {
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
    /// How often the client was stopped dead.
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

    /// Makes the client's calls. Returns its store, or `None` if it could not open one.
    async fn run(mut self, store: Option<JetStreamStore>, closes: bool) -> Option<JetStreamStore> {
        let mut store = match store {
            Some(store) => store,
            None => self.open().await?,
        };
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
                store = self.open().await?;
            }
        }
        if closes && self.caller.number(2) == 0 {
            let _ = store.close().await;
        }
        Some(store)
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
                Err(_) if self.world.said().vanished.is_some() => return None,
                Err(error) => {
                    self.world.complain(format!("{} is refused at open: {error}", self.name()));
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
        let (began, asked) = (Instant::now(), world.simulation.time());
        world.said().known.begins(&op);
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
        said.known.ended(&op, &answer, world.simulation.time());
        let bound = world.plan.bound;
        let wrong = bound.and_then(|bound| said.known.wrong(&op, &answer, asked, bound));
        said.problem = said.problem.take().or(wrong);
        let unknown = op.is_write() && answer.error().is_some_and(Error::outcome_unknown);
        said.tally.unknown += u64::from(unknown);
        let doubted = world.simulation.doubts(&self.name()) > doubts;
        said.tally.resolved += u64::from(op.is_write() && doubted && !unknown);
        let late = matches!(answer, Answer::Room(Err(Error::StaleEpoch { .. })));
        said.tally.contended += u64::from(late);
    }
}
