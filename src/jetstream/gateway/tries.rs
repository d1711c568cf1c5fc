//! Retries: which exchanges are tried again, and until when.

use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::Error;
use crate::jetstream::counters::Counters;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::{Pause, until_answered};
use crate::jetstream::gateway::bucket_settings::{BucketState, Settings};
use crate::jetstream::gateway::exchange::{
    Ack, Entry, FeedSink, Fresh, Passed, Put, ReadError, Reading, Reply, Servers, Snapshot,
    WriteError,
};
use crate::jetstream::gateway::feed;
use crate::jetstream::gateway::read_pace::ReadPace;
use crate::jetstream::stored::bucket::{Bucket, PerBucket};
use crate::jetstream::stored::{bucket_key, random_id};
use crate::mutation::Mutation;
use crate::trace::event;

/// The most publishes of one call in flight at once.
pub(in crate::jetstream) const WINDOW: usize = 512;
/// The most atomic batches that one client has in flight at once in a bucket. A server accepts 50 from all clients
/// together.
const BATCHES: usize = 16;
/// How many more times a read is sent while no replica has answered it.
const MORE: u32 = 4;

/// A client's way to its servers.
pub(in crate::jetstream) struct Gateway {
    servers: Arc<dyn Servers>,
    /// The deadline of one exchange. After it the exchange is tried again.
    attempt: Duration,
    batches: PerBucket<Semaphore>,
    /// The client's part of its barriers' keys.
    client: String,
    /// The number of its latest barrier, in any bucket.
    numbers: AtomicU64,
    /// The highest sequence acknowledged to this client, in each bucket.
    highest: PerBucket<AtomicU64>,
    replicated: Arc<Replicated>,
    paces: PerBucket<ReadPace>,
    counters: Counters,
    /// Why a feed has no consumer.
    trouble: feed::Trouble,
    /// Tasks that run until the gateway is shut or dropped.
    tasks: Mutex<JoinSet<()>>,
    mutation: Mutation<JetStreamDefect>,
}

/// Which buckets have more than one replica.
#[derive(Default)]
struct Replicated(PerBucket<AtomicBool>);

impl Replicated {
    fn is(&self, bucket: Bucket) -> bool {
        self.0.get(bucket).load(Ordering::Relaxed)
    }

    fn note(&self, bucket: Bucket, state: Option<&BucketState>) {
        if let Some(state) = state {
            self.0.get(bucket).store(state.status.replicas > 1, Ordering::Relaxed);
        }
    }
}

impl Gateway {
    /// Makes a way to these servers, for calls of at most `op_timeout`.
    pub(in crate::jetstream) fn new(
        servers: Arc<dyn Servers>,
        op_timeout: Duration,
        counters: Counters,
        mutation: Mutation<JetStreamDefect>,
    ) -> Result<Self, Error> {
        Ok(Self {
            servers,
            attempt: (op_timeout / 4).clamp(Duration::from_millis(25), Duration::from_secs(1)),
            batches: PerBucket::new(|_| Semaphore::new(BATCHES)),
            client: random_id::fresh()?,
            numbers: AtomicU64::new(0),
            highest: PerBucket::default(),
            replicated: Arc::default(),
            paces: PerBucket::default(),
            counters,
            trouble: feed::Trouble::default(),
            tasks: Mutex::default(),
            mutation,
        })
    }

    /// Fails if the servers are too old for the store.
    fn fit(&self) -> Result<(), Error> {
        if self.mutation.is(JetStreamDefect::IgnoresVersions) {
            return Ok(());
        }
        self.servers.fit()
    }

    /// Publishes a barrier until it is acknowledged. Everything that was acknowledged before this call began stands
    /// before the barrier.
    ///
    /// Fails if the barrier is acknowledged at or below a sequence that this client has seen. Then the servers lost
    /// messages, or were put back to an earlier state.
    pub(in crate::jetstream) async fn pass(
        &self,
        bucket: Bucket,
        deadline: Instant,
    ) -> Result<Passed, Error> {
        self.pass_behind(bucket, 0, None, deadline).await.map(|(passed, _)| passed)
    }

