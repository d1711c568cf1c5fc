//! Real servers: NATS with JetStream, through the driver.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, Message};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::config::JetStreamConfig;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::api::{MultiLast, Plain, Purge, Settings, StreamInfo};
use crate::jetstream::gateway::complaint::Complaint;
use crate::jetstream::gateway::consumer::NatsDeliveries;
use crate::jetstream::gateway::mux::{Listing, Mux, Waiting};
use crate::jetstream::gateway::wire::{self, ApiError};
use crate::jetstream::gateway::{
    Ack, BucketState, Deliveries, Pause, Put, Reading, Reply, Servers, WriteError, connect,
};
use crate::jetstream::provision;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::random_id;
use crate::mutation::Mutation;

/// A connection to real servers.
pub(in crate::jetstream) struct NatsServers {
    link: Arc<Link>,
    prefix: String,
    /// The beginning of the subjects that we publish to, before the `$KV.` of the stored subject.
    publish_prefix: String,
    /// The most bytes of a new bucket.
    bucket_max_bytes: Option<u64>,
    complaint: Complaint,
    /// For how long a server's complaint may explain a missing answer.
    memory: Duration,
    /// Tasks that run until the connection is dropped.
    tasks: Mutex<JoinSet<()>>,
}

/// The parts of a connection that requests need.
pub(super) struct Link {
    pub(super) client: Client,
    mux: Arc<Mux>,
    /// The beginning of the subjects of JetStream's API.
    api_prefix: String,
    /// The beginning of the subjects of answers and deliveries.
    pub(super) inbox_prefix: String,
    /// Notified when the connection is lost.
    pub(super) lost: Arc<Notify>,
    /// Since when publishes have got no acknowledgement: milliseconds since `began`, 0 if they get them.
    unwell: AtomicU64,
    began: Instant,
    /// How long publishes may get none before the client tries another server.
    patience: Duration,
    fitness: Fitness,
    mutation: Mutation<JetStreamDefect>,
}

/// Whether the servers are new enough, checked with every connection: a server may be put back to an older version while
/// clients run.
#[derive(Default)]
struct Fitness {
    /// The number of the connection whose version was checked, from 1.
    looked: AtomicU64,
    /// Whether that version is too old.
    too_old: AtomicBool,
    /// Whether a batch was stored message by message since: then the bucket's leader is too old.
    led_by_an_older: AtomicBool,
}

impl Fitness {
    fn led_by_an_older(&self) {
        self.led_by_an_older.store(true, Ordering::SeqCst);
    }

    fn check(&self, client: &Client) -> Result<(), Error> {
        let connection = client.statistics().connects.load(Ordering::SeqCst);
        if self.looked.load(Ordering::SeqCst) != connection {
            let old = provision::check_version(&client.server_info().version).is_err();
            self.too_old.store(old, Ordering::SeqCst);
            self.led_by_an_older.store(false, Ordering::SeqCst);
            self.looked.store(connection, Ordering::SeqCst);
        }
        if self.too_old.load(Ordering::SeqCst) {
            return provision::check_version(&client.server_info().version)
                .map_err(|error| Error::unavailable(error.to_string()));
        }
        if self.led_by_an_older.load(Ordering::SeqCst) {
            return Err(Error::unavailable(provision::too_old("a server of the cluster")));
        }
        Ok(())
    }
}

/// Why an exchange got no answer.
enum NoAnswer {
    /// The request was sent, and may have been received.
    Silence,
    /// The request was not sent.
    NotSent(Unsent),
}

/// Why a message was not sent.
enum Unsent {
    /// The connection accepts no message now.
    Now(Error),
    /// The server accepts no message of this size.
    Ever(Error),
}

impl From<Unsent> for Ack {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Now(error) => Self::Again(error),
            Unsent::Ever(error) => Self::Not(WriteError::Failed(error)),
        }
    }
}

