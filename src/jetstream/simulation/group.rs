//! One bucket: its committed changes, its replicas and its leader.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::{Duration, Instant};

use crate::jetstream::gateway::bucket_settings::{BucketState, BucketStatus, Settings};
use crate::jetstream::gateway::exchange::Put;
use crate::jetstream::simulation::machines::Machines;
use crate::jetstream::simulation::stream::{LogEntry, Stream};
use crate::jetstream::simulation::weather::Chance;
use crate::jetstream::stored::bucket::Bucket;

/// How long an election may take, in milliseconds. Real ones took from tens of milliseconds to
/// seconds.
const ELECTION: (u64, u64) = (30, 4_000);
/// How long a leader that is cut off may believe that it still leads, in milliseconds.
const DELUSION: u64 = 20_000;
/// How long such a leader may believe so after it hears of the others again, in milliseconds.
const HEARTBEAT: u64 = 1_000;

/// How long a follower may take until it answers reads, in milliseconds. A real follower checks
/// every two seconds whether it may answer.
const LOOK: u64 = 2_000;

#[derive(Clone, Debug)]
struct Replica {
    stream: Stream,
    /// How many of the committed changes this replica has applied.
    applied: usize,
    /// When this replica will apply each of the further changes that it was sent.
    due: VecDeque<Instant>,
    /// The moment from which on this replica answers reads. `None` if its server was started again
    /// and has not heard of a leader since. A replica that is cut off goes on answering.
    answers: Option<Instant>,
    /// Whether this replica has changes that the others lost. Such a replica never leads, since the
    /// others could not follow it.
    differs: bool,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    Committed(u64),
    /// The leader refused the write.
    Refused,
    /// The write is committed, but the client is told that it was refused. The refusal comes from a
    /// former leader, or from the leader when a second copy of the message reaches it.
    RefusedYetCommitted,
    /// A former leader refused the write, and the leader is out of reach.
    RefusedByFormer,
    /// A former leader accepted the write, and will never have a quorum for it.
    Nowhere,
    /// No leader is within reach, not even a former one.
    NoLeader,
}

/// One bucket.
#[derive(Debug)]
pub(super) struct Group {
    settings: Settings,
    created: String,
    /// Each committed change, with the number of its write.
    log: Vec<(u64, LogEntry)>,
    replicas: BTreeMap<usize, Replica>,
    leader: Option<usize>,
    /// When the current election ends.
    elects: Option<Instant>,
    former: Vec<Former>,
}

/// A former leader that believes that it still leads.
#[derive(Debug)]
struct Former {
    server: usize,
    until: Instant,
    /// The keys of the writes that this leader accepted and has no quorum for. The leader refuses
    /// further conditional writes of these keys, as a leader does while a write is in flight.
    took: BTreeSet<String>,
}

impl Former {
    fn refuses(&self, puts: &[Put]) -> bool {
        puts.iter().any(|put| put.expect.is_some() && self.took.contains(&put.key))
    }
}

impl Group {
    pub(super) fn new(settings: Settings, created: String, on: &[usize], leader: usize) -> Self {
        let empty = || Replica::new(&settings);
        let replicas = on.iter().map(|server| (*server, empty())).collect();
        let leader = Some(leader);
        Self { settings, created, log: Vec::new(), replicas, leader, elects: None, former: vec![] }
    }

    /// Starts the replicas.
    pub(super) fn begin(&mut self, now: Instant, servers: &Machines, chance: &mut Chance) {
        if let Some(leader) = self.leader {
            self.leads(leader, now);
            self.replicate(now, servers, chance);
        }
    }

    /// Gives a new leader every committed change, and lets it answer reads. The server goes on
    /// answering after another server leads.
    fn leads(&mut self, server: usize, now: Instant) {
        self.catch_up(server);
        if let Some(replica) = self.replicas.get_mut(&server) {
            replica.answers = replica.answers.filter(|from| *from <= now).or(Some(now));
        }
    }

    /// Whether a majority of the replicas is within this server's reach.
    fn has_quorum(&self, server: usize, servers: &Machines) -> bool {
        let near = self.replicas.keys().filter(|other| servers.reach(server, **other)).count();
        near > self.replicas.len() / 2
    }

    /// Applies every event that was due by now: elections, replication, and the end of former
    /// leaders.
    pub(super) fn settle(&mut self, now: Instant, servers: &Machines, chance: &mut Chance) {
        self.former.retain(|former| former.until > now);
        if self.leader.is_none() && self.elects.is_some_and(|elects| elects <= now) {
            self.elect(now, servers, chance);
        }
        for replica in self.replicas.values_mut() {
            while replica.due.front().is_some_and(|due| *due <= now) {
                replica.due.pop_front();
                replica.step(&self.log);
            }
        }
    }

