//! Gives one client access to the simulated servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::Error;
use crate::jetstream::gateway::bucket_settings::{BucketState, Settings};
use crate::jetstream::gateway::clock::Clock;
use crate::jetstream::gateway::exchange::{
    Ack, Deliveries, Put, Reading, Reply, Servers, WriteError,
};
use crate::jetstream::gateway::server_version;
use crate::jetstream::simulation::cluster::SharedCluster;
use crate::jetstream::simulation::cluster::{Cluster, Way};
use crate::jetstream::simulation::deliveries::SimulatedDeliveries;
use crate::jetstream::simulation::group::WriteOutcome;
use crate::jetstream::simulation::machines::Machine;
use crate::jetstream::simulation::stream::LogEntry;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::bucket_key;

/// The number of unanswered exchanges in a row after which a client goes to another server.
const PATIENCE: u32 = 6;

pub(super) struct SimulatedServers {
    pub(super) shared: Arc<SharedCluster>,
    /// The client's name in the trace.
    pub(super) name: String,
    /// The beginning of the buckets' names.
    pub(super) prefix: String,
    /// The server that the client is connected to.
    pub(super) server: AtomicUsize,
    /// Whether the client may go to another server.
    pub(super) roams: bool,
    pub(super) silent: AtomicU32,
}

/// What the servers do with a message.
enum Effect<T> {
    Answer(T),
    /// No server answers.
    Nothing,
}

/// A message in flight.
struct SentMessage {
    server: usize,
    /// The server's life when the message was sent: a server that was started again drops it.
    life: u32,
    way: Way,
}

/// A message that has arrived at a server.
#[derive(Clone, Copy)]
struct Arrival {
    server: usize,
    /// Whether its sender has given up waiting.
    late: bool,
    /// Whether its answer will be lost.
    unheard: bool,
}

enum NoReply {
    NotSent,
    Silence,
}

impl SimulatedServers {
    fn stream(&self, bucket: Bucket) -> String {
        format!("KV_{}{bucket}", self.prefix)
    }