impl From<Unsent> for Reading {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Now(error) => Self::Again(error),
            Unsent::Ever(error) => Self::Not(error),
        }
    }
}

impl<T> From<Unsent> for Reply<T> {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Now(error) => Self::Again(error),
            Unsent::Ever(error) => Self::Not(error),
        }
    }
}

impl NatsServers {
    pub(in crate::jetstream) async fn connect(
        config: &JetStreamConfig,
        mutation: Mutation<JetStreamDefect>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let inbox_prefix = config.inbox_prefix.as_deref().unwrap_or("_INBOX").to_owned();
        let mux = Mux::new(format!("{inbox_prefix}.{}", random_id::fresh()?));
        let lost = Arc::new(Notify::new());
        let complaint = Complaint::default();
        let (sorted, heard) = (Arc::clone(&mux), complaint.clone());
        let client = connect::connect(config, sorted, Arc::clone(&lost), heard, deadline).await?;
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
        let link = Arc::new(Link {
            client,
            mux,
            api_prefix: config.api_prefix().unwrap_or_else(|| "$JS.API".to_owned()),
            inbox_prefix,
            lost,
            unwell: AtomicU64::new(0),
            began: Instant::now(),
            patience: (config.op_timeout / 4 * 3).min(Duration::from_secs(3)),
            fitness: Fitness::default(),
            mutation,
        });
        Ok(Self {
            link,
            prefix: config.prefix.clone(),
            publish_prefix: config.api_prefix().map_or_else(String::new, |api| format!("{api}.")),
            bucket_max_bytes: config.bucket_max_bytes,
            complaint,
            memory: config.op_timeout.max(Duration::from_secs(2)),
            tasks: Mutex::new(tasks),
        })
    }

    /// Checks early that JetStream is enabled and that messages of the size that the store needs pass. Retrying later could
    /// help with neither.
    pub(in crate::jetstream) async fn greet(&self, deadline: Instant) -> Result<(), Error> {
        let most = self.link.client.max_payload();
        if most < LARGEST {
            let problem = format!(
                "takes messages of {most} bytes at most; raise its max_payload to {LARGEST} or more"
            );
            return Err(Invalid::new("server", problem).into());
        }
        let attempt = deadline.saturating_duration_since(Instant::now()) / 4;
        let mut pause = Pause::new(deadline);
        loop {
            let soon = deadline.min(Instant::now() + attempt);
            let subject = format!("{}.INFO", self.link.api_prefix);
            let asked = self.link.ask(subject, None, large_question(), soon);
            let Ok(answer) = asked.await else {
                // A missing answer alone says little: the server may be busy, or have no leader.
                match self.reason() {
                    Some(reason) => return Err(reason),
                    None if Instant::now() < deadline => continue,
                    None => return Ok(()),
                }
            };
            if wire::status(&answer) != Some(503) {
                let info = serde_json::from_slice::<Plain>(&answer.payload).ok();
                return match info.and_then(|info| info.error).map(|e| api_error("INFO", &e)) {
                    Some(Reply::Not(error)) => Err(error),
                    None | Some(Reply::Done(()) | Reply::Again(_)) => Ok(()),
                };
            }
            pause.after(no_jetstream()).await?;
        }
    }

    /// The version of the connected server.
    pub(in crate::jetstream) fn server_version(&self) -> String {
        self.link.client.server_info().version
    }

    fn stream(&self, bucket: Bucket) -> String {
        format!("KV_{}{bucket}", self.prefix)
    }

    /// The subject of a stored key.
    fn subject(&self, bucket: Bucket, key: &str) -> String {
        format!("$KV.{}{bucket}.{key}", self.prefix)
    }

    /// The subject for publishing a key.
    fn target(&self, bucket: Bucket, key: &str) -> String {
        format!("{}$KV.{}{bucket}.{key}", self.publish_prefix, self.prefix)
    }

