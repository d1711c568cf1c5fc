//! Real servers: NATS with JetStream, through the driver.

mod api;
mod complaint;
mod connect;
mod consumer;
mod identity;
mod link;
mod mux;
mod rotation;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Message;
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
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::bucket_settings::{BucketState, Settings};
use crate::jetstream::gateway::exchange::{
    Ack, Deliveries, Put, Reading, Reply, Servers, WriteError,
};
use crate::jetstream::gateway::nats::api::{MultiLast, Plain, Purge, StreamInfo};
use crate::jetstream::gateway::nats::complaint::Complaint;
use crate::jetstream::gateway::nats::consumer::NatsDeliveries;
use crate::jetstream::gateway::nats::link::{Link, NoAnswer, api_error, no_jetstream};
use crate::jetstream::gateway::nats::mux::{Listing, Mux};
use crate::jetstream::gateway::server_version;
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
        let api_prefix = config.api_prefix().unwrap_or_else(|| "$JS.API".to_owned());
        let patience = (config.op_timeout / 4 * 3).min(Duration::from_secs(3));
        let link = Link::new(client, mux, api_prefix, inbox_prefix, lost, patience, mutation);
        Ok(Self {
            link: Arc::new(link),
            prefix: config.prefix.clone(),
            publish_prefix: config.api_prefix().map_or_else(String::new, |api| format!("{api}.")),
            bucket_max_bytes: config.bucket_max_bytes,
            complaint,
            memory: config.op_timeout.max(Duration::from_secs(2)),
            tasks: Mutex::new(tasks),
        })
    }

    /// Checks early that JetStream is enabled, and that the servers accept messages as large as the store sends.
    /// Retrying later could help with neither.
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
                // The missing answer alone says little: the server may be busy, or may have no leader.
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

/// More bytes than the largest message that the store sends, which is a read of 400 keys of full length, or a ticket
/// for 1,500 endpoints of full length.
const LARGEST: usize = 512 * 1024;

/// Makes a request without content, as large as the largest message that the store sends. Clients cannot read the
/// limits on messages of their account and user, but a server closes the connection when a larger message arrives.
fn large_question() -> Bytes {
    let mut text = vec![b' '; LARGEST];
    if let [first, .., last] = &mut text[..] {
        (*first, *last) = (b'{', b'}');
    }
    text.into()
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

#[async_trait]
impl Servers for NatsServers {
    fn fit(&self) -> Result<(), Error> {
        self.link.fit()
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

    /// All messages are sent at once. The batch is acknowledged in the answer to the last message.
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
            self.link.led_by_an_older();
            let error = server_version::too_old(&format!("a server that leads {stream}"));
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
