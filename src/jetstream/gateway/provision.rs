//! Makes the five buckets if they are absent, and checks those that exist.

use futures_util::future;
use tokio::time::Instant;

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::bucket_settings::Settings;
use crate::jetstream::gateway::exchange::{Fresh, Put, ReadError, WriteError};
use crate::jetstream::gateway::tries::Gateway;
use crate::jetstream::stored::bucket::Bucket;
use crate::jetstream::stored::format::{self, FormatRecord};
use crate::jetstream::stored::{bucket_key, codec, random_id};
use crate::trace::event;

/// Makes or checks all buckets.
///
/// The first message of each bucket has the store's id. This message is stored once all five buckets exist. So every
/// bucket of a used store has that message. A bucket that is missing or empty beside used ones was lost, and is not
/// made again.
pub(in crate::jetstream) async fn all(
    gateway: &Gateway,
    prefix: &str,
    replicas: u8,
    must_exist: bool,
    deadline: Instant,
) -> Result<String, Error> {
    if let Some((missing, used)) = missing(gateway, deadline).await? {
        if used {
            let problem = "missing, though other buckets of the store are in use: restore it";
            return Err(Error::corrupt(format!("{prefix}{missing}"), bucket_key::FORMAT, problem));
        }
        if must_exist {
            let problem = format!(
                "is set, but there is no bucket {prefix}{missing}; look at servers, account and prefix, \
                 or open once without it to make a new store"
            );
            return Err(Invalid::new("must_exist", problem).into());
        }
    }
    let each = Bucket::ALL.map(|bucket| async move {
        Ok::<_, Error>((bucket, one(gateway, bucket, prefix, replicas, deadline).await?))
    });
    let pristine = future::try_join_all(each).await?;
    if must_exist && pristine.first().is_some_and(|(_, pristine)| *pristine) {
        let problem = format!("is set, but the buckets with the prefix {prefix:?} were never used");
        return Err(Invalid::new("must_exist", problem).into());
    }
    let claim =
        |bucket: Bucket| Claim { gateway, bucket, name: format!("{prefix}{bucket}"), deadline };
    // The first bucket decides the store's id.
    let mut pristine = pristine.into_iter();
    let first = pristine.next().ok_or_else(|| Error::unavailable("a store has buckets"))?;
    let store = claim(first.0).settle(first.1, None).await?;
    let others = pristine.map(|(bucket, pristine)| {
        let (claim, store) = (claim(bucket), store.clone());
        async move { claim.settle(pristine, Some(store)).await }
    });
    future::try_join_all(others).await?;
    Ok(store)
}

/// Returns a missing bucket, if there is one, and whether any other bucket was ever used.
async fn missing(gateway: &Gateway, deadline: Instant) -> Result<Option<(Bucket, bool)>, Error> {
    let mut pause = Pause::new(deadline.min(Instant::now() + gateway.patience() * 2));
    let mut known_used = false;
    loop {
        let look = Bucket::ALL.map(|bucket| gateway.bucket(bucket, deadline));
        let found = future::try_join_all(look).await?;
        let missing = Bucket::ALL.into_iter().zip(&found).find(|(_, state)| state.is_none());
        let Some((missing, _)) = missing else { return Ok(None) };
        let used = found.iter().flatten().any(|state| state.last > 0);
        // The five requests are answered at different moments, and another client may make all five buckets in between.
        // So a missing bucket counts only if the requests began after another bucket was known to be used. Besides, a
        // server of a cluster may not know yet of a bucket that was just made.
        if !used || (known_used && pause.after(Error::Timeout).await.is_err()) {
            return Ok(Some((missing, used)));
        }
        known_used = true;
    }
}

/// Makes or checks one bucket. Returns whether nothing was ever stored in it.
async fn one(
    gateway: &Gateway,
    bucket: Bucket,
    prefix: &str,
    replicas: u8,
    deadline: Instant,
) -> Result<bool, Error> {
    let name = format!("{prefix}{bucket}");
    let mut pause = Pause::new(deadline);
    let mut made = false;
    let state = loop {
        if let Some(state) = gateway.bucket(bucket, deadline).await? {
            break state;
        }
        // In a cluster one server may report that the bucket was made while another reports that there is none.
        if made {
            let unknown = format!("the bucket {name} was made, and is not there yet");
            pause.after(Error::unavailable(unknown)).await?;
        }
        gateway.make_bucket(bucket, replicas, deadline).await?;
        event!(bucket: debug, "made, unless another client just did", bucket = name, replicas);
        made = true;
    };
    let settings = state.settings.clone().brought_forward(bucket);
    check(&name, bucket, &settings)?;
    if settings != state.settings {
        event!(bucket: info, "the settings are brought forward to this version", bucket = name);
        gateway.change_bucket(bucket, &settings, deadline).await?;
    }
    Ok(state.last == 0)
}