    /// Makes one request to JetStream's API.
    async fn administer<T: DeserializeOwned>(
        &self,
        what: &str,
        request: &impl Serialize,
        deadline: Instant,
    ) -> Reply<T> {
        match serde_json::to_vec(request) {
            Ok(payload) => self.link.administer(what, payload.into(), deadline).await,
            Err(error) => Reply::Not(Error::unavailable(format!("cannot encode {what}: {error}"))),
        }
    }

    /// Makes a request to JetStream's API. An error with the number `fine` counts as success.
    async fn have_done(
        &self,
        what: &str,
        request: &impl Serialize,
        fine: Option<u32>,
        deadline: Instant,
    ) -> Reply<()> {
        let plain: Plain = match self.administer(what, request, deadline).await {
            Reply::Done(plain) => plain,
            Reply::Again(error) => return Reply::Again(error),
            Reply::Not(error) => return Reply::Not(error),
        };
        was_done(what, plain, fine)
    }
}

impl Link {
    /// Gives a message to the connection.
    async fn send(
        &self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<(), Unsent> {
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
        match timeout_at(deadline, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                let error = format!("cannot publish: {error}; raise the server's max_payload");
                Err(Unsent::Ever(Error::unavailable(error)))
            }
            Ok(Err(error)) => {
                Err(Unsent::Now(Error::unavailable(format!("cannot publish: {error}"))))
            }
            Err(_) => {
                let error = "the connection takes no more messages just now";
                Err(Unsent::Now(Error::unavailable(error)))
            }
        }
    }

    async fn ask(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Message, NoAnswer> {
        let waiting = self.mux.one();
        let reply = Some(waiting.reply.clone());
        self.send(subject, reply, headers, payload, deadline).await.map_err(NoAnswer::NotSent)?;
        self.answer(waiting, deadline).await.ok_or(NoAnswer::Silence)
    }

    async fn answer<T>(&self, mut waiting: Waiting<T>, deadline: Instant) -> Option<T> {
        if let Ok(Some(answer)) = timeout_at(deadline, waiting.answer()).await {
            return Some(answer);
        }
        self.is_unwell(deadline).await;
        None
    }

    /// Returns a publish's outcome, and notes what it tells of the server. Only an acknowledgement proves that the server
    /// reaches the others: a server that is cut off goes on answering reads and questions about its streams.
    async fn noted(&self, ack: Ack, deadline: Instant) -> Ack {
        match &ack {
            Ack::Stored(_) => self.unwell.store(0, Ordering::Relaxed),
            Ack::Again(_) | Ack::Not(WriteError::Unknown(_)) => self.is_unwell(deadline).await,
            Ack::Not(_) => {}
        }
        ack
    }

    /// Goes to another server if publishes to this one have got no acknowledgement for long: the server may be cut off, or the
    /// connection half open. If the other servers are no better, nothing is lost.
    async fn is_unwell(&self, deadline: Instant) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let well = self.unwell.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        let Err(since) = well else { return };
        if u128::from(now.saturating_sub(since)) < self.patience.as_millis() {
            return;
        }
        let ours = self.unwell.compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed);
        if ours.is_ok() && !self.mutation.is(JetStreamDefect::StaysWhereItIs) {
            let _ = timeout_at(deadline, self.client.force_reconnect()).await;
        }
    }

    /// Makes one request to JetStream's API.
    pub(super) async fn administer<T: DeserializeOwned>(
        &self,
        what: &str,
        payload: Bytes,
        deadline: Instant,
    ) -> Reply<T> {
        match self.ask(format!("{}.{what}", self.api_prefix), None, payload, deadline).await {
            Ok(message) if wire::status(&message) == Some(503) => Reply::Again(no_jetstream()),
            Ok(message) => match serde_json::from_slice::<T>(&message.payload) {
                Ok(answer) => Reply::Done(answer),
                Err(error) => Reply::Again(Error::unavailable(format!(
                    "the answer to {what} cannot be read: {error}"
                ))),
            },
            Err(NoAnswer::Silence) => Reply::Again(Error::Timeout),
            Err(NoAnswer::NotSent(unsent)) => unsent.into(),
        }
    }
}

