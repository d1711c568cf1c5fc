//! Harm to buckets: they go back, are replaced, lose records, or are served by an older server.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};

use super::faults;
use super::home::BUCKETS;
use super::instance::JetStreamInstance;
use membership_conformance::{Downgrade, Leaves, Loss, Lost, Replacement, Rewind, TargetError};
use nats_cluster::{Cluster, NatsServer};

const fn rewind(name: &'static str, leaves: Leaves) -> Rewind {
    Rewind { name, closed: false, leaves }
}

const ALL_BACK: Rewind = rewind("the files of every server go back", Leaves::Past);
const TAILS: Rewind = rewind("the files of messages lose their tails", Leaves::Mixture);
const ROOMS: Rewind = rewind("only the bucket rooms goes back", Leaves::Mixture);
const MEMBERS: Rewind = rewind("only the bucket members goes back", Leaves::Mixture);
const INDEX: Rewind = rewind("only the bucket rooms_by_member goes back", Leaves::Mixture);
const KEYS: Rewind = rewind("only the bucket room_keys goes back", Leaves::Mixture);
const USERS: Rewind = rewind("only the bucket users goes back", Leaves::Mixture);
/// The other servers kept all data, and send them to this one.
const ONE_BACK: Rewind = rewind("the files of one server go back", Leaves::Latest);
/// The latest state stays: only the server that kept all data can be elected.
///
/// The servers that start first are a bare majority, so an election needs all their votes. The
/// server that kept all data does not vote for a shorter log.
const KEPT_FIRST: Rewind =
    rewind("the files of most servers go back, and another one is up first", Leaves::Latest);
const KEPT_LAST: Rewind =
    rewind("the files of most servers go back, and another one comes back last", Leaves::Split);

const OF_ONE: &[Rewind] = &[ALL_BACK, TAILS, ROOMS, MEMBERS, INDEX, KEYS, USERS];
const OF_SEVERAL: &[Rewind] = &[ALL_BACK, ONE_BACK, KEPT_FIRST, KEPT_LAST];

pub(super) fn rewinds(servers: u8) -> &'static [Rewind] {
    if servers == 1 { OF_ONE } else { OF_SEVERAL }
}

const DELETED: Replacement = Replacement { name: "every bucket is deleted" };
const EMPTY: Replacement = Replacement { name: "every server is replaced by an empty one" };

pub(super) const REPLACEMENTS: &[Replacement] = &[DELETED, EMPTY];

const fn loss(name: &'static str, of: Lost) -> Loss {
    Loss { name, of, traces: true }
}

const PURGED: Loss = loss("the bucket users is purged", Lost::Users);
const EXPIRED: Loss = loss("the records of users are given an age", Lost::Users);
const USERS_DELETED: Loss = loss("the bucket users is deleted", Lost::Users);
const KEYS_PURGED: Loss = loss("the bucket room_keys is purged", Lost::Keys);
const ROOMS_PURGED: Loss = loss("the bucket rooms is purged", Lost::Rooms);
const MEMBERS_PURGED: Loss = loss("the bucket members is purged", Lost::Rooms);
const INDEX_PURGED: Loss = loss("the bucket rooms_by_member is purged", Lost::Rooms);
const ALL_PURGED: Loss = loss("every bucket is purged", Lost::Everything);

pub(super) const LOSSES: &[Loss] = &[
    PURGED,
    EXPIRED,
    USERS_DELETED,
    KEYS_PURGED,
    ROOMS_PURGED,
    MEMBERS_PURGED,
    INDEX_PURGED,
    ALL_PURGED,
];

/// The last version without atomic batches. This version refuses buckets that a newer version made.
const REFUSES: Downgrade = Downgrade { name: "nats-server 2.11.11" };
/// An earlier version. This version opens buckets that a newer version made, and stores the
/// messages of a batch one by one.
const IGNORES: Downgrade = Downgrade { name: "nats-server 2.11.4" };