    fn elect(&mut self, now: Instant, servers: &Machines, chance: &mut Chance) {
        // Raft elects only a server that has every committed change. A majority of the servers has
        // all of them.
        let complete = |replica: &Replica| {
            !replica.differs && replica.applied + replica.due.len() == self.log.len()
        };
        let fit: Vec<_> = self
            .replicas
            .iter()
            .filter(|(server, replica)| complete(replica) && self.has_quorum(**server, servers))
            .map(|(server, _)| *server)
            .collect();
        self.elects = None;
        self.leader = chance.one_of(&fit);
        let Some(leader) = self.leader else { return };
        self.former.retain(|former| former.server != leader);
        self.leads(leader, now);
        self.replicate(now, servers, chance);
    }

    fn catch_up(&mut self, server: usize) {
        if let Some(replica) = self.replicas.get_mut(&server) {
            replica.due.clear();
            while replica.applied < self.log.len() {
                replica.step(&self.log);
            }
        }
    }

    /// Sends the followers within the leader's reach the changes that they lack. A follower that
    /// hears of the leader begins to answer reads.
    fn replicate(&mut self, now: Instant, servers: &Machines, chance: &mut Chance) {
        let Some(leader) = self.leader else { return };
        for (server, replica) in &mut self.replicas {
            if *server == leader || !servers.reach(leader, *server) {
                continue;
            }
            if replica.answers.is_none() {
                let soon = chance.happens(500);
                let look = if soon { Duration::ZERO } else { chance.millis(LOOK) };
                replica.answers = Some(now + look);
            }
            while replica.applied + replica.due.len() < self.log.len() {
                let soonest = replica.due.back().copied().unwrap_or(now).max(now);
                replica.due.push_back(soonest + chance.lag());
            }
        }
    }

    /// Reacts to a fault or repair of the servers, or of the links between them.
    pub(super) fn disturbed(&mut self, now: Instant, servers: &Machines, chance: &mut Chance) {
        self.settle(now, servers, chance);
        if let Some(leader) = self.leader
            && !(servers.works(leader) && self.has_quorum(leader, servers))
        {
            self.depose(now, chance);
        }
        self.former.retain(|former| servers.get(former.server).is_some_and(|server| server.up));
        for Former { server, until, .. } in &mut self.former {
            let hears = self.replicas.keys().any(|o| o != server && servers.reach(*server, *o));
            if hears {
                *until = (*until).min(now + chance.millis(HEARTBEAT));
            }
        }
        // A follower that is cut off before it answers reads may or may not begin to answer.
        for (server, replica) in &mut self.replicas {
            let hears = self.leader.is_some_and(|leader| servers.reach(leader, *server));
            if replica.answers.is_some_and(|from| from > now) && !hears && chance.happens(500) {
                replica.answers = None;
            }
        }
        match self.leader {
            Some(_) => self.replicate(now, servers, chance),
            None => self.elects = Some(now + chance.between(ELECTION.0, ELECTION.1)),
        }
    }

    /// Ends the leader's term, which the leader may not know.
    fn depose(&mut self, now: Instant, chance: &mut Chance) {
        if let Some(leader) = self.leader.take()
            && self.replicas.len() > 1
        {
            let until = now + chance.millis(DELUSION);
            self.former.push(Former { server: leader, until, took: BTreeSet::new() });
        }
    }

    /// Ends the leader's term with the leader's knowledge.
    pub(super) fn step_down(&mut self, now: Instant, chance: &mut Chance) {
        if self.leader.take().is_some() {
            self.elects = Some(now + chance.between(ELECTION.0, ELECTION.1));
        }
    }

    /// Makes this server lead the bucket, if the server has a replica and reaches a majority.
    pub(super) fn lead(&mut self, server: usize, now: Instant, servers: &Machines, c: &mut Chance) {
        let can = self.replicas.get(&server).is_some_and(|replica| !replica.differs);
        if can && self.has_quorum(server, servers) {
            self.former.retain(|former| former.server != server);
            self.leader = Some(server);
            self.elects = None;
            self.leads(server, now);
            self.replicate(now, servers, c);
        }
    }

    /// Whether this is the bucket of users.
    pub(super) fn is_of_users(&self) -> bool {
        self.settings.name.ends_with(Bucket::Users.name())
    }

    /// Whether more than one server keeps the bucket.
    pub(super) fn is_replicated(&self) -> bool {
        self.replicas.len() > 1
    }

