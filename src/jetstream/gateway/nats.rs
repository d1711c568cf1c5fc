use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::bucket::{Bucket, PerBucket};
use crate::jetstream::config::JetStreamConfig;
use crate::jetstream::gateway::api::{MultiLast, Plain, Purge, Settings, StreamInfo};
use crate::jetstream::gateway::mux::{Mux, Waiting};
use crate::jetstream::gateway::wire::{self, Ack, ApiError};
use crate::jetstream::gateway::{
    BucketState, Entry, FeedSink, Gateway, Put, ReadError, Snapshot, WriteError, connect, feed,
};
use crate::jetstream::key;

/// Publishes of one call in flight at once.
const WINDOW: usize = 512;
/// Atomic batches of one client in flight at once in a bucket; a server takes 50 from all.
const BATCHES: usize = 16;
/// Unanswered exchanges in a row, with none answered meanwhile, after which another server is
/// tried.
const PATIENCE: u32 = 6;

/// A connection to real servers.
pub(in crate::jetstream) struct NatsGateway {
    link: Arc<Link>,
    prefix: String,
    batches: PerBucket<Semaphore>,
    /// What runs until the gateway is dropped.
    tasks: Mutex<JoinSet<()>>,
}

/// What is needed to ask a server something.
pub(super) struct Link {
    pub(super) client: Client,
    mux: Arc<Mux>,
    /// Told when the connection is lost.
    pub(super) lost: Arc<Notify>,
    /// How long one exchange may take before it is tried again.
    attempt: Duration,
    /// Exchanges in a row that were not answered.
    silent: AtomicU32,
    #[cfg(feature = "testing")]
    fuse: super::super::testing::Fuse,
}

/// Why there is no answer to an exchange.
enum NoAnswer {
    /// It was sent, and may have been heard.
    Silence,
    /// It was never sent.
    NotSent(Error),
}

impl NatsGateway {
    pub(in crate::jetstream) async fn connect(
        config: &JetStreamConfig,
        by: Instant,
    ) -> Result<Self, Error> {
        let mux = Mux::new(format!("_INBOX.{}", key::fresh()?));
        let lost = Arc::new(Notify::new());
        let client = connect::connect(config, Arc::clone(&mux), Arc::clone(&lost), by).await?;
        let mut answers = client
            .subscribe(mux.subject())
            .await
            .map_err(|error| Error::unavailable(format!("cannot subscribe: {error}")))?;
        let mut tasks = JoinSet::new();
        let sorted = Arc::clone(&mux);
        tasks.spawn(async move {
            while let Some(message) = answers.next().await {
                sorted.deliver(message);
            }
            sorted.lose_all();
        });
        let attempt =
            (config.op_timeout / 4).clamp(Duration::from_millis(25), Duration::from_secs(1));
        let link = Link {
            client,
            mux,
            lost,
            attempt,
            silent: AtomicU32::new(0),
            #[cfg(feature = "testing")]
            fuse: super::super::testing::Fuse::default(),
        };
        Ok(Self {
            link: Arc::new(link),
            prefix: config.prefix.clone(),
            batches: PerBucket::new(|_| Semaphore::new(BATCHES)),
            tasks: Mutex::new(tasks),
        })
    }

    /// The version of the server we are connected to.
    pub(in crate::jetstream) fn server_version(&self) -> String {
        self.link.client.server_info().version
    }

    #[cfg(feature = "testing")]
    pub(in crate::jetstream) fn fuse(&self) -> &super::super::testing::Fuse {
        &self.link.fuse
    }

    fn stream(&self, bucket: Bucket) -> String {
        format!("KV_{}{bucket}", self.prefix)
    }

    fn subject(&self, bucket: Bucket, key: &str) -> String {
        format!("$KV.{}{bucket}.{key}", self.prefix)
    }

    /// One try to publish.
    async fn publish_once(&self, bucket: Bucket, put: &Put, by: Instant) -> Ack {
        let subject = self.subject(bucket, &put.key);
        let (headers, value) = (wire::headers(put), put.value.clone());
        match self.link.ask(subject, Some(headers), value, by).await {
            Ok(message) => wire::ack(&self.stream(bucket), &message),
            Err(NoAnswer::Silence) => Ack::Not(WriteError::Unknown(Error::Timeout)),
            Err(NoAnswer::NotSent(error)) => Ack::Again(error),
        }
    }