pub(super) const DOWNGRADES: &[Downgrade] = &[REFUSES, IGNORES];

/// How long a server may take to answer an operator, or to remove expired messages.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a leader that the others cannot follow is restarted.
const TRIES: usize = 5;

impl JetStreamInstance {
    /// The instance's own servers, marked so that no other case gets them.
    ///
    /// After the harm the servers may differ from one another for good.
    async fn to_spoil(&self) -> Result<&Cluster, TargetError> {
        self.spoiled.store(true, Ordering::SeqCst);
        self.home.cluster(&self.supply).await
    }

    /// Waits until every running server serves and every bucket has a leader.
    async fn serves(&self, cluster: &Cluster) -> Result<(), TargetError> {
        self.harmed.wait(cluster, &self.config.prefix).await
    }

    pub(super) async fn remember_servers(&self) -> Result<(), TargetError> {
        let cluster = self.to_spoil().await?;
        cluster.remember().await?;
        self.serves(cluster).await
    }

    pub(super) async fn rewind_servers(&self, how: &Rewind) -> Result<(), TargetError> {
        let cluster = self.to_spoil().await?;
        let all: Vec<_> = (0..cluster.size()).collect();
        // If only some servers go back, the leader of the bucket `users` is one of them.
        let leads = faults::leader(cluster, &self.config.prefix, "users").await.unwrap_or(0);
        let kept = (leads + 1) % cluster.size();
        let (mut back, mut first) = (all.clone(), all.clone());
        match *how {
            ONE_BACK => back = vec![leads],
            KEPT_FIRST => {
                back.retain(|node| *node != kept);
                let most = std::iter::once(kept).chain(back.iter().copied());
                first = most.take(cluster.size() / 2 + 1).collect();
            }
            KEPT_LAST => {
                back.retain(|node| *node != kept);
                first.clone_from(&back);
            }
            _ => {}
        }
        let killed = if *how == ONE_BACK { &back } else { &all };
        try_join_all(killed.iter().map(|node| cluster.kill(*node))).await?;
        let bucket = BUCKETS.into_iter().zip([ROOMS, MEMBERS, INDEX, KEYS, USERS]);
        let bucket = bucket.into_iter().find_map(|(bucket, of)| (of == *how).then_some(bucket));
        let stream = bucket.map(|bucket| faults::stream(&self.config.prefix, bucket));
        for node in back {
            if *how == TAILS {
                cluster.cut_tails(node)?;
            } else {
                cluster.put_back(node, stream.as_deref())?;
            }
        }
        try_join_all(first.iter().map(|node| cluster.run(*node))).await?;
        self.serves(cluster).await?;
        try_join_all(all.iter().map(|node| cluster.run(*node))).await?;
        if *how == KEPT_LAST {
            self.joined(cluster, kept).await
        } else {
            self.serves(cluster).await
        }
    }

    /// Waits until most servers serve every bucket after the server `kept` came back.
    ///
    /// `kept` has a longer log than the others. That server may never follow the others again,
    /// neither in the list of all streams nor in a single stream. If `kept` becomes a leader, the
    /// others may be unable to follow it, and nothing is acknowledged ("Expected first catchup
    /// entry to be a snapshot and peerstate, will retry", nats-server 2.15.1). Then `kept` is
    /// restarted until another server leads.
    async fn joined(&self, cluster: &Cluster, kept: usize) -> Result<(), TargetError> {
        for _ in 0..TRIES {
            if faults::settles(cluster, &self.config.prefix).await {
                return Ok(());
            }
            cluster.kill(kept).await?;
            cluster.run(kept).await?;
        }
        Err(format!("most servers do not serve; {}", cluster.logs(5)).into())
    }

