//! A connection: its requests, their answers, and whether its server is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, Message};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::exchange::{Ack, Reading, Reply, WriteError};
use crate::jetstream::gateway::nats::mux::{Mux, Waiting};
use crate::jetstream::gateway::nats::wire::{self, ApiError};
use crate::jetstream::gateway::server_version;
use crate::mutation::Mutation;
use crate::trace::event;

/// The parts of a connection that requests need.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) mux: Arc<Mux>,
    /// The beginning of the subjects of JetStream's API.
    pub(super) api_prefix: String,
    /// The beginning of the subjects of answers and deliveries.
    pub(super) inbox_prefix: String,
    /// Notified when the connection is lost.
    pub(super) lost: Arc<Notify>,
    /// The moment since which publishes get no acknowledgement, in milliseconds since `began`; 0 while they are
    /// acknowledged.
    unwell: AtomicU64,
    began: Instant,
    /// How long publishes may go without an acknowledgement before the client tries another server.
    patience: Duration,
    fitness: Fitness,
    mutation: Mutation<JetStreamDefect>,
}

/// Whether the servers are new enough. This is checked with every connection, since a server may be put back to an
/// older version while clients run.
#[derive(Default)]
struct Fitness {
    /// The number of the connection whose version was checked, from 1.
    looked: AtomicU64,
    /// Whether the version of that connection is too old.
    too_old: AtomicBool,
    /// Whether a server has stored a batch message by message since then. If so, the server that leads the bucket is
    /// too old.
    led_by_an_older: AtomicBool,
}

impl Fitness {
    fn led_by_an_older(&self) {
        event!(connection: warn, "a server of the cluster is too old: every call fails");
        self.led_by_an_older.store(true, Ordering::SeqCst);
    }

    fn check(&self, client: &Client) -> Result<(), Error> {
        let connection = client.statistics().connects.load(Ordering::SeqCst);
        if self.looked.load(Ordering::SeqCst) != connection {
            let old = server_version::check_version(&client.server_info().version).is_err();
            if old {
                let version = client.server_info().version;
                event!(connection: warn, "the server is too old: every call fails", version);
            }
            self.too_old.store(old, Ordering::SeqCst);
            self.led_by_an_older.store(false, Ordering::SeqCst);
            self.looked.store(connection, Ordering::SeqCst);
        }
        if self.too_old.load(Ordering::SeqCst) {
            return server_version::check_version(&client.server_info().version)
                .map_err(|error| Error::unavailable(error.to_string()));
        }
        if self.led_by_an_older.load(Ordering::SeqCst) {
            return Err(Error::unavailable(server_version::too_old("a server of the cluster")));
        }
        Ok(())
    }
}

/// Why an exchange got no answer.
pub(super) enum NoAnswer {
    /// The request was sent, and may have been received.
    Silence,
    /// The request was not sent.
    NotSent(Unsent),
}

/// Why a message was not sent.
pub(super) enum Unsent {
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

impl Link {
    pub(super) fn new(
        client: Client,
        mux: Arc<Mux>,
        api_prefix: String,
        inbox_prefix: String,
        lost: Arc<Notify>,
        patience: Duration,
        mutation: Mutation<JetStreamDefect>,
    ) -> Self {
        let (unwell, began, fitness) = (AtomicU64::new(0), Instant::now(), Fitness::default());
        Self {
            client,
            mux,
            api_prefix,
            inbox_prefix,
            lost,
            unwell,
            began,
            patience,
            fitness,
            mutation,
        }
    }

    /// Fails if the servers are too old for the store.
    pub(super) fn fit(&self) -> Result<(), Error> {
        self.fitness.check(&self.client)
    }

    /// A batch was stored message by message, so the bucket's leader is too old.
    pub(super) fn led_by_an_older(&self) {
        self.fitness.led_by_an_older();
    }

    /// Gives a message to the connection.
    pub(super) async fn send(
        &self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<(), Unsent> {
        event!(exchange: trace, "request", subject, bytes = payload.len());
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

    pub(super) async fn ask(
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

    pub(super) async fn answer<T>(&self, mut waiting: Waiting<T>, deadline: Instant) -> Option<T> {
        if let Ok(Some(answer)) = timeout_at(deadline, waiting.answer()).await {
            event!(exchange: trace, "answer");
            return Some(answer);
        }
        event!(exchange: trace, "no answer");
        self.is_unwell(deadline).await;
        None
    }

    /// Returns the outcome of a publish, and records whether it was acknowledged. Only an acknowledgement proves that
    /// the server reaches the others: a server that is cut off goes on answering reads and requests about its streams.
    pub(super) async fn noted(&self, ack: Ack, deadline: Instant) -> Ack {
        match &ack {
            Ack::Stored(_) => self.unwell.store(0, Ordering::Relaxed),
            Ack::Again(_) | Ack::Not(WriteError::Unknown(_)) => self.is_unwell(deadline).await,
            Ack::Not(_) => {}
        }
        ack
    }

    /// Connects to another server if publishes to this one have got no acknowledgement for long. The server may be cut
    /// off, or the connection half open. If the other servers are no better, nothing is lost.
    async fn is_unwell(&self, deadline: Instant) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let well = self.unwell.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        let Err(since) = well else { return };
        if u128::from(now.saturating_sub(since)) < self.patience.as_millis() {
            return;
        }
        let ours = self.unwell.compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed);
        if ours.is_ok() && !self.mutation.is(JetStreamDefect::StaysWhereItIs) {
            event!(connection: info, "the client leaves the server: it acknowledges no write");
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

pub(super) fn no_jetstream() -> Error {
    Error::unavailable(
        "JetStream is not enabled, or not ready, on the server; start it with JetStream (-js), or \
         correct domain or api_prefix where one is given",
    )
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
