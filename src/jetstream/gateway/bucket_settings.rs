//! A bucket's settings and state, as the servers have them.

use serde::{Deserialize, Serialize};

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
    /// The settings that this version does not know. These settings are sent back unchanged when a
    /// known setting is changed.
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

    /// Returns these settings with the ones that older versions of the store did not set.
    pub(in crate::jetstream) fn brought_forward(mut self, bucket: Bucket) -> Self {
        self.others.insert(ALLOW_TTL.to_owned(), true.into());
        // A user is revoked and never removed, so nobody has a reason to purge the bucket. No later
        // edit of the stream can undo this setting.
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

/// How many servers keep a bucket, and how many of these have all messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jetstream) struct BucketStatus {
    pub(in crate::jetstream) replicas: u8,
    pub(in crate::jetstream) current: u8,
}