    /// One try to publish a batch: all messages are sent at once, the last one's answer is that
    /// of the batch.
    async fn batch_once(&self, bucket: Bucket, puts: &[Put], by: Instant) -> Ack {
        let id = match key::fresh() {
            Ok(id) => id,
            Err(error) => return Ack::Not(WriteError::Failed(error)),
        };
        let mut last = None;
        for (n, put) in puts.iter().enumerate() {
            let mut headers = wire::headers(put);
            headers.insert(wire::BATCH_ID, id.as_str());
            headers.insert(wire::BATCH_SEQUENCE, (n + 1).to_string());
            let commits = n + 1 == puts.len();
            if commits {
                headers.insert(wire::BATCH_COMMIT, "1");
            }
            let subject = self.subject(bucket, &put.key);
            let sent = if commits {
                let waiting = self.link.mux.one();
                let reply = waiting.reply.clone();
                last = Some(waiting);
                self.link.send(subject, Some(reply), Some(headers), put.value.clone(), by).await
            } else {
                self.link.send(subject, None, Some(headers), put.value.clone(), by).await
            };
            // The message that commits was not sent, so nothing of the batch counts.
            if let Err(error) = sent {
                return Ack::Again(error);
            }
        }
        let Some(waiting) = last else {
            return Ack::Not(WriteError::Failed(Error::unavailable("an empty batch")));
        };
        match self.link.answer(waiting, by).await {
            Some(message) => wire::ack(&self.stream(bucket), &message),
            None => Ack::Not(WriteError::Unknown(Error::Timeout)),
        }
    }

    /// Asks JetStream's administration until it answers.
    async fn administer<T: DeserializeOwned>(
        &self,
        what: &str,
        request: &impl Serialize,
        by: Instant,
    ) -> Result<T, Error> {
        let payload = serde_json::to_vec(request)
            .map_err(|error| Error::unavailable(format!("cannot encode a request: {error}")))?;
        self.link.administer(what, payload.into(), by).await
    }
}

impl Link {
    /// Hands a message to the connection.
    async fn send(
        &self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Bytes,
        by: Instant,
    ) -> Result<(), Error> {
        #[cfg(feature = "testing")]
        self.fuse.burn()?;
        let headers = headers.filter(|headers| !headers.is_empty());
        let client = &self.client;
        let sent = async {
            match (reply, headers) {
                (Some(reply), Some(headers)) => {
                    client.publish_with_reply_and_headers(subject, reply, headers, payload).await
                }
                (Some(reply), None) => client.publish_with_reply(subject, reply, payload).await,
                (None, Some(headers)) => {
                    client.publish_with_headers(subject, headers, payload).await
                }
                (None, None) => client.publish(subject, payload).await,
            }
        };
        match timeout_at(self.attempt_by(by), sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::unavailable(format!("cannot publish: {error}"))),
            Err(_) => Err(Error::unavailable("the connection takes no more messages just now")),
        }
    }

    async fn ask(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        by: Instant,
    ) -> Result<Message, NoAnswer> {
        let waiting = self.mux.one();
        let reply = Some(waiting.reply.clone());
        self.send(subject, reply, headers, payload, by).await.map_err(NoAnswer::NotSent)?;
        self.answer(waiting, by).await.ok_or(NoAnswer::Silence)
    }

    async fn answer<T>(&self, mut waiting: Waiting<T>, by: Instant) -> Option<T> {
        if let Ok(Some(answer)) = timeout_at(self.attempt_by(by), waiting.answer()).await {
            self.silent.store(0, Ordering::Relaxed);
            return Some(answer);
        }
        if self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= PATIENCE {
            self.silent.store(0, Ordering::Relaxed);
            // The server may be cut off from its cluster, or the connection half open: another
            // one may be better. Where it is not, nothing is lost.
            let _ = timeout_at(by, self.client.force_reconnect()).await;
        }
        None
    }

    fn attempt_by(&self, by: Instant) -> Instant {
        by.min(Instant::now() + self.attempt)
    }

    pub(super) async fn administer<T: DeserializeOwned>(
        &self,
        what: &str,
        payload: Bytes,
        by: Instant,
    ) -> Result<T, Error> {
        let mut pause = Pause::new(by);
        loop {
            let subject = format!("$JS.API.{what}");
            let error = match self.ask(subject, None, payload.clone(), by).await {
                Ok(message) if wire::status(&message) == Some(503) => {
                    Error::unavailable("JetStream is not enabled, or not ready, on the server")
                }
                Ok(message) => match serde_json::from_slice::<T>(&message.payload) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        Error::unavailable(format!("the answer to {what} cannot be read: {error}"))
                    }
                },
                Err(NoAnswer::Silence) => Error::Timeout,
                Err(NoAnswer::NotSent(error)) => error,
            };
            pause.after(error).await?;
        }
    }
}

/// The wait between two tries: short at first, never past the deadline.
pub(in crate::jetstream) struct Pause {
    by: Instant,
    next: Duration,
    /// What went wrong last that says more than "too late".
    said: Option<Error>,
}

impl Pause {
    pub(in crate::jetstream) fn new(by: Instant) -> Self {
        Self { by, next: Duration::from_millis(1), said: None }
    }

