//! An ordered push consumer on real servers.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::Error;
use crate::jetstream::gateway::exchange::{Deliveries, Delivery, Entry, Reply};
use crate::jetstream::gateway::nats::api::{ConsumerInfo, ConsumerSettings, CreateConsumer, Plain};
use crate::jetstream::gateway::nats::link::{Link, api_error};
use crate::jetstream::gateway::nats::wire;
use crate::jetstream::stored::random_id;

/// The interval of the server's heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long the server keeps the consumer while nobody listens.
const FORGET: Duration = Duration::from_secs(30);

/// The deliveries of a consumer to a subject of its own.
pub(super) struct NatsDeliveries {
    link: Arc<Link>,
    stream: String,
    /// The beginning of the bucket's subjects.
    prefix: String,
    /// The consumer's name.
    name: String,
    /// The server that holds the consumer.
    place: Option<String>,
    /// The subject of the deliveries.
    inbox: String,
    /// Whether the consumer waits for a subscription to its subject before it delivers.
    messages: Option<Subscriber>,
}

impl NatsDeliveries {
    pub(super) async fn begin(
        link: Arc<Link>,
        stream: String,
        prefix: String,
        filters: &[String],
        from: u64,
        deadline: Instant,
    ) -> Reply<Self> {
        let name = match random_id::fresh() {
            Ok(name) => name,
            Err(error) => return Reply::Not(error),
        };
        let inbox = format!("{}.{name}", link.inbox_prefix);
        let what = format!("CONSUMER.CREATE.{stream}.{name}");
        let request = CreateConsumer {
            stream_name: &stream,
            config: ConsumerSettings {
                name: &name,
                deliver_subject: &inbox,
                deliver_policy: "by_start_sequence",
                opt_start_seq: from,
                filter_subjects: filters.iter().map(|key| format!("{prefix}{key}")).collect(),
                ack_policy: "none",
                replay_policy: "instant",
                flow_control: true,
                idle_heartbeat: nanos(HEARTBEAT),
                inactive_threshold: nanos(FORGET),
                num_replicas: 1,
                mem_storage: true,
            },
        };
        let payload = match serde_json::to_vec(&request) {
            Ok(payload) => payload,
            Err(error) => {
                let error = format!("cannot encode {what}: {error}");
                return Reply::Not(Error::unavailable(error));
            }
        };
        match link.administer::<ConsumerInfo>(&what, payload.into(), deadline).await {
            Reply::Done(ConsumerInfo { error: None, cluster }) => {
                let place = cluster.and_then(|cluster| cluster.leader);
                let place = place.filter(|name| !name.is_empty());
                Reply::Done(Self { link, stream, prefix, name, place, inbox, messages: None })
            }
            Reply::Done(ConsumerInfo { error: Some(error), .. }) => api_error(&what, &error),
            Reply::Again(error) => Reply::Again(error),
            Reply::Not(error) => Reply::Not(error),
        }
    }

    /// Reads a message; `None` for a message that no consumer sends.
    async fn read(&self, message: Message) -> Option<Delivery> {
        if wire::status(&message) == Some(100) {
            return idle(&self.link.client, &message).await;
        }
        let Place { sequence, count, stored, pending } =
            message.reply.as_deref().and_then(place)?;
        let key = message.subject.strip_prefix(&*self.prefix)?.to_owned();
        let removal = wire::is_removal(&message);
        let entry = Entry { key, sequence, removal, value: message.payload };
        Some(Delivery::Entry { count, entry, stored, pending })
    }
}

#[async_trait]
impl Deliveries for NatsDeliveries {
    async fn next(&mut self) -> Option<Delivery> {
        let Self { link, inbox, messages, .. } = self;
        let messages = match messages {
            Some(messages) => messages,
            None => messages.insert(link.client.subscribe(inbox.clone()).await.ok()?),
        };
        let message = tokio::select! {
            message = messages.next() => message?,
            () = link.lost.notified() => return None,
        };
        self.read(message).await
    }

    fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    async fn end(&mut self) {
        let delete = format!("CONSUMER.DELETE.{}.{}", self.stream, self.name);
        let soon = Instant::now() + Duration::from_millis(100);
        let _ = self.link.administer::<Plain>(&delete, Bytes::new(), soon).await;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Answers a heartbeat or a flow-control message, if it needs an answer.
async fn idle(client: &Client, message: &Message) -> Option<Delivery> {
    let stalled = wire::header(message, wire::STALLED).map(str::to_owned);
    for subject in message.reply.as_ref().map(ToString::to_string).into_iter().chain(stalled) {
        client.publish(subject, Bytes::new()).await.ok()?;
    }
    Some(Delivery::Idle { count: wire::number(message, wire::LAST_CONSUMER) })
}

/// The numbers of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The message's sequence in the stream.
    sequence: u64,
    /// The consumer's count of deliveries.
    count: u64,
    /// When the message was stored, in nanoseconds since 1970.
    stored: u64,
    /// How many more messages there are for the consumer.
    pending: u64,
}

/// Reads the reply subject of a delivery:
/// `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<sequence>.<count>.<time>.<pending>`.
fn place(reply: &str) -> Option<Place> {
    let tokens: Vec<&str> = reply.split('.').collect();
    let at = if tokens.len() > 9 { 7 } else { 5 };
    let number = |n: usize| tokens.get(n)?.parse().ok();
    let (sequence, count) = (number(at)?, number(at + 1)?);
    Some(Place { sequence, count, stored: number(at + 2)?, pending: number(at + 3)? })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("$JS.ACK.KV_users.c1.1.17.3.1700000000.0", Some((17, 3, 1_700_000_000, 0)))]
    #[case::domain("$JS.ACK.hub.ACC.KV_users.c1.1.17.3.1700000000.2.tok", Some((17, 3, 1_700_000_000, 2)))]
    #[case::short("$JS.ACK.KV_users", None)]
    #[case::flow_control("$JS.FC.KV_users.c1.abc", None)]
    fn places(#[case] reply: &str, #[case] expected: Option<(u64, u64, u64, u64)>) {
        let place = place(reply).map(|p| (p.sequence, p.count, p.stored, p.pending));
        assert_eq!(place, expected);
    }
}