/// More bytes than the largest message that the store sends: a read of 400 keys of full length, or a ticket for 1,500
/// endpoints of full length.
const LARGEST: usize = 512 * 1024;

/// A request without content, as large as the largest message that the store sends. The account's and the user's limits on
/// messages are not told to clients: a server closes the connection on which a larger message arrives.
fn large_question() -> Bytes {
    let mut text = vec![b' '; LARGEST];
    if let [first, .., last] = &mut text[..] {
        (*first, *last) = (b'{', b'}');
    }
    text.into()
}

fn no_jetstream() -> Error {
    Error::unavailable(
        "JetStream is not enabled, or not ready, on the server; start it with JetStream (-js), or \
         correct domain or api_prefix where one is given",
    )
}

/// Whether the request succeeded. An error with the number `fine` counts as success.
fn was_done(what: &str, answer: Plain, fine: Option<u32>) -> Reply<()> {
    match answer.error {
        None => Reply::Done(()),
        Some(error) if Some(error.err_code) == fine => Reply::Done(()),
        Some(error) => api_error(what, &error),
    }
}

/// The bucket's state in an answer; `None` if there is no such bucket.
fn told(what: &str, info: StreamInfo) -> Reply<Option<BucketState>> {
    match &info.error {
        Some(error) if error.err_code == wire::STREAM_NOT_FOUND => Reply::Done(None),
        Some(error) => api_error(what, error),
        None => match info.state() {
            Some(state) => Reply::Done(Some(state)),
            None => {
                let error = format!("the answer to {what} says nothing");
                Reply::Not(Error::unavailable(error))
            }
        },
    }
}

/// The meaning of an error of JetStream's API.
pub(super) fn api_error<T>(what: &str, error: &ApiError) -> Reply<T> {
    let text = format!("{what}: {} ({})", error.description, error.err_code);
    match error.err_code {
        code if wire::NOT_ENABLED.contains(&code) => Reply::Not(Error::unavailable(format!(
            "{text}; start the server with JetStream (-js), or enable it for this account"
        ))),
        wire::NOT_CLUSTERED | wire::NO_PEERS => {
            let problem = format!("are more than the servers there are ({text})");
            Reply::Not(Invalid::new("replicas", problem).into())
        }
        // The stream has no leader now.
        _ if error.code == 503 => Reply::Again(Error::unavailable(text)),
        wire::MAX_BYTES_REQUIRED => {
            let problem = format!("is not given, and this account demands it ({text})");
            Reply::Not(Invalid::new("bucket_max_bytes", problem).into())
        }
        code if wire::ACCOUNT_LIMITS.contains(&code) => {
            Reply::Not(Error::unavailable(format!("{text}; raise the account's limit")))
        }
        _ => Reply::Not(Error::unavailable(text)),
    }
}

#[async_trait]
impl Servers for NatsServers {
    fn fit(&self) -> Result<(), Error> {
        self.link.fitness.check(&self.link.client)
    }

    async fn publish(&self, bucket: Bucket, put: &Put, deadline: Instant) -> Ack {
        let subject = self.target(bucket, &put.key);
        let (headers, value) = (wire::headers(put), put.value.clone());
        match self.link.ask(subject, Some(headers), value, deadline).await {
            Ok(message) => {
                self.link.noted(wire::ack(&self.stream(bucket), &message), deadline).await
            }
            Err(NoAnswer::Silence) => Ack::Not(WriteError::Unknown(Error::Timeout)),
            Err(NoAnswer::NotSent(unsent)) => unsent.into(),
        }
    }

