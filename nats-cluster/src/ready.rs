//! Waits until clusters serve, and looks up and moves leaders.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, join_all};
use serde_json::Value;

use super::cluster::refused;
use super::monitor::{self, Health, JetStream, StreamCluster, Subscriptions};
use super::{Cluster, NatsError, Node, Replica};

/// How long a cluster may take until it serves. A missed election costs up to nine seconds. A
/// server that led while it was cut off, and accepted writes that were never acknowledged, catches
/// up with the others in steps of two seconds each. After a cut of fifteen seconds fourteen such
/// steps were seen (nats-server 2.15.1: "Expected first catchup entry to be a snapshot and
/// peerstate, will retry").
const PATIENCE: Duration = Duration::from_secs(75);

/// The shortest and the longest pause between two looks. In between, the pause is a tenth of the
/// time waited so far, so that long waits cost little and end hardly later.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

pub(super) async fn wait(cluster: &Cluster, jetstream: bool) -> Result<(), NatsError> {
    within("the cluster ready", cluster, || Box::pin(look(cluster, jetstream))).await
}

/// Repeats `look` until it succeeds. The future is boxed, since the compiler cannot prove that the
/// future of an async closure is `Send`.
async fn within<'a, T>(
    what: &str,
    cluster: &Cluster,
    look: impl Fn() -> BoxFuture<'a, Result<T, String>>,
) -> Result<T, NatsError> {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(missing) if began.elapsed() > PATIENCE => {
                cluster.keep_logs();
                let state = format!("{missing}\n{}", cluster.logs(5));
                let what = what.to_owned();
                return Err(NatsError::TooLate { what, seconds: PATIENCE.as_secs(), state });
            }
            Err(_) => tokio::time::sleep((began.elapsed() / 10).clamp(PAUSE.0, PAUSE.1)).await,
        }
    }
}

/// Looks once whether the cluster serves. The error says what is missing.
async fn look(cluster: &Cluster, jetstream: bool) -> Result<(), String> {
    let running: Vec<usize> =
        (0..cluster.nodes().len()).filter(|node| up(cluster, *node)).collect();
    if 2 * running.len() <= cluster.nodes().len() && !cluster.nodes().is_empty() {
        return Err("most nodes are down".to_owned());
    }
    if jetstream && cluster.size() > 1 {
        let views = join_all(cluster.nodes().iter().map(|node| jetstream_at(node, "/jsz"))).await;
        let mut leaders = Vec::new();
        for view in views.into_iter().flatten() {
            let meta = view?.meta_cluster.ok_or("no list of streams yet")?;
            let others = meta.replicas.iter().filter(|peer| peer.current && !peer.offline).count();
            leaders.push((meta.leader, others));
        }
        let (leader, _) = leaders.first().ok_or("no node answers")?;
        if leader.is_empty() || leaders.iter().any(|(other, _)| other != leader) {
            return Err("no common leader".to_owned());
        }
        // Only the leader reports its followers, which must be all other running nodes.
        let followers = leaders.iter().map(|(_, others)| *others).max().unwrap_or(0);
        if followers + 1 < running.len() {
            return Err(format!("only {followers} nodes follow {leader}"));
        }
    }
    // The health check comes last, since a server logs each time that it fails.
    for answer in join_all(cluster.nodes().iter().map(health)).await {
        answer?;
    }
    let everybody = if cluster.nodes().is_empty() { vec![0] } else { running };
    for answer in join_all(everybody.iter().map(|node| answers(cluster, *node, jetstream))).await {
        answer?;
    }
    if jetstream && cluster.size() > 1 { places(cluster, &everybody).await } else { Ok(()) }
}

fn up(cluster: &Cluster, node: usize) -> bool {
    cluster.node(node).is_ok_and(|node| node.ports().is_some())
}

async fn health(node: &Node) -> Result<(), String> {
    let Some(ports) = node.ports() else { return Ok(()) };
    let health: Health = monitor::get(ports.monitor, "/healthz").await?;
    match health.error {
        None if health.status == "ok" => Ok(()),
        error => Err(format!("{}: {}", node.name(), error.unwrap_or(health.status))),
    }
}

async fn jetstream_at(node: &Node, path: &str) -> Option<Result<JetStream, String>> {
    Some(monitor::get(node.ports()?.monitor, path).await)
}

/// JetStream's state with all streams, of which there may be hundreds.
async fn streams(node: &Node) -> Option<Result<JetStream, String>> {
    jetstream_at(node, "/jsz?streams=true").await
}

/// Checks that a client is let in, and that JetStream answers it.
async fn answers(cluster: &Cluster, node: usize, jetstream: bool) -> Result<(), String> {
    let client = cluster.admin(node).await.map_err(|error| error.to_string())?;
    if jetstream {
        request(&client, "$JS.API.INFO").await
    } else {
        client.flush().await.map_err(|error| error.to_string())
    }
}

