//! All simulated servers: their buckets, faults, counts and trace.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::jetstream::gateway::bucket_settings::Settings;
use crate::jetstream::gateway::clock::Clock;
use crate::jetstream::simulation::group::Group;
use crate::jetstream::simulation::machines::{Machine, Machines};
use crate::jetstream::simulation::reached::Reached;
use crate::jetstream::simulation::weather::{Chance, Weather};

/// A fault of the servers, or its repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Blow {
    /// Cuts the server off from all servers that are not isolated. Its clients still reach it.
    Isolate(usize),
    /// Lets all servers reach one another again.
    Join,
    /// Kills the server, which ends its connections.
    Kill(usize),
    /// Starts the server again on its data.
    Start(usize),
    /// Pauses the server; messages to it wait.
    Pause(usize),
    /// Lets a paused server go on.
    Resume(usize),
    /// Makes every bucket's leader step down.
    StepDown,
    /// Kills every server, and loses everything that was committed after the write with this
    /// number. So the servers' files were restored from older ones, or were never synced.
    GoBack(u64),
    /// The same as `GoBack`, for all servers but one. That server is not killed, so its log is
    /// longer than those of the others when it hears of them again.
    GoBackBut(u64, usize),
    /// Sets a `max_age` on the bucket of users, which removes everything in it.
    Expire,
    /// Kills every server and starts an older version, which stores a batch message by message.
    Downgrade,
    /// Kills every server and starts a version that is new enough.
    Upgrade,
    /// Suspends the clients' machine for this many milliseconds: their timers stand still
    /// meanwhile.
    Suspend(u64),
    /// Changes how long messages take, and how many are lost.
    Weather(Weather),
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) servers: Machines,
    /// The buckets, by the names of their streams.
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) chance: Chance,
    pub(super) reached: Reached,
    /// How many compare-and-sets of each client got no answer.
    pub(super) doubts: BTreeMap<String, u64>,
    /// Notified whenever a waiting exchange or feed may be able to go on.
    pub(super) changed: Arc<Notify>,
    began: Instant,
    /// The trace, one event a line; `None` if no trace is kept.
    trace: Option<String>,
    buckets_made: u64,
    /// The number of the last write. The number grows with every write, and never goes back.
    moment: u64,
    /// Whether the servers run an older version, which stores a batch message by message.
    pub(super) older: bool,
    /// The clock of the clients' machine.
    pub(super) clock: Clock,
}

/// The servers, as their clients share them.
#[derive(Debug)]
pub(super) struct SharedCluster {
    /// A std lock, which is never held across an await.
    cluster: Mutex<Cluster>,
    /// Notified whenever a waiting exchange or feed may be able to go on.
    pub(super) changed: Arc<Notify>,
}