    /// Waits; past the deadline, fails with the error that says most.
    pub(in crate::jetstream) async fn after(&mut self, error: Error) -> Result<(), Error> {
        if error != Error::Timeout {
            self.said = Some(error);
        }
        let until = Instant::now() + self.next;
        self.next = (self.next * 2).min(Duration::from_millis(50));
        if until >= self.by {
            tokio::time::sleep_until(self.by).await;
            return Err(self.said.take().unwrap_or(Error::Timeout));
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }
}

fn api_error(what: &str, error: &ApiError) -> Error {
    let text = format!("{what}: {} ({})", error.description, error.err_code);
    match error.err_code {
        code if wire::NOT_ENABLED.contains(&code) => Error::unavailable(format!(
            "{text}; start the server with JetStream (-js), or enable it for this account"
        )),
        wire::NOT_CLUSTERED | wire::NO_PEERS => {
            let problem = format!("are more than the servers there are ({text})");
            Invalid::new("replicas", problem).into()
        }
        _ => Error::unavailable(text),
    }
}

/// Whether it may help to ask again.
fn passing(error: &ApiError) -> bool {
    error.code == 503 && !wire::NOT_ENABLED.contains(&error.err_code)
}

#[async_trait]
impl Gateway for NatsGateway {
    async fn publish(&self, bucket: Bucket, put: Put, by: Instant) -> Result<u64, WriteError> {
        let mut pause = Pause::new(by);
        loop {
            let error = match self.publish_once(bucket, &put, by).await {
                Ack::Stored(sequence) => return Ok(sequence),
                Ack::Not(WriteError::Unknown(error)) if put.expect.is_none() => error,
                Ack::Not(error) => return Err(error),
                Ack::Again(error) => error,
            };
            pause.after(error).await.map_err(WriteError::Unknown)?;
        }
    }

