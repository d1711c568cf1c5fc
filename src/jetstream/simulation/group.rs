//! The replicas of one bucket: what is committed, how far each has come, who leads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::{Duration, Instant};

use crate::jetstream::gateway::bucket_settings::{BucketState, BucketStatus, Settings};
use crate::jetstream::gateway::exchange::Put;
use crate::jetstream::simulation::machines::Machines;
use crate::jetstream::simulation::stream::{LogEntry, Stream};
use crate::jetstream::simulation::weather::Chance;
use crate::jetstream::stored::bucket::Bucket;

/// How long an election may take, in milliseconds: measured from tens of them to seconds.
const ELECTION: (u64, u64) = (30, 4_000);
/// How long a leader that is cut off may think that it leads, in milliseconds.
const DELUSION: u64 = 20_000;
/// How long it may think so once it hears of the others again, in milliseconds.
const HEARTBEAT: u64 = 1_000;

/// How long a follower may take until it answers reads, in milliseconds: it looks every two seconds
/// whether it can.
const LOOK: u64 = 2_000;

#[derive(Clone, Debug)]
struct Replica {
    stream: Stream,
    /// How many of the committed changes are in it.
    applied: usize,
    /// When it has each of those it got beyond.
    due: VecDeque<Instant>,
    /// Since when it answers reads, or from when on; `None` for one that started and has not heard
    /// of a leader since. Cut off, it goes on to.
    answers: Option<Instant>,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    Committed(u64),
    /// The leader refused.
    Refused,
    /// It took effect, but the first to answer refused: a former leader, or the leader, of a second
    /// copy of the message.
    RefusedYetCommitted,
    /// A former leader refused; no other was there.
    RefusedByFormer,
    /// A former leader took it, and will never have a quorum for it.
    Nowhere,
    /// Nobody is there to take it.
    NoLeader,
}

/// One bucket.
#[derive(Debug)]
pub(super) struct Group {
    settings: Settings,
    created: String,
    /// Each change, and the moment at which it was committed.
    log: Vec<(u64, LogEntry)>,
    replicas: BTreeMap<usize, Replica>,
    leader: Option<usize>,
    /// When an election under way ends.
    elects: Option<Instant>,
    former: Vec<Former>,
}

/// A server that thinks it leads.
#[derive(Debug)]
struct Former {
    server: usize,
    until: Instant,
    /// The keys of what it took and has no quorum for. It refuses a second write that expects
    /// something of them, as a leader does of what is under way.
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

    /// The replicas begin.
    pub(super) fn begin(&mut self, now: Instant, servers: &Machines, chance: &mut Chance) {
        if let Some(leader) = self.leader {
            self.leads(leader, now);
            self.replicate(now, servers, chance);
        }
    }

    /// Who leads has everything, and answers reads from then on, also when it leads no more.
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

    /// Brings everything to the present, which happens by itself as time goes by.
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
        // Only who has everything that is committed is ever elected, and a majority has it.
        let complete = |replica: &Replica| replica.applied + replica.due.len() == self.log.len();
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

    /// Sends the leader's followers what they have not got. Hearing of it, they come to answer
    /// reads.
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

    /// Something happened to the servers, or between them.
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
        // Who is cut off before it answers reads may get there all the same, or not.
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

    /// The leader leads no more, and may not know.
    fn depose(&mut self, now: Instant, chance: &mut Chance) {
        if let Some(leader) = self.leader.take()
            && self.replicas.len() > 1
        {
            let until = now + chance.millis(DELUSION);
            self.former.push(Former { server: leader, until, took: BTreeSet::new() });
        }
    }

    /// The leader leads no more, and knows it.
    pub(super) fn step_down(&mut self, now: Instant, chance: &mut Chance) {
        if self.leader.take().is_some() {
            self.elects = Some(now + chance.between(ELECTION.0, ELECTION.1));
        }
    }

    /// Has this server lead, if it can.
    pub(super) fn lead(&mut self, server: usize, now: Instant, servers: &Machines, c: &mut Chance) {
        if self.replicas.contains_key(&server) && self.has_quorum(server, servers) {
            self.former.retain(|former| former.server != server);
            self.leader = Some(server);
            self.elects = None;
            self.leads(server, now);
            self.replicate(now, servers, c);
        }
    }