    pub(super) fn leader(&self) -> Option<usize> {
        self.leader
    }

    /// The leader, and a former leader that believes that it still leads, if they are within reach.
    fn led_near(&self, server: usize, servers: &Machines) -> (Option<usize>, Option<usize>) {
        let near = |leader: &usize| servers.reach(server, *leader);
        let former = self.former.iter().map(|former| former.server).find(near);
        (self.leader.filter(near), former)
    }

    fn accepts(&self, server: usize, puts: &[Put]) -> bool {
        self.replicas.get(&server).is_some_and(|replica| replica.stream.accepts(puts))
    }

    /// Handles a write that a client sent to this server.
    pub(super) fn write(
        &mut self,
        server: usize,
        puts: &[Put],
        moment: u64,
        now: Instant,
        servers: &Machines,
        chance: &mut Chance,
    ) -> WriteOutcome {
        let (leader, former) = self.led_near(server, servers);
        let Some(leader) = leader else {
            let Some(server) = former else { return WriteOutcome::NoLeader };
            let accepts = self.accepts(server, puts);
            let former = self.former.iter_mut().find(|former| former.server == server);
            return match former {
                Some(former) if accepts && !former.refuses(puts) => {
                    former.took.extend(puts.iter().map(|put| put.key.clone()));
                    WriteOutcome::Nowhere
                }
                _ => WriteOutcome::RefusedByFormer,
            };
        };
        if !self.accepts(leader, puts) {
            return WriteOutcome::Refused;
        }
        let last = self.replicas.get(&leader).map_or(0, |replica| replica.stream.last());
        let stored = LogEntry::store(puts, last, moment);
        self.commit((moment, stored), leader, now, servers, chance);
        // While servers come back together, a former leader receives the write, too. Its refusal
        // needs no quorum, so it is the first answer. The other way to a wrong refusal is a second
        // copy of the message, which the leader refuses because of the first.
        let expects = puts.iter().any(|put| put.expect.is_some());
        if expects && former.is_some() && chance.happens(500) {
            return WriteOutcome::RefusedYetCommitted;
        }
        WriteOutcome::Committed(
            self.replicas.get(&leader).map_or(0, |replica| replica.stream.last()),
        )
    }

    /// Handles a purge that a client sent to this server. `None` if no leader is within reach.
    pub(super) fn purge(
        &mut self,
        server: usize,
        purge: (u64, LogEntry),
        now: Instant,
        servers: &Machines,
        chance: &mut Chance,
    ) -> Option<()> {
        let (leader, _) = self.led_near(server, servers);
        self.commit(purge, leader?, now, servers, chance);
        Some(())
    }

    fn commit(
        &mut self,
        committed: (u64, LogEntry),
        leader: usize,
        now: Instant,
        servers: &Machines,
        chance: &mut Chance,
    ) {
        self.log.push(committed);
        self.catch_up(leader);
        self.replicate(now, servers, chance);
    }

    /// A random replica within reach that answers reads, and whether it lags.
    pub(super) fn some_replica(
        &self,
        server: usize,
        now: Instant,
        servers: &Machines,
        chance: &mut Chance,
    ) -> Option<(&Stream, bool)> {
        let answers = |other: &usize| servers.reach(server, *other) && self.answers(*other, now);
        let near: Vec<_> = self.replicas.keys().copied().filter(answers).collect();
        let replica = self.replicas.get(&chance.one_of(&near)?)?;
        Some((&replica.stream, replica.applied < self.log.len()))
    }

    /// Whether this server's replica answers reads.
    pub(super) fn answers(&self, server: usize, now: Instant) -> bool {
        let replica = self.replicas.get(&server);
        replica.and_then(|replica| replica.answers).is_some_and(|from| from <= now)
    }

    /// A random server within reach that can hold a consumer.
    ///
    /// `None` if no leader is within reach, since it takes a quorum to make a consumer.
    pub(super) fn some_place(
        &self,
        server: usize,
        servers: &Machines,
        chance: &mut Chance,
    ) -> Option<usize> {
        self.led_near(server, servers).0?;
        let near: Vec<_> =
            self.replicas.keys().copied().filter(|other| servers.reach(server, *other)).collect();
        chance.one_of(&near)
    }

    /// Returns this server's replica, and the moment at which the replica will apply its next
    /// change, if it was sent one.
    pub(super) fn replica(&self, server: usize) -> Option<(&Stream, Option<Instant>)> {
        let replica = self.replicas.get(&server)?;
        Some((&replica.stream, replica.due.front().copied()))
    }