    pub(super) async fn replace_servers(&self, how: &Replacement) -> Result<(), TargetError> {
        let cluster = self.to_spoil().await?;
        if *how == DELETED {
            for bucket in BUCKETS {
                self.operator("STREAM.DELETE", bucket, &Value::Null).await?;
            }
            return Ok(());
        }
        try_join_all((0..cluster.size()).map(|node| cluster.kill(node))).await?;
        try_join_all((0..cluster.size()).map(|node| cluster.restart_empty(node))).await?;
        Ok(cluster.wait_ready().await?)
    }

    pub(super) async fn lose_records(&self, how: &Loss) -> Result<bool, TargetError> {
        self.to_spoil().await?;
        let emptied = match *how {
            EXPIRED => return self.expire("users").await,
            USERS_DELETED => {
                self.operator("STREAM.DELETE", "users", &Value::Null).await?;
                return Ok(true);
            }
            PURGED => &["users"][..],
            KEYS_PURGED => &["room_keys"],
            ROOMS_PURGED => &["rooms"],
            MEMBERS_PURGED => &["members"],
            INDEX_PURGED => &["rooms_by_member"],
            _ => &BUCKETS[..],
        };
        let purges = emptied.iter().map(|bucket| async {
            self.operator("STREAM.PURGE", bucket, &Value::Null).await.is_ok()
        });
        // If a purge was refused, its records are still there.
        Ok(join_all(purges).await.into_iter().all(|gone| gone))
    }

    /// Sets a `max_age` on a bucket until all messages have expired, and removes it again.
    ///
    /// Returns `false` if the servers refuse the age.
    async fn expire(&self, bucket: &str) -> Result<bool, TargetError> {
        let mut config = self.operator("STREAM.INFO", bucket, &Value::Null).await?;
        let mut config = config.get_mut("config").map(Value::take).unwrap_or_default();
        let age = Duration::from_millis(100).as_nanos().to_string().parse::<u64>()?;
        if let Some(config) = config.as_object_mut() {
            config.insert("max_age".to_owned(), json!(age));
        }
        if self.operator("STREAM.UPDATE", bucket, &config).await.is_err() {
            return Ok(false);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let info = self.operator("STREAM.INFO", bucket, &Value::Null).await?;
            if info.pointer("/state/messages").and_then(Value::as_u64) == Some(0) {
                break;
            }
            // Clients that go on writing barriers may keep the bucket from becoming empty.
            if Instant::now() > deadline {
                return Err(format!("{bucket} still holds messages: {info}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(config) = config.as_object_mut() {
            config.insert("max_age".to_owned(), json!(0));
        }
        self.operator("STREAM.UPDATE", bucket, &config).await?;
        Ok(true)
    }

    /// Makes a request to JetStream's API, as an operator would, and returns the answer.
    async fn operator(&self, what: &str, bucket: &str, body: &Value) -> Result<Value, TargetError> {
        let cluster = self.home.cluster(&self.supply).await?;
        let client = cluster.connect_options()?.request_timeout(Some(PATIENCE));
        let client = client.connect(cluster.direct_url(0)?).await?;
        let subject = format!("$JS.API.{what}.{}", faults::stream(&self.config.prefix, bucket));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = client.request(subject.clone(), body.into()).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(format!("{subject}: {error}").into()),
        }
    }

    pub(super) async fn serve_with_older(&self, to: &Downgrade) -> Result<(), TargetError> {
        let cluster = self.to_spoil().await?;
        let find = if *to == IGNORES { NatsServer::ignorant } else { NatsServer::too_old };
        let older = tokio::task::spawn_blocking(find).await??;
        cluster.serve_with(&older).await?;
        // A server that refuses the buckets elects no leader of them.
        if *to == IGNORES { self.serves(cluster).await } else { Ok(cluster.wait_ready().await?) }
    }

    pub(super) async fn serve_again(&self) -> Result<(), TargetError> {
        let cluster = self.to_spoil().await?;
        cluster.serve_with(cluster.server()).await?;
        self.serves(cluster).await
    }
}
