//! A copy of a bucket, kept in step with it.
//!
//! An ordered consumer of our own: every delivery carries the consumer's count, and a count that
//! is not the next one is a gap, after which the consumer is made anew from where the copy
//! stands. So the copy never leaves anything out; whether it is up to date, only a barrier tells.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::Error;
use crate::jetstream::gateway::api::{ConsumerSettings, CreateConsumer, Plain, StreamInfo};
use crate::jetstream::gateway::nats::{Link, Pause};
use crate::jetstream::gateway::{Entry, FeedSink, wire};
use crate::jetstream::key;

/// How often the server says that there is nothing to say.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long it may say nothing at all.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long one try to make a consumer may take.
const SETUP: Duration = Duration::from_secs(3);
/// When the server forgets a consumer that nobody listens to.
const FORGET: Duration = Duration::from_secs(30);

pub(super) struct Feed {
    pub(super) link: Arc<Link>,
    pub(super) stream: String,
    /// What the subjects of the bucket begin with.
    pub(super) prefix: String,
    /// Told to make the consumer anew.
    pub(super) kick: Arc<Notify>,
}

impl Feed {
    /// Keeps the copy, whatever happens to the connection or in the copy's own code.
    pub(super) async fn keep(self, sink: Arc<dyn FeedSink>) {
        let mut created = None;
        loop {
            let round = self.round(&sink, &mut created);
            if std::panic::AssertUnwindSafe(round).catch_unwind().await.is_err() {
                // Half an entry may be in the copy.
                created = None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One consumer's life. Ends at the first irregularity.
    async fn round(&self, sink: &Arc<dyn FeedSink>, created: &mut Option<String>) {
        let by = Instant::now() + SETUP;
        let info = format!("STREAM.INFO.{}", self.stream);
        let Ok(info) = self.link.administer::<StreamInfo>(&info, Bytes::new(), by).await else {
            return;
        };
        let Some(state) = info.state() else { return };
        if created.as_ref() != Some(&state.created) {
            sink.reset();
            *created = Some(state.created);
        }
        let Ok(name) = key::fresh() else { return };
        let inbox = format!("_INBOX.{name}");
        let Ok(mut messages) = self.link.client.subscribe(inbox.clone()).await else { return };
        if self.make_consumer(&name, &inbox, sink.position(), by).await.is_err() {
            return;
        }
        let mut count = 0;
        loop {
            let next = tokio::select! {
                next = timeout(PATIENCE, messages.next()) => next,
                () = self.kick.notified() => break,
                () = self.link.lost.notified() => break,
            };
            let Ok(Some(message)) = next else { break };
            if wire::status(&message) == Some(100) {
                if !idle(&self.link.client, &message, count).await {
                    break;
                }
                continue;
            }
            let Some((sequence, delivery)) = message.reply.as_deref().and_then(place) else {
                break;
            };
            if delivery != count + 1 || sequence <= sink.position() {
                break;
            }
            count = delivery;
            let Some(key) = message.subject.strip_prefix(&*self.prefix) else { break };
            let (key, removal) = (key.to_owned(), wire::is_removal(&message));
            sink.entry(Entry { key, sequence, removal, value: message.payload });
        }
        let delete = format!("CONSUMER.DELETE.{}.{name}", self.stream);
        let soon = Instant::now() + Duration::from_millis(100);
        let _ = self.link.administer::<Plain>(&delete, Bytes::new(), soon).await;
    }

    async fn make_consumer(
        &self,
        name: &str,
        inbox: &str,
        after: u64,
        by: Instant,
    ) -> Result<(), Error> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let request = CreateConsumer {
            stream_name: &self.stream,
            config: ConsumerSettings {
                name,
                deliver_subject: inbox,
                deliver_policy: "by_start_sequence",
                opt_start_seq: after + 1,
                ack_policy: "none",
                replay_policy: "instant",
                flow_control: true,
                idle_heartbeat: nanos(HEARTBEAT),
                inactive_threshold: nanos(FORGET),
                num_replicas: 1,
                mem_storage: true,
            },
        };
        let what = format!("CONSUMER.CREATE.{}.{name}", self.stream);
        let payload = serde_json::to_vec(&request)
            .map_err(|error| Error::unavailable(format!("cannot encode a request: {error}")))?;
        let mut pause = Pause::new(by);
        loop {
            let answer: Plain = self.link.administer(&what, payload.clone().into(), by).await?;
            match answer.error {
                None => return Ok(()),
                Some(error) => pause.after(Error::unavailable(error.description)).await?,
            }
        }
    }
}

/// Answers what needs an answer; `false` when the consumer has sent more than came here.
async fn idle(client: &Client, message: &Message, count: u64) -> bool {
    let stalled = wire::header(message, wire::STALLED).map(str::to_owned);
    for subject in message.reply.as_ref().map(ToString::to_string).into_iter().chain(stalled) {
        if client.publish(subject, Bytes::new()).await.is_err() {
            return false;
        }
    }
    wire::number(message, wire::LAST_CONSUMER).is_none_or(|last| last == count)
}

/// The stream's sequence and the consumer's count of a delivery, from its reply subject:
/// `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<sequence>.<count>.<time>.<pending>`.
fn place(reply: &str) -> Option<(u64, u64)> {
    let tokens: Vec<&str> = reply.split('.').collect();
    let at = if tokens.len() > 9 { 7 } else { 5 };
    Some((tokens.get(at)?.parse().ok()?, tokens.get(at + 1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("$JS.ACK.KV_users.c1.1.17.3.1700000000.0", Some((17, 3)))]
    #[case::domain("$JS.ACK.hub.ACC.KV_users.c1.1.17.3.1700000000.0.tok", Some((17, 3)))]
    #[case::short("$JS.ACK.KV_users", None)]
    #[case::flow_control("$JS.FC.KV_users.c1.abc", None)]
    fn places(#[case] reply: &str, #[case] expected: Option<(u64, u64)>) {
        assert_eq!(place(reply), expected);
    }
}