    /// Sends a message and waits for its answer. Once it is sent, it arrives even if the client is
    /// dropped.
    async fn exchange<T: Send + 'static>(
        &self,
        deadline: Instant,
        what: impl FnOnce() -> String,
        mut arrive: impl FnMut(&mut Cluster, Arrival) -> Effect<T> + Send + 'static,
    ) -> Result<T, NoReply> {
        let Some(sent) = self.send(deadline, what) else {
            self.roam();
            sleep(Duration::from_millis(5)).await;
            return Err(NoReply::NotSent);
        };
        let SentMessage { server, life, way } = sent;
        let (sender, receiver) = oneshot::channel();
        if let Some(request) = way.request {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                sleep(request).await;
                let answer = loop {
                    let changed = shared.changed.notified();
                    tokio::pin!(changed);
                    changed.as_mut().enable();
                    {
                        let mut cluster = shared.lock();
                        let same = |s: &&Machine| s.up && s.life == life;
                        let Some(state) = cluster.servers.get(server).filter(same) else { return };
                        if !state.paused {
                            let (late, unheard) = (Instant::now() > deadline, way.answer.is_none());
                            match arrive(&mut cluster, Arrival { server, late, unheard }) {
                                Effect::Answer(answer) => break answer,
                                Effect::Nothing => return,
                            }
                        }
                    }
                    changed.await;
                };
                let Some(way) = way.answer else { return };
                sleep(way).await;
                let same = |s: &Machine| s.up && !s.paused && s.life == life;
                if shared.lock().servers.get(server).is_some_and(same) {
                    let _ = sender.send(answer);
                }
            });
        }
        if let Ok(Ok(answer)) = timeout_at(deadline, receiver).await {
            self.silent.store(0, Ordering::SeqCst);
            return Ok(answer);
        }
        // A client cannot tell that no answer will come: it waits until the deadline.
        sleep_until(deadline).await;
        if self.silent.fetch_add(1, Ordering::SeqCst) + 1 >= PATIENCE {
            self.silent.store(0, Ordering::SeqCst);
            self.roam();
        }
        Err(NoReply::Silence)
    }

    fn send(&self, deadline: Instant, what: impl FnOnce() -> String) -> Option<SentMessage> {
        let server = self.server.load(Ordering::SeqCst);
        let mut cluster = self.shared.lock();
        cluster.reached.exchanges += 1;
        cluster.note(|| format!("{} @{server} {}", self.name, what()));
        let life = cluster.servers.get(server).filter(|server| server.up)?.life;
        let way = cluster.way(deadline.saturating_duration_since(Instant::now()));
        Some(SentMessage { server, life, way })
    }

    /// Connects to a random running server, if the client roams.
    fn roam(&self) {
        if self.roams {
            let mut cluster = self.shared.lock();
            let up: Vec<_> = (0..cluster.servers.0.len())
                .filter(|server| cluster.servers.get(*server).is_some_and(|server| server.up))
                .collect();
            if let Some(next) = cluster.chance.one_of(&up) {
                self.server.store(next, Ordering::SeqCst);
            }
        }
    }

    async fn store(&self, bucket: Bucket, puts: &[Put], deadline: Instant) -> Ack {
        let stream = self.stream(bucket);
        let is_barrier = matches!(puts, [put] if bucket_key::is_barrier(&put.key));
        let expects = puts.iter().any(Put::is_compare_and_set);
        let sent = puts.to_vec();
        let name = self.name.clone();
        let what = || format!("stores in {bucket}: {}", shown(puts));
        let outcome = self.exchange(deadline, what, move |cluster, arrival| {
            let one_by_one = cluster.older && sent.len() > 1;
            let mut written = WriteOutcome::NoLeader;
            for puts in sent.chunks(if one_by_one { 1 } else { sent.len().max(1) }) {
                let moment = cluster.next_moment();
                let Some((group, servers, chance, _)) = cluster.group(&stream) else {
                    return Effect::Nothing;
                };
                let now = Instant::now();
                written = group.write(arrival.server, puts, moment, now, servers, chance);
            }
            cluster.note(|| format!("{name} {stream}: {written:?}: {}", shown(&sent)));
            count(cluster, written, arrival, expects);
            if bucket == Bucket::Users {
                // Wakes the feeds of users. Otherwise they notice the message only at their next
                // heartbeat.
                cluster.changed.notify_waiters();
            }
            match written {
                WriteOutcome::Committed(_) if one_by_one => {
                    let error = Error::unavailable(server_version::too_old("the leader"));
                    Effect::Answer(Ack::Not(WriteError::Unknown(error)))
                }
                WriteOutcome::Committed(sequence) => Effect::Answer(Ack::Stored(sequence)),
                WriteOutcome::Refused
                | WriteOutcome::RefusedYetCommitted
                | WriteOutcome::RefusedByFormer => Effect::Answer(Ack::Not(WriteError::Refused)),
                WriteOutcome::NoLeader if cluster.chance.happens(500) => {
                    Effect::Answer(Ack::Again(no_leader(&stream)))
                }
                WriteOutcome::Nowhere | WriteOutcome::NoLeader => Effect::Nothing,
            }
        });
        let ack = match outcome.await {
            Ok(ack) => ack,
            Err(NoReply::NotSent) => Ack::Again(Error::unavailable("not connected")),
            Err(NoReply::Silence) => Ack::Not(WriteError::Unknown(Error::Timeout)),
        };
        let mut cluster = self.shared.lock();
        cluster.reached.barriers += u64::from(is_barrier);
        let acknowledged = matches!(ack, Ack::Stored(_));
        cluster.reached.barriers_that_waited += u64::from(is_barrier && !acknowledged);
        let unknown = matches!(ack, Ack::Not(WriteError::Unknown(_)));
        if expects && unknown {
            cluster.reached.unanswered_commits += 1;
            *cluster.doubts.entry(self.name.clone()).or_default() += 1;
        }
        ack
    }
}