/// Refuses settings with which the contract cannot be kept.
pub(in crate::jetstream) fn check(
    name: &str,
    bucket: Bucket,
    settings: &Settings,
) -> Result<(), Error> {
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
        return refuse(what, &edit("--allow-batch, on nats-server 2.12.1 or later"));
    }
    if settings.deny_purge != (bucket == Bucket::Users) {
        return if settings.deny_purge {
            refuse("allows no purge (deny_purge), so garbage could not be collected", again)
        } else {
            refuse("allows a purge of users (deny_purge)", &edit("--deny-purge"))
        };
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

/// More than the largest message that the store writes.
const MESSAGE: i64 = 512 * 1024;

/// A bucket whose first message is being found or written.
struct Claim<'a> {
    gateway: &'a Gateway,
    bucket: Bucket,
    name: String,
    deadline: Instant,
}

impl Claim<'_> {
    /// Finds or writes the first message, and returns its store's id. `store` is the id of the buckets before this one.
    async fn settle(&self, pristine: bool, store: Option<String>) -> Result<String, Error> {
        if pristine {
            self.write(store.as_ref()).await?;
        }
        let Some(found) = self.found().await? else {
            let problem =
                "missing, though the bucket was used: it was purged, or is not this store's";
            return Err(Error::corrupt(self.name.as_str(), bucket_key::FORMAT, problem));
        };
        if store.is_some_and(|store| store != found) {
            let problem = "of another store than the other buckets: restore all five together";
            return Err(Error::corrupt(self.name.as_str(), bucket_key::FORMAT, problem));
        }
        Ok(found)
    }

    /// Writes the first message, unless the bucket has one. Nothing else may be written before it, not even a barrier:
    /// a used bucket without its first message counts as lost. The servers refuse the message if the bucket was used
    /// and emptied after this call found the bucket new.
    async fn write(&self, store: Option<&String>) -> Result<(), Error> {
        let Self { gateway, bucket, deadline, .. } = *self;
        let id = store.cloned().map_or_else(random_id::fresh, Ok)?;
        let value = codec::seal_record(bucket, bucket_key::FORMAT, &FormatRecord::new(id))?;
        let put = Put::first(bucket_key::FORMAT.to_owned(), value);
        let mut pause = Pause::new(deadline);
        loop {
            let error = match gateway.publish(bucket, put.clone(), deadline).await {
                Ok(_) => return Ok(()),
                Err(WriteError::Failed(error)) => return Err(error),
                Err(WriteError::Unknown(error)) => error,
                // The bucket has another first message, or a former leader refused the write, which proves nothing.
                Err(WriteError::Refused) => Error::Timeout,
            };
            // Any replica's first message counts, since that message was stored and stays for good.
            let soon = deadline.min(Instant::now() + gateway.patience());
            let wanted = [bucket_key::FORMAT.to_owned()];
            match gateway.read(bucket, &wanted, Fresh::Whatever, soon).await {
                Ok(found) if found.find(bucket_key::FORMAT).is_some() => return Ok(()),
                Ok(_) | Err(ReadError::Late(_) | ReadError::TooMany) => {}
                Err(ReadError::Failed(error)) => return Err(error),
            }
            // A message was stored in the bucket, so this write can never succeed. The caller checks for the first
            // message.
            if gateway.bucket(bucket, soon).await.is_ok_and(|s| s.is_some_and(|s| s.last > 0)) {
                return Ok(());
            }
            pause.after(error).await?;
        }
    }

    /// The store's id in the bucket's first message, if there is one.
    async fn found(&self) -> Result<Option<String>, Error> {
        let Self { gateway, bucket, deadline, .. } = *self;
        let passed = gateway.pass(bucket, deadline).await?;
        let key = bucket_key::FORMAT.to_owned();
        let found = gateway.read(bucket, &[key], Fresh::Barrier(passed), deadline).await;
        let found = found.map_err(|error| error.for_few_keys(bucket))?;
        let entry = found.find(bucket_key::FORMAT);
        entry.map(|entry| format::store_of(bucket, &entry.value, entry.removal)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn other(settings: &mut Settings, name: &str, value: impl Into<serde_json::Value>) {
        settings.others.insert(name.to_owned(), value.into());
    }

    fn settings(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings {
            name: "KV_rooms".to_owned(),
            subjects: vec!["$KV.rooms.>".to_owned()],
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
        check("rooms", Bucket::Rooms, &settings)
            .map_or_else(|error| error.to_string(), |()| String::new())
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
                said.starts_with("invalid bucket: rooms ") && said.contains(expected),
                "{said}"
            );
        }
    }
}
