//! The floors: the exchanges of the store, made by an ordinary NATS client.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, push};
use async_nats::jetstream::{self, Context, kv};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::Mutex;

/// The number of publishes in flight at once, the same as in the store.
const WINDOW: usize = 512;

/// A NATS client without a store.
pub(crate) struct Bare {
    client: Client,
    jetstream: Context,
    prefix: String,
    /// An inbox for each bucket. Answers that consist of several messages arrive there, one answer
    /// at a time.
    inboxes: HashMap<&'static str, (String, Mutex<Subscriber>)>,
}

impl Bare {
    pub(crate) async fn connect(url: &str, prefix: &str) -> Self {
        let client = async_nats::connect(url).await.unwrap();
        let mut inboxes = HashMap::new();
        for bucket in ["rooms", "members", "room_keys"] {
            let inbox = client.new_inbox();
            let answers = client.subscribe(inbox.clone()).await.unwrap();
            inboxes.insert(bucket, (inbox, Mutex::new(answers)));
        }
        // A client at the same server that answers `round_trip`.
        let other = async_nats::connect(url).await.unwrap();
        let mut questions = other.subscribe("echo").await.unwrap();
        other.flush().await.unwrap();
        tokio::spawn(async move {
            while let Some(question) = questions.next().await {
                other.publish(question.reply.unwrap(), question.payload).await.unwrap();
            }
        });
        let jetstream = jetstream::new(client.clone());
        Self { client, jetstream, prefix: prefix.to_owned(), inboxes }
    }

    /// Makes one core round trip.
    pub(crate) async fn round_trip(&self) {
        self.client.request("echo", Bytes::new()).await.unwrap();
    }

    /// Makes one acknowledged publish, which is the cost of a barrier of the bucket.
    pub(crate) async fn publish(&self, bucket: &str) {
        let subject = format!("$KV.{}{bucket}.=barrier", self.prefix);
        self.jetstream.publish(subject, Bytes::new()).await.unwrap().await.unwrap();
    }

    /// Publishes all messages, many of them in flight at once.
    pub(crate) async fn publish_all(&self, bucket: &str, puts: Vec<(String, Bytes)>) {
        let mut flying = VecDeque::with_capacity(WINDOW);
        for (key, value) in puts {
            if flying.len() == WINDOW {
                let ack: jetstream::context::PublishAckFuture = flying.pop_front().unwrap();
                ack.await.unwrap();
            }
            let subject = format!("$KV.{}{bucket}.{key}", self.prefix);
            flying.push_back(self.jetstream.publish(subject, value).await.unwrap());
        }
        for ack in flying {
            ack.await.unwrap();
        }
    }

    /// Makes one batched direct get. Returns how many records it finds.
    pub(crate) async fn read(&self, bucket: &str, filters: Vec<String>) -> usize {
        let Self { client, prefix, .. } = self;
        let (inbox, answers) = self.inboxes.get(bucket).unwrap();
        let mut answers = answers.lock().await;
        let subjects: Vec<_> =
            filters.iter().map(|f| format!("$KV.{prefix}{bucket}.{f}")).collect();
        let request = serde_json::json!({ "multi_last": subjects }).to_string();
        let subject = format!("$JS.API.DIRECT.GET.KV_{prefix}{bucket}");
        client.publish_with_reply(subject, inbox.clone(), request.into()).await.unwrap();
        let mut found = 0;
        loop {
            match answers.next().await.unwrap().status {
                None => found += 1,
                Some(status) => {
                    assert_eq!(status.as_u16(), 204, "{bucket} {filters:?}");
                    return found;
                }
            }
        }
    }

    /// Reads this many messages of one token through a consumer.
    pub(crate) async fn consume(&self, bucket: &str, messages: u32) {
        let stream =
            self.jetstream.get_stream(format!("KV_{}{bucket}", self.prefix)).await.unwrap();
        let config = push::Config {
            deliver_subject: self.client.new_inbox(),
            ack_policy: AckPolicy::None,
            filter_subject: format!("$KV.{}{bucket}.*", self.prefix),
            flow_control: true,
            idle_heartbeat: Duration::from_millis(500),
            memory_storage: true,
            num_replicas: 1,
            ..push::Config::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut read = consumer.messages().await.unwrap();
        for _ in 0..messages {
            read.next().await.unwrap().unwrap();
        }
    }

    pub(crate) async fn kv(&self, bucket: &str) -> kv::Store {
        self.jetstream.get_key_value(format!("{}{bucket}", self.prefix)).await.unwrap()
    }
}