    /// All messages are sent at once. The answer to the last one is the batch's.
    async fn batch(&self, bucket: Bucket, puts: &[Put], deadline: Instant) -> Ack {
        let id = match random_id::fresh() {
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
            let subject = self.target(bucket, &put.key);
            let sent = if commits {
                let waiting = self.link.mux.one();
                let reply = waiting.reply.clone();
                last = Some(waiting);
                self.link
                    .send(subject, Some(reply), Some(headers), put.value.clone(), deadline)
                    .await
            } else {
                self.link.send(subject, None, Some(headers), put.value.clone(), deadline).await
            };
            // The committing message was not sent, so nothing of the batch is stored.
            if let Err(unsent) = sent {
                return unsent.into();
            }
        }
        let Some(waiting) = last else {
            return Ack::Not(WriteError::Failed(Error::unavailable("an empty batch")));
        };
        let Some(message) = self.link.answer(waiting, deadline).await else {
            return Ack::Not(WriteError::Unknown(Error::Timeout));
        };
        let stream = self.stream(bucket);
        if !wire::was_a_batch(&message, &id, puts.len()) {
            self.link.fitness.led_by_an_older();
            let error = provision::too_old(&format!("a server that leads {stream}"));
            return Ack::Not(WriteError::Unknown(Error::unavailable(error)));
        }
        self.link.noted(wire::ack(&stream, &message), deadline).await
    }

    async fn read(&self, bucket: Bucket, filters: &[String], deadline: Instant) -> Reading {
        let stream = self.stream(bucket);
        let prefix = self.subject(bucket, "");
        let subjects: Vec<String> = filters.iter().map(|key| format!("{prefix}{key}")).collect();
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        let request = match serde_json::to_vec(&MultiLast { multi_last: &subjects }) {
            Ok(request) => Bytes::from(request),
            Err(error) => return Reading::Not(Error::unavailable(error.to_string())),
        };
        let subject = format!("{}.DIRECT.GET.{stream}", self.link.api_prefix);
        let waiting = self.link.mux.many(prefix);
        let reply = Some(waiting.reply.clone());
        if let Err(unsent) = self.link.send(subject, reply, None, request, deadline).await {
            return unsent.into();
        }
        match self.link.answer(waiting, deadline).await {
            None => Reading::Again(Error::Timeout),
            Some((listing, end)) => reading(&stream, listing, &end),
        }
    }

    async fn purge(
        &self,
        bucket: Bucket,
        filter: &str,
        up_to: Option<u64>,
        deadline: Instant,
    ) -> Reply<()> {
        let what = format!("STREAM.PURGE.{}", self.stream(bucket));
        let filter = self.subject(bucket, filter);
        let request = Purge { filter: &filter, seq: up_to.map(|sequence| sequence + 1) };
        self.have_done(&what, &request, None, deadline).await
    }

    async fn bucket(&self, bucket: Bucket, deadline: Instant) -> Reply<Option<BucketState>> {
        let what = format!("STREAM.INFO.{}", self.stream(bucket));
        let info: StreamInfo = match self.link.administer(&what, Bytes::new(), deadline).await {
            Reply::Done(info) => info,
            Reply::Again(error) => return Reply::Again(error),
            Reply::Not(error) => return Reply::Not(error),
        };
        told(&what, info)
    }

    async fn make_bucket(&self, bucket: Bucket, replicas: u8, deadline: Instant) -> Reply<()> {
        let what = format!("STREAM.CREATE.{}", self.stream(bucket));
        let mut settings = Settings::new(bucket, &self.prefix, replicas);
        if let Some(bytes) = self.bucket_max_bytes {
            settings.max_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        }
        self.have_done(&what, &settings, Some(wire::STREAM_EXISTS), deadline).await
    }

    async fn change_bucket(
        &self,
        bucket: Bucket,
        settings: &Settings,
        deadline: Instant,
    ) -> Reply<()> {
        let what = format!("STREAM.UPDATE.{}", self.stream(bucket));
        self.have_done(&what, settings, None, deadline).await
    }