    /// As [`pass`](Self::pass), for a barrier in this lane. Also returns whether the bucket still held `previous` when it
    /// stored the barrier. `previous` is the sequence of the lane's newest barrier in the bucket.
    pub(in crate::jetstream) async fn pass_behind(
        &self,
        bucket: Bucket,
        lane: usize,
        mut previous: Option<u64>,
        deadline: Instant,
    ) -> Result<(Passed, bool), Error> {
        self.fit()?;
        let highest = self.highest.get(bucket);
        let mut pause = Pause::new(deadline);
        loop {
            // Each try gets another number. Only a message that was sent once can tell two histories apart.
            let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
            let before = highest.load(Ordering::Acquire);
            let expect = previous.take();
            let key = bucket_key::barrier(&self.client, lane);
            let put = Put::new(key, Bytes::from(number.to_string()));
            let put = Put { expect, ..put };
            let error = match self.servers.publish(bucket, &put, self.attempt_by(deadline)).await {
                Ack::Stored(sequence) if sequence > before => {
                    highest.fetch_max(sequence, Ordering::AcqRel);
                    return Ok((Passed { number, sequence }, expect.is_some()));
                }
                Ack::Stored(sequence) => {
                    highest.store(sequence, Ordering::Release);
                    return Err(went_back(bucket, before, sequence));
                }
                Ack::Again(error) | Ack::Not(WriteError::Unknown(error)) => error,
                Ack::Not(WriteError::Failed(error)) => return Err(error),
                // The previous barrier is gone, or another one replaced it. The next try expects nothing.
                Ack::Not(WriteError::Refused) if expect.is_some() => continue,
                Ack::Not(WriteError::Refused) => {
                    return Err(Error::unavailable(format!("{bucket} refused a barrier")));
                }
            };
            event!(exchange: debug, "a barrier is sent again", bucket, error);
            self.again(&mut pause, error).await?;
        }
    }

    /// Notes the sequence of an acknowledged write.
    fn saw(&self, bucket: Bucket, sequence: u64) {
        self.highest.get(bucket).fetch_max(sequence, Ordering::AcqRel);
    }

    /// This client's barriers among these messages: the newest of each lane.
    fn own_barriers(&self, entries: &[Entry]) -> impl Iterator<Item = Passed> {
        let own = |entry: &&Entry| bucket_key::is_barrier_of(&entry.key, &self.client);
        entries.iter().filter(own).filter_map(|entry| {
            Some(Passed { number: barrier_number(entry)?, sequence: entry.sequence })
        })
    }

