//! JetStream's administration interface: requests and answers as JSON, only the fields we use.

use serde::{Deserialize, Serialize};

use crate::jetstream::gateway::bucket_settings::{BucketState, BucketStatus, Settings};
use crate::jetstream::gateway::nats::wire::ApiError;

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
            // A single server that is no cluster names no leader.
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
    /// Purges the messages before this sequence.
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
