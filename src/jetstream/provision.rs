//! The five buckets: made where they are absent, checked where they are present.

use futures_util::future;
use tokio::time::Instant;

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::bucket::Bucket;
use crate::jetstream::codec::{self, FORMAT_VERSION};
use crate::jetstream::core::few;
use crate::jetstream::gateway::{Gateway, Pause, Put, ReadError, Settings, WriteError};
use crate::jetstream::key;
use crate::jetstream::record::FormatRecord;

/// The oldest nats-server with atomic batches.
const OLDEST: (u64, u64) = (2, 12);

/// Refuses a server that does not know what the store relies on: 2.11 takes the headers of an
/// atomic batch and stores its messages one by one.
pub(super) fn check_version(version: &str) -> Result<(), Error> {
    let mut numbers = version.split(['.', '-']).map(str::parse::<u64>);
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) >= OLDEST
    {
        return Ok(());
    }
    let problem = format!(
        "runs nats-server {version}, which has no atomic batches; upgrade it to 2.12 or later"
    );
    Err(Invalid::new("server", problem).into())
}

/// Makes or checks all buckets.
pub(super) async fn all(
    gateway: &Gateway,
    prefix: &str,
    replicas: u8,
    by: Instant,
) -> Result<(), Error> {
    let each = Bucket::ALL.map(|bucket| one(gateway, bucket, prefix, replicas, by));
    future::try_join_all(each).await.map(drop)
}

async fn one(
    gateway: &Gateway,
    bucket: Bucket,
    prefix: &str,
    replicas: u8,
    by: Instant,
) -> Result<(), Error> {
    let name = format!("{prefix}{bucket}");
    let mut pause = Pause::new(by);
    let mut made = false;
    let state = loop {
        if let Some(state) = gateway.bucket(bucket, by).await? {
            break state;
        }
        // In a cluster one server may say that it was made, and another that it knows of none.
        if made {
            let unknown = format!("the bucket {name} was made, and is not there yet");
            pause.after(Error::unavailable(unknown)).await?;
        }
        gateway.make_bucket(bucket, replicas, by).await?;
        made = true;
    };
    check(&name, &state.settings)?;
    claim(gateway, bucket, &name, by).await
}

/// Refuses settings under which the contract does not hold.
fn check(name: &str, settings: &Settings) -> Result<(), Error> {
    let stream = &settings.name;
    let refuse = |what: &str, change: &str| {
        let problem = format!("{name} {what}; {change} (stream {stream})");
        Err(Error::from(Invalid::new("bucket", problem)))
    };
    let edit = |flag: &str| format!("change it with: nats stream edit {stream} {flag}");
    let again = "remove it, or use another prefix, and let it be made again";
    if settings.subjects != [format!("$KV.{name}.>")] {
        return refuse("has other subjects than its own keys", again);
    }
    if settings.mirror.is_some() || settings.sources.is_some() {
        return refuse("is a mirror or has sources", again);
    }
    if settings.subject_transform.is_some() {
        return refuse("transforms its keys", &edit("and remove the transform"));
    }
    if settings.storage != "file" {
        return refuse("is kept in memory: a restart would lose it", again);
    }
    if settings.retention != "limits" {
        return refuse("forgets what was read (its retention is not \"limits\")", again);
    }
    if settings.max_age != 0 {
        return refuse("forgets what is old (max_age)", &edit("--max-age=0"));
    }
    if settings.max_msgs_per_subject != 1 {
        return refuse("keeps more than one revision of a key", &edit("--max-msgs-per-subject=1"));
    }
    if settings.discard_new_per_subject {
        return refuse("refuses to replace a key", &edit("--no-discard-per-subject"));
    }
    if settings.discard != "new" && (settings.max_bytes > 0 || settings.max_msgs > 0) {
        let what = "forgets the oldest when it is full (discard policy old with a limit)";
        return refuse(what, &edit("--discard=new"));
    }
    if settings.max_msg_size > 0 && settings.max_msg_size < MESSAGE {
        return refuse("takes only small messages (max_msg_size)", &edit("--max-msg-size=-1"));
    }
    if !settings.allow_direct {
        return refuse("allows no direct get (allow_direct)", &edit("--allow-direct"));
    }
    if !settings.allow_atomic {
        let what = "allows no atomic batches (allow_atomic)";
        return refuse(what, &edit("--allow-batch, on nats-server 2.12 or later"));
    }
    if settings.deny_purge {
        return refuse("allows no purge (deny_purge), so garbage could not be collected", again);
    }
    if settings.no_ack {
        return refuse("acknowledges nothing (no_ack)", &edit("--ack"));
    }
    if settings.sealed {
        return refuse("is sealed", again);
    }
    let other = |name| settings.others.get(name);
    if other("allow_msg_counter").is_some_and(|on| on == true) {
        return refuse("takes counters only (allow_msg_counter)", again);
    }
    if other("max_consumers").and_then(serde_json::Value::as_i64).is_some_and(|most| most > 0) {
        let what = "limits who may listen to it (max_consumers)";
        return refuse(what, again);
    }
    if other("consumer_limits").and_then(|l| l.as_object()).is_some_and(|l| !l.is_empty()) {
        return refuse("limits who listens to it (consumer_limits)", again);
    }
    if settings.persist_mode.as_deref().is_some_and(|mode| mode == "async") {
        return refuse("acknowledges before it stores (persist_mode async)", again);
    }
    Ok(())
}

