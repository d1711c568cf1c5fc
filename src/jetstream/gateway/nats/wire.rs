//! The server's formats: headers, acknowledgements, error numbers.

use async_nats::{HeaderMap, Message};
use serde::Deserialize;

use crate::Error;
use crate::jetstream::gateway::exchange::{Ack, Entry, Put, WriteError};
use crate::jetstream::stored::bucket_key;

pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// The stream's last sequence.
const EXPECTED_OF_ALL: &str = "Nats-Expected-Last-Sequence";
pub(super) const BATCH_ID: &str = "Nats-Batch-Id";
pub(super) const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
pub(super) const BATCH_COMMIT: &str = "Nats-Batch-Commit";
const TTL: &str = "Nats-TTL";
pub(super) const KV_OPERATION: &str = "KV-Operation";
pub(super) const SUBJECT: &str = "Nats-Subject";
pub(super) const SEQUENCE: &str = "Nats-Sequence";
pub(super) const UP_TO: &str = "Nats-UpTo-Sequence";
pub(super) const PENDING: &str = "Nats-Num-Pending";
pub(super) const LAST_CONSUMER: &str = "Nats-Last-Consumer";
pub(super) const STALLED: &str = "Nats-Consumer-Stalled";

/// An error in an answer of JetStream's API or in an acknowledgement.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) err_code: u32,
    #[serde(default)]
    pub(super) description: String,
}

pub(super) const STREAM_NOT_FOUND: u32 = 10_059;
pub(super) const STREAM_EXISTS: u32 = 10_058;
pub(super) const NOT_CLUSTERED: u32 = 10_074;
pub(super) const NO_PEERS: u32 = 10_005;
pub(super) const NOT_ENABLED: [u32; 2] = [10_039, 10_076];
pub(super) const MAX_BYTES_REQUIRED: u32 = 10_113;
/// The account's limits: consumers, streams, bytes.
pub(super) const ACCOUNT_LIMITS: [u32; 5] = [10_002, 10_026, 10_027, 10_047, 10_122];
const WRONG_LAST_SEQUENCE: [u32; 2] = [10_071, 10_164];
const BATCH_INCOMPLETE: u32 = 10_176;
const TOO_MANY_BATCHES: u32 = 10_210;
const BATCHES_DISABLED: u32 = 10_174;
const STORE_FAILED: u32 = 10_077;
const MESSAGE_TOO_LARGE: u32 = 10_054;
const NO_ROOM: [u32; 3] = [10_002, 10_023, 10_047];

/// A barrier's time to live: much longer than a read behind it takes. A client's next barrier replaces it; the last
/// barrier of a client that is gone expires.
const BARRIER_IS_KEPT: &str = "1h";

#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    error: Option<ApiError>,
    batch: Option<String>,
    #[serde(default)]
    count: usize,
}

/// Whether a batch's answer says that it was stored as a batch. A server before 2.12 ignores the batch's headers,
/// stores the messages one by one, and acknowledges the last.
pub(super) fn was_a_batch(message: &Message, id: &str, count: usize) -> bool {
    match serde_json::from_slice::<PubAck>(&message.payload) {
        Ok(PubAck { error: None, batch, count: stored, .. }) => {
            batch.as_deref() == Some(id) && stored == count
        }
        _ => true,
    }
}

/// Reads the answer to a publish to the stream `stream`.
pub(super) fn ack(stream: &str, message: &Message) -> Ack {
    if status(message) == Some(503) {
        return Ack::Again(no_leader(stream));
    }
    let Ok(ack) = serde_json::from_slice::<PubAck>(&message.payload) else {
        let error = format!("the server's answer about {stream} cannot be read");
        return Ack::Not(WriteError::Unknown(Error::unavailable(error)));
    };
    let Some(error) = ack.error else { return Ack::Stored(ack.seq) };
    let text = format!("stream {stream}: {} ({})", error.description, error.err_code);
    match error.err_code {
        code if WRONG_LAST_SEQUENCE.contains(&code) => Ack::Not(WriteError::Refused),
        BATCH_INCOMPLETE | TOO_MANY_BATCHES => Ack::Again(Error::unavailable(text)),
        BATCHES_DISABLED => Ack::Not(WriteError::Failed(Error::unavailable(format!(
            "{text}; switch allow_atomic on for it (nats-server 2.12 or later)"
        )))),
        MESSAGE_TOO_LARGE => Ack::Not(WriteError::Failed(Error::unavailable(format!(
            "{text}; lift its max_msg_size"
        )))),
        // The server checks both of these conditions before it proposes the message to the replicas.
        code if NO_ROOM.contains(&code)
            || code == STORE_FAILED && error.description.contains("maximum") =>
        {
            Ack::Not(WriteError::Failed(Error::unavailable(format!(
                "{text}; nothing more can be stored until its limit is raised or space is freed"
            ))))
        }
        _ => Ack::Not(WriteError::Unknown(Error::unavailable(text))),
    }
}