impl SharedCluster {
    pub(super) fn new(cluster: Cluster) -> Self {
        let changed = Arc::clone(&cluster.changed);
        Self { cluster: Mutex::new(cluster), changed }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    pub(super) fn new(seed: u64, servers: usize, weather: Weather) -> Self {
        let server = Machine { side: 0, up: true, paused: false, life: 0 };
        Self {
            servers: Machines(vec![server; servers]),
            groups: BTreeMap::new(),
            chance: Chance::new(seed, weather),
            reached: Reached::default(),
            doubts: BTreeMap::new(),
            changed: Arc::default(),
            began: Instant::now(),
            trace: None,
            buckets_made: 0,
            moment: 0,
            older: false,
            clock: Clock::simulated(),
        }
    }

    /// The number of the last write.
    pub(super) fn moment(&self) -> u64 {
        self.moment
    }

    /// Returns the number of the next write.
    pub(super) fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    pub(super) fn keep_trace(&mut self) {
        self.trace = Some(String::new());
    }

    pub(super) fn trace(&self) -> &str {
        self.trace.as_deref().unwrap_or_default()
    }

    /// Adds an event to the trace.
    pub(super) fn note(&mut self, happened: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        let at = self.began.elapsed().as_millis();
        let line = happened();
        // Writing into a string cannot fail.
        let _ = writeln!(trace, "{at:>7} ms  {line}");
    }

    /// Returns a bucket, after applying every event to it that is due by now.
    pub(super) fn group(
        &mut self,
        stream: &str,
    ) -> Option<(&mut Group, &Machines, &mut Chance, &mut Reached)> {
        let Self { servers, groups, chance, reached, .. } = self;
        let group = groups.get_mut(stream)?;
        group.settle(Instant::now(), servers, chance);
        Some((group, servers, chance, reached))
    }

    /// Makes a bucket, if this server reaches a majority.
    pub(super) fn make(&mut self, server: usize, settings: Settings) -> Option<()> {
        if !self.servers.quorum(server) {
            return None;
        }
        if self.groups.contains_key(&settings.name) {
            return Some(());
        }
        let mut near: Vec<_> =
            (0..self.servers.0.len()).filter(|s| self.servers.reach(server, *s)).collect();
        let mut on = Vec::new();
        while on.len() < usize::from(settings.num_replicas) {
            let next = self.chance.one_of(&near)?;
            near.retain(|server| *server != next);
            on.push(next);
        }
        let leader = self.chance.one_of(&on)?;
        self.buckets_made += 1;
        let (name, created) = (settings.name.clone(), format!("bucket {}", self.buckets_made));
        let mut group = Group::new(settings, created, &on, leader);
        group.begin(Instant::now(), &self.servers, &mut self.chance);
        self.groups.insert(name, group);
        Some(())
    }

    pub(super) fn strike(&mut self, blow: Blow) {
        self.note(|| format!("-- {blow:?}"));
        let now = Instant::now();
        let Self { servers, groups, chance, reached, moment: at, older, clock, .. } = self;
        for group in groups.values_mut() {
            group.settle(now, servers, chance);
        }
        match blow {
            Blow::Isolate(server) => {
                if let Some(server) = servers.0.get_mut(server) {
                    server.side = 1;
                }
            }
            Blow::Join => servers.0.iter_mut().for_each(|server| server.side = 0),
            Blow::Kill(server) => kill(server, servers, groups, chance, reached),
            Blow::Start(server) => servers.start(server),
            Blow::Downgrade | Blow::Upgrade => {
                *older = blow == Blow::Downgrade;
                for server in 0..servers.0.len() {
                    kill(server, servers, groups, chance, reached);
                }
                for group in groups.values_mut() {
                    group.disturbed(now, servers, chance);
                }
                for server in 0..servers.0.len() {
                    servers.start(server);
                }
            }
            Blow::Suspend(millis) => clock.suspend(Duration::from_millis(millis)),
            Blow::Pause(server) => {
                if let Some(server) = servers.0.get_mut(server) {
                    server.paused = server.up;
                }
            }
            Blow::Resume(server) => {
                if let Some(server) = servers.0.get_mut(server) {
                    server.paused = false;
                }
            }
            Blow::GoBack(moment) | Blow::GoBackBut(moment, _) => {
                let ahead = match blow {
                    Blow::GoBackBut(_, ahead) => Some(ahead),
                    _ => None,
                };
                for (n, server) in servers.0.iter_mut().enumerate() {
                    if Some(n) != ahead {
                        (server.up, server.paused) = (false, false);
                    }
                }
                for group in groups.values_mut() {
                    let lost = group.go_back(moment, ahead, now);
                    reached.changes_lost += u64::try_from(lost).unwrap_or(u64::MAX);
                }
            }
            Blow::Expire => {
                *at += 1;
                for group in groups.values_mut().filter(|group| group.is_of_users()) {
                    group.expire(*at, now, servers, chance);
                }
            }
            Blow::StepDown => groups.values_mut().for_each(|group| group.step_down(now, chance)),
            Blow::Weather(weather) => chance.weather = weather,
        }
        if !matches!(blow, Blow::StepDown | Blow::Weather(_) | Blow::Suspend(_)) {
            for group in groups.values_mut() {
                group.disturbed(now, servers, chance);
            }
        }
    }

    pub(super) fn lead(&mut self, server: usize, stream: &str) {
        if let Some((group, servers, chance, _)) = self.group(stream) {
            group.lead(server, Instant::now(), servers, chance);
        }
    }

    /// Draws how long a message and its answer take, and whether they are lost.
    pub(super) fn way(&mut self, attempt: Duration) -> Way {
        let weather = self.chance.weather;
        let request = if self.chance.happens(weather.lost_requests) {
            None
        } else if self.chance.happens(weather.late_requests) {
            // The request arrives later than its sender waits.
            Some(attempt + self.chance.millis(12_000))
        } else {
            Some(self.chance.latency())
        };
        let lost = self.chance.happens(weather.lost_answers);
        let answer = (!lost).then(|| self.chance.latency());
        Way { request, answer }
    }
}

/// Kills a server.
fn kill(
    killed: usize,
    servers: &mut Machines,
    groups: &mut BTreeMap<String, Group>,
    chance: &mut Chance,
    reached: &mut Reached,
) {
    if let Some(server) = servers.0.get_mut(killed) {
        (server.up, server.paused) = (false, false);
    }
    for group in groups.values_mut() {
        group.killed(killed);
        let back = group.forget_purges(killed, chance);
        reached.purges_undone += u64::try_from(back).unwrap_or(u64::MAX);
    }
}

/// How long a message takes and how long its answer takes; `None` for a message that is lost.
pub(super) struct Way {
    pub(super) request: Option<Duration>,
    pub(super) answer: Option<Duration>,
}