fn count(cluster: &mut Cluster, written: WriteOutcome, arrival: Arrival, expects: bool) {
    let reached = &mut cluster.reached;
    match written {
        WriteOutcome::Refused => reached.refused += 1,
        WriteOutcome::RefusedByFormer => {
            reached.refused += 1;
            reached.refused_by_former_leaders += 1;
        }
        WriteOutcome::RefusedYetCommitted => reached.refused_yet_committed += 1,
        WriteOutcome::Committed(_) => reached.answers_lost += u64::from(arrival.unheard),
        WriteOutcome::Nowhere | WriteOutcome::NoLeader => {}
    }
    if arrival.late && expects {
        reached.late_writes += 1;
        reached.late_writes_refused += u64::from(written == WriteOutcome::Refused);
    }
}

fn shown(puts: &[Put]) -> String {
    let put = |put: &Put| {
        let removal = if put.removal { " removal" } else { "" };
        let expect = put.expect.map(|expect| format!(" over {expect}")).unwrap_or_default();
        format!("{}{removal}{expect}", put.key)
    };
    puts.iter().map(put).collect::<Vec<_>>().join(", ")
}

#[async_trait]
impl Servers for SimulatedServers {
    fn clock(&self) -> Clock {
        self.shared.lock().clock.beside()
    }

    fn fit(&self) -> Result<(), Error> {
        let older = self.shared.lock().older;
        if older { Err(Error::unavailable(server_version::too_old("the server"))) } else { Ok(()) }
    }

    async fn publish(&self, bucket: Bucket, put: &Put, deadline: Instant) -> Ack {
        self.store(bucket, std::slice::from_ref(put), deadline).await
    }

    async fn batch(&self, bucket: Bucket, puts: &[Put], deadline: Instant) -> Ack {
        self.store(bucket, puts, deadline).await
    }

    async fn read(&self, bucket: Bucket, filters: &[String], deadline: Instant) -> Reading {
        let (stream, name) = (self.stream(bucket), self.name.clone());
        let wanted = filters.to_vec();
        let what = || format!("reads {bucket}: {}", filters.join(", "));
        let outcome = self.exchange(deadline, what, move |cluster, Arrival { server, .. }| {
            let (answer, behind) = {
                let Some((group, servers, chance, _)) = cluster.group(&stream) else {
                    return Effect::Nothing;
                };
                let now = Instant::now();
                let Some((replica, behind)) = group.some_replica(server, now, servers, chance)
                else {
                    cluster.reached.reads_nobody_answered += 1;
                    // The server answers that the bucket has no leader, or does not answer, since
                    // servers may not know it.
                    return if cluster.chance.happens(500) {
                        Effect::Answer(Reading::Again(no_leader(&stream)))
                    } else {
                        Effect::Nothing
                    };
                };
                let answer = match replica.read(&wanted) {
                    None => Reading::TooMany,
                    Some(entries) if entries.is_empty() => {
                        Reading::Again(Error::unavailable("the replica has nothing yet"))
                    }
                    Some(entries) => Reading::State { up_to: replica.last(), entries },
                };
                (answer, behind)
            };
            cluster.reached.stale_reads += u64::from(behind);
            cluster.note(|| format!("{name} {stream}: {}", seen(&answer)));
            Effect::Answer(answer)
        });
        match outcome.await {
            Ok(reading) => reading,
            Err(NoReply::NotSent) => Reading::Again(Error::unavailable("not connected")),
            Err(NoReply::Silence) => Reading::Again(Error::Timeout),
        }
    }

    async fn purge(
        &self,
        bucket: Bucket,
        filter: &str,
        up_to: Option<u64>,
        deadline: Instant,
    ) -> Reply<()> {
        let stream = self.stream(bucket);
        let purged = filter.to_owned();
        let what = || format!("purges {bucket}: {filter} up to {up_to:?}");
        let outcome = self.exchange(deadline, what, move |cluster, Arrival { server, .. }| {
            let moment = cluster.next_moment();
            let Some((group, servers, chance, _)) = cluster.group(&stream) else {
                return Effect::Nothing;
            };
            let purge = (moment, LogEntry::Purge { filter: purged.clone(), up_to });
            match group.purge(server, purge, Instant::now(), servers, chance) {
                Some(()) => Effect::Answer(()),
                None => Effect::Nothing,
            }
        });
        replied(outcome.await)
    }