/// Checks that a stream with a replica on every running node can be made. For a moment after its
/// election a leader does not know yet how much room its followers have, and refuses.
async fn places(cluster: &Cluster, running: &[usize]) -> Result<(), String> {
    static PROBES: AtomicU64 = AtomicU64::new(0);
    let first = *running.first().ok_or("no node runs")?;
    let client = cluster.admin(first).await.map_err(|error| error.to_string())?;
    let probe = PROBES.fetch_add(1, Ordering::Relaxed);
    let name = format!("READY_{}_{probe}", std::process::id());
    let config = serde_json::json!({
        "name": name,
        "subjects": [name],
        "storage": "memory",
        "num_replicas": running.len(),
    });
    ask(&client, &format!("$JS.API.STREAM.CREATE.{name}"), config.to_string()).await?;
    request(&client, &format!("$JS.API.STREAM.DELETE.{name}")).await
}

/// Sends a request to JetStream; an answer with an error is an error.
async fn request(client: &async_nats::Client, subject: &str) -> Result<(), String> {
    ask(client, subject, String::new()).await
}

async fn ask(client: &async_nats::Client, subject: &str, body: String) -> Result<(), String> {
    let answer = client.request(subject.to_owned(), body.into()).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let answer: Value =
        serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
    match answer.get("error") {
        None => Ok(()),
        Some(error) => Err(error.to_string()),
    }
}

/// The name of a stream's leader as this node sees it, and how many replicas the stream has. `None`
/// if the node has no replica, does not answer, or knows no leader.
pub(super) async fn leader(node: &Node, stream: &str) -> Option<(String, usize)> {
    let view = streams(node).await?.ok()?;
    let cluster = view.stream(stream)?.cluster.as_ref();
    match cluster {
        // A single server leads its streams itself.
        None => Some((node.name().to_owned(), 1)),
        Some(StreamCluster { leader, replicas }) => {
            let leader = leader.clone().filter(|leader| !leader.is_empty())?;
            Some((leader, replicas.len() + 1))
        }
    }
}

/// Whether the node, which leads a stream, has a quorum of replicas that follow it. A leader that no
/// other server can follow acknowledges nothing.
pub(super) async fn is_followed(node: &Node, stream: &str) -> bool {
    let Some(Ok(view)) = streams(node).await else { return false };
    let Some(stream) = view.stream(stream) else { return false };
    stream.cluster.as_ref().is_none_or(|cluster| {
        let others = cluster.replicas.iter();
        let follow = others.filter(|other| other.current && !other.offline).count();
        2 * (follow + 1) > cluster.replicas.len() + 1
    })
}

/// The state of a node's replica of a stream; `None` if the node has none, or does not answer.
pub(super) async fn replica(node: &Node, stream: &str) -> Option<Replica> {
    let last_sequence = streams(node).await?.ok()?.stream(stream)?.state.last_seq;
    // A replica that answers direct gets subscribes to their subject. Other replicas subscribe only
    // to all of `$JS.API.>`.
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    let path = format!("/subsz?subs=1&test={subject}");
    let listening: Subscriptions = monitor::get(node.ports()?.monitor, &path).await.ok()?;
    let answers = listening.subscriptions_list.iter().any(|listens| listens.subject == subject);
    Some(Replica { last_sequence, answers })
}

pub(super) async fn step_down(cluster: &Cluster, stream: &str) -> Result<usize, NatsError> {
    let asked = format!("have the leader of {stream} step down");
    let former = cluster.leader_of(stream).await;
    let former = former.ok_or("it has none").map_err(refused(&asked))?;
    let client = cluster.admin(former).await?;
    let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
    request(&client, &subject).await.map_err(refused(&asked))?;
    within(&format!("another leader of {stream}"), cluster, || {
        Box::pin(async move {
            match cluster.leader_of(stream).await {
                Some(leader) if leader != former => Ok(leader),
                Some(_) => Err("the former one leads it".to_owned()),
                None => Err("none leads it".to_owned()),
            }
        })
    })
    .await
}

/// Makes `node` lead a stream, and waits until it does. The server treats the node as a preference
/// only, so the request is repeated.
pub(super) async fn lead(cluster: &Cluster, stream: &str, node: usize) -> Result<(), NatsError> {
    let asked = format!("have n{node} lead {stream}");
    let name = cluster.node(node)?.name().to_owned();
    let body = serde_json::json!({ "placement": { "preferred": name } }).to_string();
    let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
    let (subject, body) = (subject.as_str(), body.as_str());
    within(&asked, cluster, || {
        Box::pin(async move {
            match cluster.leader_of(stream).await {
                Some(leader) if leader == node => Ok(()),
                Some(leader) => {
                    let client = cluster.admin(leader).await.map_err(|error| error.to_string())?;
                    ask(&client, subject, body.to_owned()).await?;
                    Err(format!("n{leader} led it"))
                }
                None => Err("none leads it".to_owned()),
            }
        })
    })
    .await
}
