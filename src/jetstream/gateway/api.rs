//! JetStream's administration interface: requests and answers as JSON, only the fields we use.

use serde::{Deserialize, Serialize};

use crate::jetstream::gateway::wire::ApiError;
use crate::jetstream::stored::bucket::Bucket;

/// A stream's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "the server's settings, field by field")]
pub(in crate::jetstream) struct Settings {
    pub(in crate::jetstream) name: String,
    #[serde(default)]
    pub(in crate::jetstream) subjects: Vec<String>,
    #[serde(default)]
    pub(in crate::jetstream) retention: String,
    #[serde(default)]
    pub(in crate::jetstream) storage: String,
    #[serde(default)]
    pub(in crate::jetstream) discard: String,
    #[serde(default)]
    pub(in crate::jetstream) max_msgs_per_subject: i64,
    #[serde(default)]
    pub(in crate::jetstream) max_msgs: i64,
    #[serde(default)]
    pub(in crate::jetstream) max_bytes: i64,
    #[serde(default)]
    pub(in crate::jetstream) max_age: i64,
    #[serde(default)]
    pub(in crate::jetstream) max_msg_size: i64,
    #[serde(default)]
    pub(in crate::jetstream) num_replicas: u8,
    #[serde(default)]
    pub(in crate::jetstream) allow_direct: bool,
    #[serde(default)]
    pub(in crate::jetstream) allow_atomic: bool,
    #[serde(default)]
    pub(in crate::jetstream) allow_rollup_hdrs: bool,
    #[serde(default)]
    pub(in crate::jetstream) deny_delete: bool,
    #[serde(default)]
    pub(in crate::jetstream) deny_purge: bool,
    #[serde(default)]
    pub(in crate::jetstream) discard_new_per_subject: bool,
    #[serde(default)]
    pub(in crate::jetstream) no_ack: bool,
    #[serde(default)]
    pub(in crate::jetstream) sealed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::jetstream) persist_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::jetstream) mirror: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::jetstream) sources: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::jetstream) subject_transform: Option<serde_json::Value>,
    /// Settings that we do not know. They stay as they are when we change one.
    #[serde(flatten)]
    pub(in crate::jetstream) others: serde_json::Map<String, serde_json::Value>,
}

impl Settings {
    /// The settings of a new bucket.
    pub(in crate::jetstream) fn new(bucket: Bucket, prefix: &str, replicas: u8) -> Self {
        let settings = Self {
            name: format!("KV_{prefix}{bucket}"),
            subjects: vec![format!("$KV.{prefix}{bucket}.>")],
            retention: "limits".to_owned(),
            storage: "file".to_owned(),
            discard: "new".to_owned(),
            max_msgs_per_subject: 1,
            max_msgs: -1,
            max_bytes: -1,
            max_msg_size: -1,
            num_replicas: replicas,
            allow_direct: true,
            allow_atomic: true,
            allow_rollup_hdrs: true,
            deny_delete: true,
            ..Self::default()
        };
        settings.brought_forward(bucket)
    }

    /// These settings with those that this version of the store needs in addition to older
    /// versions.
    pub(in crate::jetstream) fn brought_forward(mut self, bucket: Bucket) -> Self {
        self.others.insert(ALLOW_TTL.to_owned(), true.into());
        // A user is revoked, never removed, so nobody has a reason to purge. No later edit of
        // the stream can undo this setting.
        self.deny_purge |= bucket == Bucket::Users;
        self.allow_rollup_hdrs &= bucket != Bucket::Users;
        self
    }
}

/// Whether a message may have a time to live.
const ALLOW_TTL: &str = "allow_msg_ttl";

/// A bucket's settings and state.
#[derive(Clone, Debug)]
pub(in crate::jetstream) struct BucketState {
    pub(in crate::jetstream) settings: Settings,
    /// When the stream was made. Another stream has another time.
    pub(in crate::jetstream) created: String,
    /// The stream's last sequence.
    pub(in crate::jetstream) last: u64,
    /// The server that leads the stream; `None` with one replica, or if no leader is known.
    pub(in crate::jetstream) leader: Option<String>,
    pub(in crate::jetstream) status: BucketStatus,
}

/// How many servers keep a bucket, and how many of them have everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jetstream) struct BucketStatus {
    pub(in crate::jetstream) replicas: u8,
    pub(in crate::jetstream) current: u8,
}