    async fn consume(
        &self,
        bucket: Bucket,
        filters: &[String],
        from: u64,
        deadline: Instant,
    ) -> Reply<Box<dyn Deliveries>> {
        let (stream, prefix) = (self.stream(bucket), self.subject(bucket, ""));
        let link = Arc::clone(&self.link);
        match NatsDeliveries::begin(link, stream, prefix, filters, from, deadline).await {
            Reply::Done(deliveries) => Reply::Done(Box::new(deliveries)),
            Reply::Again(error) => Reply::Again(error),
            Reply::Not(error) => Reply::Not(error),
        }
    }

    fn reason(&self) -> Option<Error> {
        self.complaint.reason(self.memory)
    }

    async fn shut(&self, deadline: Instant) {
        let _ = timeout_at(deadline, self.link.client.flush()).await;
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        let _ = timeout_at(deadline, self.link.client.drain()).await;
    }
}

/// Reads an answer: every matching message, and how fresh they are.
fn reading(stream: &str, listing: Listing, end: &Message) -> Reading {
    let again = |problem: &str| Reading::Again(Error::unavailable(format!("{stream}: {problem}")));
    let up_to = match (wire::status(end), wire::number(end, wire::UP_TO)) {
        (Some(204), Some(up_to)) => {
            if wire::number(end, wire::PENDING) != Some(0) {
                return Reading::TooMany;
            }
            up_to
        }
        (Some(204), None) => return again("an answer that does not say how fresh it is"),
        (Some(413), _) => return Reading::TooMany,
        (Some(404), _) => return again("the replica that answered has nothing yet"),
        (Some(503), _) => return Reading::Again(wire::no_leader(stream)),
        (status, _) => return again(&format!("an answer with the status {status:?}")),
    };
    let Some(entries) = listing.entries else {
        return again("a message without subject or sequence");
    };
    Reading::State { up_to, entries }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// An answer with this error.
    fn refused<T: DeserializeOwned>(code: u64, err_code: u32) -> T {
        let error = format!(r#"{{"code":{code},"err_code":{err_code},"description":"no"}}"#);
        serde_json::from_str(&format!(r#"{{"error":{error}}}"#)).unwrap()
    }

    #[rstest]
    #[case::no_leader(503, 10_008, true)]
    #[case::too_much_at_once(503, 10_023, true)]
    #[case::not_allowed(400, 10_052, false)]
    #[case::no_jetstream(503, 10_076, false)]
    #[case::not_for_this_account(503, 10_039, false)]
    #[case::too_few_servers(400, 10_005, false)]
    #[case::no_cluster(500, 10_074, false)]
    fn a_refusal_is_asked_again_only_where_time_may_help(
        #[case] code: u64,
        #[case] err_code: u32,
        #[case] again: bool,
    ) {
        let done = was_done("X", refused(code, err_code), Some(wire::STREAM_EXISTS));
        let bucket = told("X", refused(code, err_code));
        if again {
            assert!(matches!(done, Reply::Again(_)), "{done:?}");
            assert!(matches!(bucket, Reply::Again(_)), "{bucket:?}");
        } else {
            assert!(matches!(done, Reply::Not(_)), "{done:?}");
            assert!(matches!(bucket, Reply::Not(_)), "{bucket:?}");
        }
    }

    #[test]
    fn what_is_there_already_is_done_where_that_is_fine() {
        let exists = || refused(400, wire::STREAM_EXISTS);
        assert!(matches!(was_done("X", exists(), Some(wire::STREAM_EXISTS)), Reply::Done(())));
        assert!(matches!(was_done("X", exists(), None), Reply::Not(_)));
        assert!(matches!(was_done("X", Plain { error: None }, None), Reply::Done(())));
    }

    #[test]
    fn a_bucket_is_absent_only_if_the_answer_says_so() {
        assert!(matches!(told("X", refused(404, wire::STREAM_NOT_FOUND)), Reply::Done(None)));
        let empty = serde_json::from_str("{}").unwrap();
        assert!(matches!(told("X", empty), Reply::Not(Error::Unavailable(_))));
    }
}
