//! The servers the tests run on are tested too: they start, break as they are told, heal, and
//! leave nothing behind.

#![cfg(all(feature = "jetstream", unix))]

use std::time::{Duration, Instant};

use async_nats::jetstream;
use membership_conformance::nats::{Cluster, ClusterOptions};

async fn start(servers: usize) -> Cluster {
    let begun = Instant::now();
    let cluster = Cluster::start(ClusterOptions::servers(servers)).await.unwrap();
    println!("{} x {servers} started in {:?}", cluster.server(), begun.elapsed());
    cluster
}

/// A client through a node's link, which waits two seconds for an acknowledgement.
async fn client(cluster: &Cluster, node: usize) -> jetstream::Context {
    let url = cluster.client_url(node).unwrap();
    let client = cluster.connect_options().connect(url).await.unwrap();
    let mut context = jetstream::new(client);
    context.set_timeout(Duration::from_secs(2));
    context
}

async fn stream(context: &jetstream::Context, name: &str, replicas: usize) {
    let config = jetstream::stream::Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        num_replicas: replicas,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
}

/// Publishes and says whether it was acknowledged.
async fn publish(context: &jetstream::Context, stream: &str) -> bool {
    match context.publish(format!("{stream}.x"), "x".into()).await {
        Ok(ack) => ack.await.is_ok(),
        Err(_) => false,
    }
}

/// Waits until `so`, thirty seconds at most; how long it took.
async fn until(what: &str, so: impl AsyncFn() -> bool) -> Duration {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{what}: {:?}", begun.elapsed());
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_answers_with_jetstream() {
    let cluster = start(1).await;
    let context = client(&cluster, 0).await;
    stream(&context, "one", 1).await;
    assert!(publish(&context, "one").await);
    assert_eq!(cluster.leader_of("one").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_replicate() {
    let cluster = start(3).await;
    let context = client(&cluster, 1).await;
    let begun = Instant::now();
    stream(&context, "three", 3).await;
    println!("first stream of three replicas in {:?}", begun.elapsed());
    assert!(publish(&context, "three").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_servers_replicate() {
    let cluster = start(5).await;
    let context = client(&cluster, 4).await;
    let begun = Instant::now();
    stream(&context, "five", 5).await;
    println!("first stream of five replicas in {:?}", begun.elapsed());
    assert!(publish(&context, "five").await);
}