    /// Whether it is the bucket of users.
    pub(super) fn is_of_users(&self) -> bool {
        self.settings.name.ends_with(Bucket::Users.name())
    }

    /// Whether more than one server keeps it.
    pub(super) fn is_replicated(&self) -> bool {
        self.replicas.len() > 1
    }

    pub(super) fn leader(&self) -> Option<usize> {
        self.leader
    }

    /// The leader, where it is within reach; or whoever thinks so.
    fn led_near(&self, server: usize, servers: &Machines) -> (Option<usize>, Option<usize>) {
        let near = |leader: &usize| servers.reach(server, *leader);
        let former = self.former.iter().map(|former| former.server).find(near);
        (self.leader.filter(near), former)
    }

    fn accepts(&self, server: usize, puts: &[Put]) -> bool {
        self.replicas.get(&server).is_some_and(|replica| replica.stream.accepts(puts))
    }

    /// A write that comes through this server, at this moment.
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
        // While servers come back together, a former leader hears of it too, and has nobody to ask
        // first; or the message comes a second time, and finds what the first one stored.
        let expects = puts.iter().any(|put| put.expect.is_some());
        if expects && former.is_some() && chance.happens(500) {
            return WriteOutcome::RefusedYetCommitted;
        }
        WriteOutcome::Committed(
            self.replicas.get(&leader).map_or(0, |replica| replica.stream.last()),
        )
    }

    /// A purge that comes through this server: `None` where nobody is there to do it.
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

    /// The state of some replica that answers reads within reach of this server, and whether it is
    /// behind.
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

    /// The server of some replica that can feed a consumer: a quorum makes it.
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

    /// What this server's replica holds, and when it will hold more, if that is known.
    pub(super) fn replica(&self, server: usize) -> Option<(&Stream, Option<Instant>)> {
        let replica = self.replicas.get(&server)?;
        Some((&replica.stream, replica.due.front().copied()))
    }

    /// The settings and replicas, as the leader tells them to this server.
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

    /// Has the bucket kept by so many servers; the leader stays.
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

    /// A server was killed: its replica answers no reads before it hears of a leader again, unless
    /// it is the only one.
    pub(super) fn killed(&mut self, server: usize) {
        if self.replicas.len() > 1
            && let Some(replica) = self.replicas.get_mut(&server)
        {
            replica.answers = None;
        }
    }

    /// The only replica was killed: some of what it purged may be there again. Returns how many
    /// messages.
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
    /// Everything that was committed after a moment is lost on all servers but `ahead`. That one keeps its
    /// changes, and differs from the others for good once they have as many (nats-server 2.15.1). Returns
    /// how many changes are lost.
    pub(super) fn go_back(&mut self, moment: u64, ahead: Option<usize>, now: Instant) -> usize {
        let before = self.log.len();
        self.log.retain(|(committed, _)| *committed <= moment);
        for (server, replica) in &mut self.replicas {
            replica.due.clear();
            if Some(*server) == ahead {
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

    /// The settings are changed by hand, so that everything that is stored goes; which takes a leader.
    pub(super) fn expire(&mut self, moment: u64, now: Instant, s: &Machines, chance: &mut Chance) {
        if let Some(leader) = self.leader {
            self.settings.max_age = 1;
            let purge = LogEntry::Purge { filter: ">".to_owned(), up_to: None };
            self.commit((moment, purge), leader, now, s, chance);
        }
    }
}

/// How a server is called.
pub(super) fn server_name(server: usize) -> String {
    format!("n{server}")
}

impl Replica {
    fn new(settings: &Settings) -> Self {
        let history = usize::try_from(settings.max_msgs_per_subject).unwrap_or(1);
        Self { stream: Stream::new(history), applied: 0, due: VecDeque::new(), answers: None }
    }

    fn step(&mut self, log: &[(u64, LogEntry)]) {
        if let Some((_, change)) = log.get(self.applied) {
            self.stream.apply(change);
            self.applied += 1;
        }
    }
}