/// The largest message the store writes, and some.
const MESSAGE: i64 = 512 * 1024;

/// Finds or writes the record that says whose the bucket is and of which version.
async fn claim(gateway: &Gateway, bucket: Bucket, name: &str, by: Instant) -> Result<(), Error> {
    let key = key::FORMAT.to_owned();
    let mut pause = Pause::new(by);
    loop {
        let sequence = gateway.publish(bucket, barrier(), by).await.map_err(unwritten)?;
        if let Some(checked) = claimed(gateway, bucket, sequence, by).await? {
            return checked;
        }
        // Ours to claim, if nobody else has used it.
        let used = match gateway.read(bucket, &[">".to_owned()], sequence, by).await {
            Ok(all) => !all.entries.is_empty(),
            Err(ReadError::TooMany) => true,
            Err(ReadError::Failed(error)) => return Err(error),
        };
        if used {
            // It may have been claimed, and used, between the two looks.
            let sequence = gateway.publish(bucket, barrier(), by).await.map_err(unwritten)?;
            return match claimed(gateway, bucket, sequence, by).await? {
                Some(checked) => checked,
                None => {
                    let problem = "missing, though the bucket is in use: it is not this store's";
                    Err(Error::corrupt(name, key, problem))
                }
            };
        }
        let record = FormatRecord { membership_format: FORMAT_VERSION };
        let value = codec::seal_record(bucket, &key, &record)?;
        let error =
            match gateway.publish(bucket, Put::new(key.clone(), value).expecting(0), by).await {
                Ok(_) => return Ok(()),
                // Somebody else was faster; what they wrote counts.
                Err(WriteError::Refused) => Error::Timeout,
                Err(error) => unwritten(error),
            };
        pause.after(error).await?;
    }
}

fn barrier() -> Put {
    Put::new(key::BARRIER.to_owned(), bytes::Bytes::new())
}

/// Whether the record that says whose the bucket is is there, and if so, whether it is ours.
async fn claimed(
    gateway: &Gateway,
    bucket: Bucket,
    sequence: u64,
    by: Instant,
) -> Result<Option<Result<(), Error>>, Error> {
    let key = key::FORMAT.to_owned();
    let found = gateway.read(bucket, std::slice::from_ref(&key), sequence, by).await;
    let found = found.map_err(|error| few(bucket, error))?;
    Ok(found.find(&key).map(|entry| check_format(bucket, &entry.value, entry.removal)))
}

fn unwritten(error: WriteError) -> Error {
    match error {
        WriteError::Refused => Error::unavailable("a write that expects nothing was refused"),
        WriteError::Unknown(error) | WriteError::Failed(error) => error,
    }
}