pub(super) fn no_leader(stream: &str) -> Error {
    Error::unavailable(format!("stream {stream} has no leader that answers just now"))
}

pub(super) fn status(message: &Message) -> Option<u16> {
    message.status.map(|status| status.as_u16())
}

pub(super) fn header<'a>(message: &'a Message, name: &'static str) -> Option<&'a str> {
    Some(message.headers.as_ref()?.get(name)?.as_str())
}

pub(super) fn number(message: &Message, name: &'static str) -> Option<u64> {
    header(message, name)?.parse().ok()
}

/// Reads the record in a message of an answer. Its key follows `prefix` in the subject.
pub(super) fn entry(prefix: &str, message: Message) -> Option<Entry> {
    let key = header(&message, SUBJECT)?.strip_prefix(prefix)?.to_owned();
    let (sequence, removal) = (number(&message, SEQUENCE)?, is_removal(&message));
    Some(Entry { key, sequence, removal, value: message.payload })
}

/// Whether a stored message marks its key as deleted.
pub(super) fn is_removal(message: &Message) -> bool {
    header(message, KV_OPERATION).is_some_and(|operation| operation != "PUT")
}

/// The headers of a put.
pub(super) fn headers(put: &Put) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if put.removal {
        headers.insert(KV_OPERATION, "DEL");
    }
    if let Some(sequence) = put.expect {
        headers.insert(EXPECTED, sequence.to_string());
    }
    if put.first {
        headers.insert(EXPECTED_OF_ALL, "0");
    }
    if bucket_key::is_barrier(&put.key) {
        headers.insert(TTL, BARRIER_IS_KEPT);
    }
    headers
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn message(payload: &str) -> Message {
        Message {
            subject: "a".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length: payload.len(),
        }
    }

    fn error(code: u32, description: &str) -> String {
        format!(
            r#"{{"error":{{"code":400,"err_code":{code},"description":"{description}"}},"seq":0}}"#
        )
    }

    #[rstest]
    #[case::stored(r#"{"stream":"KV_a","seq":7}"#, "Stored(7)")]
    #[case::refused(&error(10_071, "wrong last sequence: 3"), "Not(Refused)")]
    #[case::refused_too(&error(10_164, "wrong last sequence"), "Not(Refused)")]
    #[case::incomplete(&error(10_176, "incomplete"), "Again")]
    #[case::busy(&error(10_210, "too many"), "Again")]
    #[case::disabled(&error(10_174, "atomic publish is disabled"), "Not(Failed")]
    #[case::full(&error(10_077, "maximum bytes exceeded"), "Not(Failed")]
    #[case::large(&error(10_054, "message size exceeds maximum allowed"), "Not(Failed")]
    #[case::disk(&error(10_077, "no space left on device"), "Not(Unknown")]
    #[case::anything_else(&error(10_008, "temporarily unavailable"), "Not(Unknown")]
    #[case::garbage("{", "Not(Unknown")]
    fn acknowledgements(#[case] payload: &str, #[case] expected: &str) {
        let ack = format!("{:?}", ack("KV_a", &message(payload)));
        assert!(ack.starts_with(expected), "{ack}");
    }

    #[rstest]
    #[case::whole(r#"{"stream":"KV_a","seq":7,"batch":"b","count":3}"#, true)]
    #[case::no_batch(r#"{"stream":"KV_a","seq":7}"#, false)]
    #[case::another(r#"{"stream":"KV_a","seq":7,"batch":"c","count":3}"#, false)]
    #[case::in_part(r#"{"stream":"KV_a","seq":7,"batch":"b","count":2}"#, false)]
    #[case::refused(&error(10_071, "wrong last sequence: 3"), true)]
    fn a_batch_that_was_stored_one_by_one_is_noticed(#[case] payload: &str, #[case] whole: bool) {
        assert_eq!(was_a_batch(&message(payload), "b", 3), whole);
    }
}