    /// Returns the deadline of one exchange, for a call with this deadline.
    fn attempt_by(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.attempt)
    }

    /// Stores one message, and returns its sequence once a quorum has it. A message without an expectation is sent
    /// again until it is acknowledged. That is safe, since no other client writes its key, or its content does not
    /// matter.
    pub(in crate::jetstream) async fn publish(
        &self,
        bucket: Bucket,
        put: Put,
        deadline: Instant,
    ) -> Result<u64, WriteError> {
        let mut pause = Pause::new(deadline);
        loop {
            self.fit().map_err(WriteError::Failed)?;
            let error = match self.servers.publish(bucket, &put, self.attempt_by(deadline)).await {
                Ack::Stored(sequence) => {
                    self.saw(bucket, sequence);
                    return Ok(sequence);
                }
                Ack::Not(WriteError::Unknown(error)) if put.expect.is_none() => error,
                Ack::Not(error) => return Err(error),
                Ack::Again(error) => error,
            };
            event!(exchange: debug, "a message is sent again", bucket, error);
            self.again(&mut pause, error).await.map_err(WriteError::Unknown)?;
        }
    }

    /// Stores many messages without expectations, many at once, in any order. Returns their sequences in any order.
    pub(in crate::jetstream) async fn publish_all(
        &self,
        bucket: Bucket,
        puts: Vec<Put>,
        deadline: Instant,
    ) -> Result<Vec<u64>, Error> {
        let mut sequences = Vec::with_capacity(puts.len());
        let mut puts = puts.into_iter();
        let mut flying = FuturesUnordered::new();
        loop {
            while flying.len() < WINDOW
                && let Some(put) = puts.next()
            {
                flying.push(self.publish(bucket, put, deadline));
            }
            match flying.next().await {
                None => return Ok(sequences),
                Some(Ok(sequence)) => sequences.push(sequence),
                Some(Err(WriteError::Unknown(error) | WriteError::Failed(error))) => {
                    return Err(error);
                }
                Some(Err(WriteError::Refused)) => {
                    let error = format!("{bucket} refused a write that expects nothing");
                    return Err(Error::unavailable(error));
                }
            }
        }
    }

    /// Stores up to [`MAX_BATCH`](crate::jetstream::gateway::exchange::MAX_BATCH) messages atomically: all or none of
    /// them, at one moment for all readers. Returns the sequence of the last one.
    pub(in crate::jetstream) async fn batch(
        &self,
        bucket: Bucket,
        puts: Vec<Put>,
        deadline: Instant,
    ) -> Result<u64, WriteError> {
        let too_late = |_| WriteError::Failed(Error::Timeout);
        let permit =
            timeout_at(deadline, self.batches.get(bucket).acquire()).await.map_err(too_late)?;
        let _permit = permit.map_err(|_| WriteError::Failed(Error::Closed))?;
        let mut pause = Pause::new(deadline);
        loop {
            self.fit().map_err(WriteError::Failed)?;
            match self.servers.batch(bucket, &puts, self.attempt_by(deadline)).await {
                Ack::Stored(sequence) => {
                    self.saw(bucket, sequence);
                    return Ok(sequence);
                }
                Ack::Not(error) => return Err(error),
                Ack::Again(error) => {
                    event!(exchange: debug, "a batch is sent again", bucket, error);
                    self.again(&mut pause, error).await.map_err(WriteError::Failed)?;
                }
            }
        }
    }

    /// Reads the newest message of every key that matches a filter, all of one state that is as fresh as `fresh`
    /// demands.
    ///
    /// Returns `Late` even before the deadline if only another barrier can help.
    pub(in crate::jetstream) async fn read(
        &self,
        bucket: Bucket,
        filters: &[String],
        fresh: Fresh,
        deadline: Instant,
    ) -> Result<Snapshot, ReadError> {
        self.fit().map_err(ReadError::Failed)?;
        // The filters include a key that exists. If nothing matched, the replica would not say how fresh its state is.
        let proof = match fresh {
            Fresh::Barrier(_) => bucket_key::barriers(&self.client),
            Fresh::Whatever | Fresh::Since(_) => bucket_key::FORMAT.to_owned(),
        };
        let proof = (!filters.contains(&proof)).then_some(proof);
        let wanted: Vec<String> = filters.iter().chain(&proof).cloned().collect();
        let mut pause = Pause::new(deadline);
        // Every replica that gets the request may hang. So the first tries are short, since the next try may reach
        // another replica. The last tries are long, for reads that take long.
        let mut patience = self.attempt / 4;
        loop {
            let until = deadline.min(Instant::now() + patience);
            patience = (patience * 2).min(self.attempt);
            let error = match self.read_once(bucket, &wanted, until).await {
                Reading::State { up_to, mut entries } if self.is_fresh(fresh, up_to, &entries) => {
                    entries.retain(|entry| {
                        !bucket_key::is_barrier(&entry.key) && Some(&*entry.key) != proof.as_deref()
                    });
                    return Ok(Snapshot { entries });
                }
                Reading::State { entries, .. } => {
                    self.counters.stale_reply();
                    event!(exchange: debug, "a stale reply is refused", bucket);
                    if self.is_overtaken(fresh, &entries) {
                        let problem = format!("{bucket}: an earlier barrier came after this one");
                        return Err(ReadError::Late(Error::unavailable(problem)));
                    }
                    Error::unavailable(format!("{bucket}: the replica that answered is behind"))
                }
                Reading::TooMany => return Err(ReadError::TooMany),
                Reading::Again(error) => error,
                Reading::Not(error) => return Err(ReadError::Failed(error)),
            };
            event!(exchange: debug, "a read is tried again", bucket, error);
            self.again(&mut pause, error).await.map_err(ReadError::Late)?;
        }
    }

    /// Reads from any replica. If it does not answer in the usual time, the request is sent again, to any replica, and
    /// the first answer counts.
    async fn read_once(&self, bucket: Bucket, wanted: &[String], until: Instant) -> Reading {
        let pace = self.paces.get(bucket);
        let ask = || async {
            let sent = Instant::now();
            (self.servers.read(bucket, wanted, until).await, sent.elapsed())
        };
        let mut asked: FuturesUnordered<_> = iter::once(ask()).collect();
        let mut late = pace.late(wanted);
        let mut more = if self.replicated.is(bucket) { MORE } else { 0 };
        loop {
            tokio::select! {
                biased;
                Some((reading, took)) = asked.next() => match reading {
                    Reading::Again(_) if !asked.is_empty() => {}
                    reading => {
                        if matches!(reading, Reading::State { .. }) {
                            pace.took(wanted, took);
                        }
                        return reading;
                    }
                },
                () = sleep(late), if more > 0 => {
                    event!(exchange: debug, "a read is late: another replica is asked", bucket);
                    self.counters.retry();
                    (more, late) = (more - 1, late * 2);
                    asked.push(ask());
                }
            }
        }
    }

    /// Whether a state with this last sequence and these messages is fresh enough.
    fn is_fresh(&self, fresh: Fresh, up_to: u64, entries: &[Entry]) -> bool {
        match fresh {
            Fresh::Whatever => true,
            Fresh::Since(sequence) => up_to >= sequence,
            // A later barrier of this client counts, too: it may have replaced this one.
            Fresh::Barrier(passed) => {
                self.own_barriers(entries).any(|newest| newest.covers(passed))
            }
        }
    }

    /// Whether an earlier barrier of this client was stored after the wanted barrier and replaced it. Then no replica
    /// can show the wanted barrier any more.
    fn is_overtaken(&self, fresh: Fresh, entries: &[Entry]) -> bool {
        let Fresh::Barrier(passed) = fresh else { return false };
        // The state has a message after this barrier, so it would have this one.
        self.own_barriers(entries).any(|newest| newest.sequence > passed.sequence)
    }

    /// How long a read waits for a state that contains its barrier before it sends another barrier.
    pub(in crate::jetstream) fn patience(&self) -> Duration {
        self.attempt * 2
    }

    /// Purges the messages under the filter up to the sequence `up_to`.
    pub(in crate::jetstream) async fn purge(
        &self,
        bucket: Bucket,
        filter: &str,
        up_to: Option<u64>,
        deadline: Instant,
    ) -> Result<(), Error> {
        event!(garbage: debug, "purge", bucket, filter);
        self.ask(deadline, |deadline| self.servers.purge(bucket, filter, up_to, deadline)).await
    }

    /// Runs a feed: keeps `sink` up to date with the bucket's keys that match the filter `keys`, and with this client's
    /// barriers, until the gateway is shut. Returns a [`Notify`] that asks the feed for another consumer.
    pub(in crate::jetstream) fn feed(
        &self,
        bucket: Bucket,
        keys: &str,
        sink: Arc<dyn FeedSink>,
    ) -> Arc<Notify> {
        let kick = Arc::new(Notify::new());
        let (servers, attempt) = (Arc::clone(&self.servers), self.attempt);
        let (mutation, trouble) = (self.mutation, self.trouble.clone());
        let told = Arc::clone(&kick);
        let filters = [keys.to_owned(), bucket_key::barriers(&self.client)];
        let feed = feed::Feed { servers, bucket, filters, attempt, kick: told, trouble, mutation };
        self.keep(feed.keep(sink));
        kick
    }

    /// Returns `error`, or, if it is a missing answer and a reason is known, that reason.
    pub(in crate::jetstream) fn explain(&self, error: Error) -> Error {
        match error {
            Error::Timeout => {
                self.servers.reason().or_else(|| self.trouble.get()).unwrap_or(Error::Timeout)
            }
            error => error,
        }
    }

    /// Runs a task until the gateway is shut or dropped.
    fn keep(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(work);
    }

    /// Passes every bucket's state to `seen` once in each interval, until the gateway is shut or dropped. Skips buckets
    /// for which the servers do not answer.
    pub(in crate::jetstream) fn look_on(
        &self,
        period: Duration,
        seen: impl Fn(Bucket, Option<BucketState>) + Send + 'static,
    ) {
        // The task has a weak reference. Otherwise it would keep the gateway alive for ever.
        let (servers, attempt) = (Arc::clone(&self.servers), self.attempt);
        let replicated = Arc::clone(&self.replicated);
        self.keep(async move {
            loop {
                for bucket in Bucket::ALL {
                    tokio::time::sleep(period / 5).await;
                    let soon = Instant::now() + attempt;
                    if let Reply::Done(state) = servers.bucket(bucket, soon).await {
                        replicated.note(bucket, state.as_ref());
                        seen(bucket, state);
                    }
                }
            }
        });
    }

    /// The bucket's settings and replicas; `None` if there is no such bucket.
    pub(in crate::jetstream) async fn bucket(
        &self,
        bucket: Bucket,
        deadline: Instant,
    ) -> Result<Option<BucketState>, Error> {
        let state = self.ask(deadline, |deadline| self.servers.bucket(bucket, deadline)).await?;
        self.replicated.note(bucket, state.as_ref());
        Ok(state)
    }

    /// Makes the bucket, unless another client just did.
    pub(in crate::jetstream) async fn make_bucket(
        &self,
        bucket: Bucket,
        replicas: u8,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.ask(deadline, |deadline| self.servers.make_bucket(bucket, replicas, deadline)).await
    }

    /// Changes the bucket's settings.
    pub(in crate::jetstream) async fn change_bucket(
        &self,
        bucket: Bucket,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.ask(deadline, |deadline| self.servers.change_bucket(bucket, settings, deadline)).await
    }

    /// Changes the number of servers that keep the bucket.
    pub(in crate::jetstream) async fn set_replicas(
        &self,
        bucket: Bucket,
        replicas: u8,
        deadline: Instant,
    ) -> Result<(), Error> {
        let missing = || Error::unavailable(format!("there is no bucket {bucket} any more"));
        let mut settings = self.bucket(bucket, deadline).await?.ok_or_else(missing)?.settings;
        if settings.num_replicas == replicas {
            return Ok(());
        }
        settings.num_replicas = replicas;
        self.change_bucket(bucket, &settings, deadline).await
    }

    /// Sends pending messages until the deadline, and closes the connection.
    pub(in crate::jetstream) async fn shut(&self, deadline: Instant) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.servers.shut(deadline).await;
    }

    async fn again(&self, pause: &mut Pause, error: Error) -> Result<(), Error> {
        self.counters.retry();
        pause.after(error).await
    }

    async fn ask<T, F>(
        &self,
        deadline: Instant,
        exchange: impl Fn(Instant) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Reply<T>>,
    {
        until_answered(self.attempt, deadline, exchange).await
    }
}

/// The number in a barrier.
pub(in crate::jetstream) fn barrier_number(entry: &Entry) -> Option<u64> {
    std::str::from_utf8(&entry.value).ok()?.parse().ok()
}

fn went_back(bucket: Bucket, before: u64, sequence: u64) -> Error {
    event!(bucket: warn, "the bucket went back", bucket, before, now = sequence);
    Error::unavailable(format!(
        "the bucket {bucket} went back: what it acknowledged as number {before} is lost, and number \
         {sequence} is another message; its servers were restored from an earlier state, or lost power \
         without sync_interval: always"
    ))
}