    async fn publish_all(&self, bucket: Bucket, puts: Vec<Put>, by: Instant) -> Result<(), Error> {
        let mut puts = puts.into_iter();
        let mut flying = FuturesUnordered::new();
        loop {
            while flying.len() < WINDOW
                && let Some(put) = puts.next()
            {
                flying.push(self.publish(bucket, put, by));
            }
            match flying.next().await {
                None => return Ok(()),
                Some(Ok(_)) => {}
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

    async fn batch(&self, bucket: Bucket, puts: Vec<Put>, by: Instant) -> Result<u64, WriteError> {
        let too_late = |_| WriteError::Failed(Error::Timeout);
        let permit = timeout_at(by, self.batches.get(bucket).acquire()).await.map_err(too_late)?;
        let _permit = permit.map_err(|_| WriteError::Failed(Error::Closed))?;
        let mut pause = Pause::new(by);
        loop {
            match self.batch_once(bucket, &puts, by).await {
                Ack::Stored(sequence) => return Ok(sequence),
                Ack::Not(error) => return Err(error),
                Ack::Again(error) => pause.after(error).await.map_err(WriteError::Failed)?,
            }
        }
    }

    async fn read(
        &self,
        bucket: Bucket,
        filters: &[String],
        at_least: u64,
        by: Instant,
    ) -> Result<Snapshot, ReadError> {
        let stream = self.stream(bucket);
        let prefix = self.subject(bucket, "");
        // The barrier's own key is always there: without a match there would be no sequence.
        let subjects: Vec<String> = filters
            .iter()
            .map(String::as_str)
            .chain([key::BARRIER])
            .map(|key| format!("{prefix}{key}"))
            .collect();
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        let request = serde_json::to_vec(&MultiLast { multi_last: &subjects })
            .map_err(|error| ReadError::Failed(Error::unavailable(error.to_string())))?;
        let request = Bytes::from(request);
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let mut pause = Pause::new(by);
        loop {
            let waiting = self.link.mux.many();
            let (reply, request) = (Some(waiting.reply.clone()), request.clone());
            let error = match self.link.send(subject.clone(), reply, None, request, by).await {
                Err(error) => error,
                Ok(()) => match self.link.answer(waiting, by).await {
                    None => Error::Timeout,
                    Some(messages) => match snapshot(&stream, &prefix, messages, at_least) {
                        Answer::Proved(snapshot) => return Ok(snapshot),
                        Answer::TooMany => return Err(ReadError::TooMany),
                        Answer::Again(error) => error,
                    },
                },
            };
            pause.after(error).await.map_err(ReadError::Failed)?;
        }
    }

    async fn purge(
        &self,
        bucket: Bucket,
        filter: &str,
        up_to: Option<u64>,
        by: Instant,
    ) -> Result<(), Error> {
        let what = format!("STREAM.PURGE.{}", self.stream(bucket));
        let filter = self.subject(bucket, filter);
        let request = Purge { filter: &filter, seq: up_to.map(|sequence| sequence + 1) };
        let mut pause = Pause::new(by);
        loop {
            match self.administer::<Plain>(&what, &request, by).await?.error {
                None => return Ok(()),
                Some(error) if passing(&error) => pause.after(api_error(&what, &error)).await?,
                Some(error) => return Err(api_error(&what, &error)),
            }
        }
    }

    fn feed(&self, bucket: Bucket, sink: Arc<dyn FeedSink>) -> Arc<Notify> {
        let kick = Arc::new(Notify::new());
        let feed = feed::Feed {
            link: Arc::clone(&self.link),
            stream: self.stream(bucket),
            prefix: self.subject(bucket, ""),
            kick: Arc::clone(&kick),
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(feed.keep(sink));
        kick
    }

    async fn bucket(&self, bucket: Bucket, by: Instant) -> Result<Option<BucketState>, Error> {
        let what = format!("STREAM.INFO.{}", self.stream(bucket));
        let mut pause = Pause::new(by);
        loop {
            let info = self.link.administer::<StreamInfo>(&what, Bytes::new(), by).await?;
            match &info.error {
                Some(error) if error.err_code == wire::STREAM_NOT_FOUND => return Ok(None),
                Some(error) if passing(error) => pause.after(api_error(&what, error)).await?,
                Some(error) => return Err(api_error(&what, error)),
                None => {
                    let error = || Error::unavailable(format!("the answer to {what} says nothing"));
                    return info.state().ok_or_else(error).map(Some);
                }
            }
        }
    }

    async fn make_bucket(&self, bucket: Bucket, replicas: u8, by: Instant) -> Result<(), Error> {
        let what = format!("STREAM.CREATE.{}", self.stream(bucket));
        let settings = Settings::new(self.stream(bucket), self.subject(bucket, ">"), replicas);
        let mut pause = Pause::new(by);
        loop {
            match self.administer::<Plain>(&what, &settings, by).await?.error {
                None => return Ok(()),
                Some(error) if error.err_code == wire::STREAM_EXISTS => return Ok(()),
                Some(error) if passing(&error) => pause.after(api_error(&what, &error)).await?,
                Some(error) => return Err(api_error(&what, &error)),
            }
        }
    }

    async fn set_replicas(&self, bucket: Bucket, replicas: u8, by: Instant) -> Result<(), Error> {
        let what = format!("STREAM.UPDATE.{}", self.stream(bucket));
        let missing = || Error::unavailable(format!("there is no bucket {bucket} any more"));
        let mut settings = self.bucket(bucket, by).await?.ok_or_else(missing)?.settings;
        if settings.num_replicas == replicas {
            return Ok(());
        }
        settings.num_replicas = replicas;
        let mut pause = Pause::new(by);
        loop {
            match self.administer::<Plain>(&what, &settings, by).await?.error {
                None => return Ok(()),
                Some(error) if passing(&error) => pause.after(api_error(&what, &error)).await?,
                Some(error) => return Err(api_error(&what, &error)),
            }
        }
    }

    async fn shut(&self, by: Instant) {
        let _ = timeout_at(by, self.link.client.flush()).await;
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        let _ = timeout_at(by, self.link.client.drain()).await;
    }
}

enum Answer {
    Proved(Snapshot),
    TooMany,
    Again(Error),
}

/// Reads the messages of one answer: everything that matches, then how fresh it is.
fn snapshot(stream: &str, prefix: &str, mut messages: Vec<Message>, at_least: u64) -> Answer {
    let again = |problem: &str| Answer::Again(Error::unavailable(format!("{stream}: {problem}")));
    let Some(end) = messages.pop() else { return again("an empty answer") };
    match (wire::status(&end), wire::number(&end, wire::UP_TO)) {
        (Some(204), Some(up_to)) if up_to >= at_least => {
            if wire::number(&end, wire::PENDING) != Some(0) {
                return Answer::TooMany;
            }
        }
        (Some(204), _) => return again("the replica that answered is behind"),
        (Some(413), _) => return Answer::TooMany,
        (Some(404), _) => return again("the replica that answered has nothing yet"),
        (Some(503), _) => return Answer::Again(wire::no_leader(stream)),
        (status, _) => return again(&format!("an answer with the status {status:?}")),
    }
    let mut entries = Vec::with_capacity(messages.len());
    for message in messages {
        let key = wire::header(&message, wire::SUBJECT).and_then(|s| s.strip_prefix(prefix));
        let (Some(key), Some(sequence)) = (key, wire::number(&message, wire::SEQUENCE)) else {
            return again("a message without subject or sequence");
        };
        if key == key::BARRIER {
            continue;
        }
        let (key, removal) = (key.to_owned(), wire::is_removal(&message));
        entries.push(Entry { key, sequence, removal, value: message.payload });
    }
    Answer::Proved(Snapshot { entries })
}