#[derive(Deserialize)]
pub(super) struct StreamInfo {
    config: Option<Settings>,
    #[serde(default)]
    created: String,
    #[serde(default)]
    state: StateInfo,
    cluster: Option<ClusterInfo>,
    pub(super) error: Option<ApiError>,
}

#[derive(Default, Deserialize)]
struct StateInfo {
    #[serde(default)]
    last_seq: u64,
}

#[derive(Deserialize)]
pub(super) struct ClusterInfo {
    #[serde(default)]
    pub(super) leader: Option<String>,
    #[serde(default)]
    replicas: Vec<PeerInfo>,
}

#[derive(Deserialize)]
struct PeerInfo {
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
    #[serde(default)]
    lag: u64,
}

impl StreamInfo {
    /// The bucket's state; `None` if the answer has none.
    pub(super) fn state(self) -> Option<BucketState> {
        let settings = self.config?;
        let leader = self.cluster.as_ref().and_then(|cluster| cluster.leader.clone());
        let leader = leader.filter(|name| !name.is_empty());
        let count = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let status = match self.cluster {
            // A single server that is no cluster.
            None => BucketStatus { replicas: 1, current: 1 },
            Some(cluster) => {
                let led = usize::from(cluster.leader.is_some_and(|name| !name.is_empty()));
                let up = |peer: &&PeerInfo| peer.current && !peer.offline && peer.lag == 0;
                let current = cluster.replicas.iter().filter(up).count();
                BucketStatus {
                    replicas: count(cluster.replicas.len() + 1),
                    current: count(current + led),
                }
            }
        };
        let last = self.state.last_seq;
        Some(BucketState { settings, created: self.created, last, leader, status })
    }
}

#[derive(Serialize)]
pub(super) struct MultiLast<'a> {
    pub(super) multi_last: &'a [&'a str],
}

#[derive(Serialize)]
pub(super) struct Purge<'a> {
    pub(super) filter: &'a str,
    /// Purge what is before this sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct CreateConsumer<'a> {
    pub(super) stream_name: &'a str,
    pub(super) config: ConsumerSettings<'a>,
}

#[derive(Serialize)]
pub(super) struct ConsumerSettings<'a> {
    pub(super) name: &'a str,
    pub(super) deliver_subject: &'a str,
    pub(super) deliver_policy: &'a str,
    pub(super) opt_start_seq: u64,
    pub(super) filter_subjects: Vec<String>,
    pub(super) ack_policy: &'a str,
    pub(super) replay_policy: &'a str,
    pub(super) flow_control: bool,
    /// Nanoseconds.
    pub(super) idle_heartbeat: u64,
    /// Nanoseconds.
    pub(super) inactive_threshold: u64,
    pub(super) num_replicas: u8,
    pub(super) mem_storage: bool,
}

/// The answer to a request for a consumer.
#[derive(Deserialize)]
pub(super) struct ConsumerInfo {
    pub(super) cluster: Option<ClusterInfo>,
    pub(super) error: Option<ApiError>,
}

/// An answer of which only the error matters.
#[derive(Deserialize)]
pub(super) struct Plain {
    pub(super) error: Option<ApiError>,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn status(cluster: &Value) -> BucketStatus {
        let info = json!({ "config": Settings::default(), "created": "today", "cluster": cluster });
        let info: StreamInfo = serde_json::from_value(info).unwrap();
        info.state().unwrap().status
    }

    #[rstest]
    #[case::up_to_date(json!({ "current": true }), 2)]
    #[case::behind(json!({ "current": true, "lag": 1 }), 1)]
    #[case::away(json!({ "current": true, "offline": true }), 1)]
    #[case::not_current(json!({ "current": false }), 1)]
    #[case::behind_and_away(json!({ "current": false, "offline": true, "lag": 7 }), 1)]
    fn who_counts_as_up_to_date(#[case] peer: Value, #[case] current: u8) {
        let cluster = json!({ "leader": "a", "replicas": [peer] });
        assert_eq!(status(&cluster), BucketStatus { replicas: 2, current });
        let leaderless = json!({ "replicas": [peer] });
        assert_eq!(status(&leaderless), BucketStatus { replicas: 2, current: current - 1 });
    }

    #[test]
    fn a_server_alone_has_the_one_copy() {
        assert_eq!(status(&Value::Null), BucketStatus { replicas: 1, current: 1 });
    }
}