fn check_format(bucket: Bucket, value: &[u8], removal: bool) -> Result<(), Error> {
    let corrupt = |problem: String| Err(Error::corrupt(bucket.name(), key::FORMAT, problem));
    if removal {
        return corrupt("removed by hand".to_owned());
    }
    let record: FormatRecord = codec::open_record(bucket, key::FORMAT, value)?;
    match record.membership_format {
        FORMAT_VERSION => Ok(()),
        other => corrupt(format!(
            "format {other}, and this program knows {FORMAT_VERSION}; use the program that made it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2.12.0", true)]
    #[case("2.15.1", true)]
    #[case("2.15.0-dev", true)]
    #[case("3.0.0", true)]
    #[case("2.11.9", false)]
    #[case("2.9.25", false)]
    #[case("", false)]
    fn versions(#[case] version: &str, #[case] good: bool) {
        assert_eq!(check_version(version).is_ok(), good);
    }

    fn other(settings: &mut Settings, name: &str, value: impl Into<serde_json::Value>) {
        settings.others.insert(name.to_owned(), value.into());
    }

    fn settings(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings {
            name: "KV_users".to_owned(),
            subjects: vec!["$KV.users.>".to_owned()],
            retention: "limits".to_owned(),
            storage: "file".to_owned(),
            discard: "new".to_owned(),
            max_msgs_per_subject: 1,
            max_msgs: -1,
            max_bytes: -1,
            max_msg_size: -1,
            allow_direct: true,
            allow_atomic: true,
            ..Settings::default()
        };
        change(&mut settings);
        check("users", &settings).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[rstest]
    #[case::ours(settings(|_| ()), "")]
    #[case::limited(settings(|s| s.max_bytes = 1 << 30), "")]
    #[case::ttl(settings(|s| s.max_age = 1), "max_age")]
    #[case::history(settings(|s| s.max_msgs_per_subject = 2), "more than one revision")]
    #[case::discard(
        settings(|s| { s.max_bytes = 9; s.discard = "old".into(); }),
        "discard policy old"
    )]
    #[case::few(
        settings(|s| { s.max_msgs = 9; s.discard = "old".into(); }),
        "discard policy old"
    )]
    #[case::never_full(settings(|s| s.discard = "old".into()), "")]
    #[case::zero_is_no_limit(
        settings(|s| {
            s.discard = "old".into();
            (s.max_bytes, s.max_msgs) = (0, 0);
            s.max_msg_size = 0;
            other(s, "max_consumers", 0);
        }),
        ""
    )]
    #[case::large_enough(settings(|s| s.max_msg_size = MESSAGE), "")]
    #[case::mirror(settings(|s| s.mirror = Some(true.into())), "mirror")]
    #[case::sources(settings(|s| s.sources = Some(true.into())), "sources")]
    #[case::listeners(
        settings(|s| other(s, "consumer_limits", serde_json::json!({ "max_ack_pending": 1 }))),
        "consumer_limits"
    )]
    #[case::any_listeners(
        settings(|s| other(s, "consumer_limits", serde_json::json!({}))),
        ""
    )]
    #[case::memory(settings(|s| s.storage = "memory".into()), "in memory")]
    #[case::work_queue(settings(|s| s.retention = "workqueue".into()), "retention")]
    #[case::subjects(settings(|s| s.subjects.push("a".into())), "other subjects")]
    #[case::direct(settings(|s| s.allow_direct = false), "allow_direct")]
    #[case::atomic(settings(|s| s.allow_atomic = false), "allow_atomic")]
    #[case::purge(settings(|s| s.deny_purge = true), "deny_purge")]
    #[case::small(settings(|s| s.max_msg_size = 100), "max_msg_size")]
    #[case::acks(settings(|s| s.no_ack = true), "no_ack")]
    #[case::hasty(settings(|s| s.persist_mode = Some("async".into())), "persist_mode")]
    #[case::counter(settings(|s| other(s, "allow_msg_counter", true)), "allow_msg_counter")]
    #[case::crowded(settings(|s| other(s, "max_consumers", 1)), "max_consumers")]
    #[case::free(settings(|s| other(s, "max_consumers", -1)), "")]
    fn what_would_break_the_contract_is_refused(#[case] said: String, #[case] expected: &str) {
        if expected.is_empty() {
            assert_eq!(said, "");
        } else {
            assert!(
                said.starts_with("invalid bucket: users ") && said.contains(expected),
                "{said}"
            );
        }
    }

    #[test]
    fn another_format_is_corrupt() {
        let key = key::FORMAT;
        let record = FormatRecord { membership_format: 2 };
        let value = codec::seal_record(Bucket::Users, key, &record).unwrap();
        let error = check_format(Bucket::Users, &value, false).unwrap_err().to_string();
        assert_eq!(
            error,
            "corrupt users =format: format 2, and this program knows 1; use the program that made it"
        );
    }
}