    async fn bucket(&self, bucket: Bucket, deadline: Instant) -> Reply<Option<BucketState>> {
        let stream = self.stream(bucket);
        let what = || format!("asks for {bucket}");
        let outcome = self.exchange(deadline, what, move |cluster, Arrival { server, .. }| {
            if !cluster.groups.contains_key(&stream) {
                let quorum = cluster.servers.quorum(server);
                return if quorum { Effect::Answer(None) } else { Effect::Nothing };
            }
            match cluster.group(&stream) {
                Some((group, servers, ..)) => match group.state(server, servers) {
                    Some(state) => Effect::Answer(Some(state)),
                    None => Effect::Nothing,
                },
                None => Effect::Nothing,
            }
        });
        replied(outcome.await)
    }

    async fn make_bucket(&self, bucket: Bucket, replicas: u8, deadline: Instant) -> Reply<()> {
        let settings = Settings::new(bucket, &self.prefix, replicas);
        let what = || format!("makes {bucket}");
        let outcome = self.exchange(deadline, what, move |cluster, Arrival { server, .. }| {
            match cluster.make(server, settings.clone()) {
                Some(()) => Effect::Answer(()),
                None => Effect::Nothing,
            }
        });
        replied(outcome.await)
    }

    async fn change_bucket(
        &self,
        bucket: Bucket,
        settings: &Settings,
        deadline: Instant,
    ) -> Reply<()> {
        let (stream, settings) = (self.stream(bucket), settings.clone());
        let what = || format!("changes {bucket}");
        let outcome = self.exchange(deadline, what, move |cluster, Arrival { server, .. }| {
            let Some((group, servers, chance, _)) = cluster.group(&stream) else {
                return Effect::Nothing;
            };
            if group.state(server, servers).is_none() {
                return Effect::Nothing;
            }
            group.resize(settings.clone(), Instant::now(), servers, chance);
            Effect::Answer(())
        });
        replied(outcome.await)
    }

    async fn consume(
        &self,
        bucket: Bucket,
        filters: &[String],
        from: u64,
        deadline: Instant,
    ) -> Reply<Box<dyn Deliveries>> {
        let (stream, shared) = (self.stream(bucket), Arc::clone(&self.shared));
        let wanted = filters.to_vec();
        let what = || format!("listens to {bucket} from {from} on");
        let outcome = self.exchange(deadline, what, move |cluster, Arrival { server, .. }| {
            let place = {
                let Some((group, servers, chance, _)) = cluster.group(&stream) else {
                    return Effect::Nothing;
                };
                group.some_place(server, servers, chance)
            };
            let Some(place) = place else { return Effect::Nothing };
            let (shared, stream) = (Arc::clone(&shared), stream.clone());
            let (at, wanted) = ([server, place], wanted.clone());
            let begun = SimulatedDeliveries::begin(shared, cluster, stream, at, wanted, from);
            Effect::Answer(begun)
        });
        match replied(outcome.await) {
            Reply::Done(deliveries) => Reply::Done(Box::new(deliveries)),
            Reply::Again(error) => Reply::Again(error),
            Reply::Not(error) => Reply::Not(error),
        }
    }

    async fn shut(&self, _by: Instant) {}
}

fn no_leader(stream: &str) -> Error {
    Error::unavailable(format!("stream {stream} has no leader that answers just now"))
}

fn replied<T>(outcome: Result<T, NoReply>) -> Reply<T> {
    match outcome {
        Ok(answer) => Reply::Done(answer),
        Err(NoReply::NotSent) => Reply::Again(Error::unavailable("not connected")),
        Err(NoReply::Silence) => Reply::Again(Error::Timeout),
    }
}

fn seen(reading: &Reading) -> String {
    match reading {
        Reading::State { up_to, entries } => {
            let entries = entries.iter().map(|entry| format!("{} {}", entry.sequence, entry.key));
            format!("up to {up_to}: {}", entries.collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}