    /// The bucket's settings and status, as the leader tells this server.
    ///
    /// `None` if no leader is within reach.
    pub(super) fn state(&self, server: usize, servers: &Machines) -> Option<BucketState> {
        let leader = self.led_near(server, servers).0?;
        let count = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let current = self.replicas.iter().filter(|(server, replica)| {
            servers.reach(leader, **server) && replica.applied == self.log.len()
        });
        let status =
            BucketStatus { replicas: count(self.replicas.len()), current: count(current.count()) };
        let (settings, created) = (self.settings.clone(), self.created.clone());
        let last = self.replicas.get(&leader).map_or(0, |replica| replica.stream.last());
        let leader = (self.replicas.len() > 1).then(|| server_name(leader));
        Some(BucketState { settings, created, last, leader, status })
    }

    /// Changes the number of replicas to that in `settings`. The leader stays.
    pub(super) fn resize(
        &mut self,
        settings: Settings,
        now: Instant,
        servers: &Machines,
        chance: &mut Chance,
    ) {
        let wanted = usize::from(settings.num_replicas);
        self.settings = settings;
        for server in 0..servers.0.len() {
            if self.replicas.len() < wanted && servers.works(server) {
                self.replicas.entry(server).or_insert_with(|| Replica::new(&self.settings));
            }
        }
        while self.replicas.len() > wanted {
            let others: Vec<_> =
                self.replicas.keys().copied().filter(|s| Some(*s) != self.leader).collect();
            let Some(gone) = chance.one_of(&others) else { break };
            self.replicas.remove(&gone);
            self.former.retain(|former| former.server != gone);
        }
        self.replicate(now, servers, chance);
    }

    /// Handles the kill of a server. Its replica answers no reads before it hears of a leader,
    /// unless it is the only replica.
    pub(super) fn killed(&mut self, server: usize) {
        if self.replicas.len() > 1
            && let Some(replica) = self.replicas.get_mut(&server)
        {
            replica.answers = None;
        }
    }

    /// Handles the kill of the only replica: some messages that it purged may come back. Returns
    /// how many do.
    pub(super) fn forget_purges(&mut self, server: usize, chance: &mut Chance) -> usize {
        if self.replicas.len() != 1 {
            return 0;
        }
        let Some(replica) = self.replicas.get_mut(&server) else { return 0 };
        let back = replica.stream.forgotten(chance);
        let count = back.len();
        let moment = self.log.last().map_or(0, |(moment, _)| *moment);
        self.log.push((moment, LogEntry::Back(back)));
        self.catch_up(server);
        count
    }
}

impl Group {
    /// Loses everything that was committed after the write with this number, on all servers but
    /// `ahead`.
    ///
    /// The server `ahead` keeps its changes. Once the others have as many, it differs from them for
    /// good (nats-server 2.15.1). Returns how many changes are lost.
    pub(super) fn go_back(&mut self, moment: u64, ahead: Option<usize>, now: Instant) -> usize {
        let before = self.log.len();
        self.log.retain(|(committed, _)| *committed <= moment);
        for (server, replica) in &mut self.replicas {
            replica.due.clear();
            if Some(*server) == ahead {
                replica.differs = replica.applied > self.log.len();
                continue;
            }
            *replica = Replica { answers: replica.answers, ..Replica::new(&self.settings) };
            while replica.applied < self.log.len() {
                replica.step(&self.log);
            }
        }
        self.former.clear();
        if self.leader.is_some_and(|leader| Some(leader) == ahead) {
            self.leader = None;
            self.elects = Some(now);
        }
        before - self.log.len()
    }

    /// Sets a `max_age`, which removes all messages, if there is a leader.
    pub(super) fn expire(&mut self, moment: u64, now: Instant, s: &Machines, chance: &mut Chance) {
        if let Some(leader) = self.leader {
            self.settings.max_age = 1;
            self.commit((moment, LogEntry::Expire), leader, now, s, chance);
        }
    }
}

/// The name of a server.
pub(super) fn server_name(server: usize) -> String {
    format!("n{server}")
}

impl Replica {
    fn new(settings: &Settings) -> Self {
        let history = usize::try_from(settings.max_msgs_per_subject).unwrap_or(1);
        Self {
            stream: Stream::new(history),
            applied: 0,
            due: VecDeque::new(),
            answers: None,
            differs: false,
        }
    }

    fn step(&mut self, log: &[(u64, LogEntry)]) {
        if let Some((_, change)) = log.get(self.applied) {
            self.stream.apply(change);
            self.applied += 1;
        }
    }
}
