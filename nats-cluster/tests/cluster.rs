//! Tests of real clusters: they start, break on command, heal, and leave nothing behind.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use async_nats::jetstream;
#[cfg(feature = "docker")]
use nats_cluster::Provision;
use nats_cluster::{Auth, Cluster, ClusterOptions, Flow, Sync};

async fn start(servers: usize) -> Cluster {
    let begun = Instant::now();
    let cluster = Cluster::start(ClusterOptions::servers(servers)).await.unwrap();
    println!("{} x {servers} started in {:?}", cluster.server(), begun.elapsed());
    cluster
}

/// A client through a node's link. The client waits two seconds for an acknowledgement.
async fn client(cluster: &Cluster, node: usize) -> jetstream::Context {
    let url = cluster.client_url(node).unwrap();
    let client = cluster.connect_options().unwrap().connect(url).await.unwrap();
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

/// Publishes a message, and returns whether it was acknowledged.
async fn publish(context: &jetstream::Context, stream: &str) -> bool {
    match context.publish(format!("{stream}.x"), "x".into()).await {
        Ok(ack) => ack.await.is_ok(),
        Err(_) => false,
    }
}

/// Waits until `so` returns true, at most thirty seconds. Returns how long it took.
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

/// All nodes but `node`.
fn others(cluster: &Cluster, node: usize) -> Vec<usize> {
    (0..cluster.size()).filter(|other| *other != node).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_acknowledges_nothing_until_it_is_healed() {
    let cluster = start(3).await;
    stream(&client(&cluster, 0).await, "cut", 3).await;
    let leader = cluster.leader_of("cut").await.unwrap();
    let on_leader = client(&cluster, leader).await;
    assert!(publish(&on_leader, "cut").await);
    // Cutting off the leader is the worst case.
    cluster.isolate(leader).unwrap();
    let majority = client(&cluster, *others(&cluster, leader).first().unwrap()).await;
    assert!(!publish(&on_leader, "cut").await, "an acknowledgement without a quorum");
    until("from cut to the majority's first acknowledgement", async || {
        publish(&majority, "cut").await
    })
    .await;
    assert_ne!(cluster.leader_of("cut").await.unwrap(), leader);
    for _ in 0..2 {
        assert!(!publish(&on_leader, "cut").await, "an acknowledgement without a quorum");
        assert!(publish(&majority, "cut").await);
    }
    assert!(cluster.routes_keep_to_links().await.unwrap());
    cluster.heal();
    until("from heal to an acknowledgement where it was cut", async || {
        publish(&on_leader, "cut").await
    })
    .await;
    let begun = Instant::now();
    cluster.wait_ready().await.unwrap();
    println!("and ready {:?} later", begun.elapsed());
    assert!(cluster.routes_keep_to_links().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_between_nodes_is_a_partition() {
    let cluster = start(3).await;
    let on_cut = client(&cluster, 0).await;
    stream(&on_cut, "hole", 3).await;
    assert!(publish(&on_cut, "hole").await);
    cluster.blackhole(&[0], &[1, 2]).unwrap();
    assert!(!publish(&on_cut, "hole").await, "an acknowledgement without a quorum");
    let majority = client(&cluster, 1).await;
    until("from blackhole to the majority's first acknowledgement", async || {
        publish(&majority, "hole").await
    })
    .await;
    assert!(!publish(&on_cut, "hole").await, "an acknowledgement without a quorum");
    cluster.heal();
    until("from heal to an acknowledgement where the hole was", async || {
        publish(&on_cut, "hole").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_in_one_direction_loses_the_quorum() {
    let cluster = start(3).await;
    let context = client(&cluster, 0).await;
    stream(&context, "way", 3).await;
    let leader = cluster.leader_of("way").await.unwrap();
    for follower in others(&cluster, leader) {
        cluster.one_way(leader, follower, Flow::Blackhole).unwrap();
    }
    let on_leader = client(&cluster, leader).await;
    assert!(!publish(&on_leader, "way").await, "an acknowledgement without a quorum");
    cluster.heal();
    until("from heal of one way to an acknowledgement", async || publish(&on_leader, "way").await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_survives_stop_kill_and_pause() {
    let cluster = Cluster::start(ClusterOptions::servers(1).sync(Sync::Always)).await.unwrap();
    let context = client(&cluster, 0).await;
    stream(&context, "kept", 1).await;
    assert!(publish(&context, "kept").await);

    cluster.restart(0).await.unwrap();
    cluster.wait_ready().await.unwrap();
    assert_eq!(messages(&context, "kept").await, Some(1), "after a stop");

    cluster.kill(0).await.unwrap();
    assert!(!publish(&context, "kept").await, "a dead server acknowledged");
    cluster.run(0).await.unwrap();
    cluster.wait_ready().await.unwrap();
    // The client may have sent the unacknowledged message again by now.
    assert!(messages(&context, "kept").await >= Some(1), "after a kill");

    cluster.pause(0).await.unwrap();
    assert!(!publish(&context, "kept").await, "a frozen server acknowledged");
    cluster.resume(0).await.unwrap();
    until("from resume to an answer", async || messages(&context, "kept").await.is_some()).await;
    assert!(messages(&context, "kept").await >= Some(1), "after a pause");

    cluster.restart_empty(0).await.unwrap();
    cluster.wait_ready().await.unwrap();
    until("from an empty start to the loss", async || messages(&context, "kept").await.is_none())
        .await;
    stream(&context, "kept", 1).await;
}

/// How many messages a stream holds; `None` if no server answers.
async fn messages(context: &jetstream::Context, name: &str) -> Option<u64> {
    Some(context.get_stream(name).await.ok()?.cached_info().state.messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_node_gets_its_data_back_from_the_others() {
    let cluster = start(3).await;
    let context = client(&cluster, 0).await;
    stream(&context, "back", 3).await;
    assert!(publish(&context, "back").await);
    cluster.restart_empty(2).await.unwrap();
    let begun = Instant::now();
    cluster.wait_ready().await.unwrap();
    println!("an emptied node is back in {:?}", begun.elapsed());
    cluster.kill(0).await.unwrap();
    let context = client(&cluster, 2).await;
    until("from a kill to an acknowledgement", async || publish(&context, "back").await).await;
    assert!(messages(&context, "back").await >= Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_steps_down_on_request() {
    let cluster = start(3).await;
    stream(&client(&cluster, 0).await, "hand", 3).await;
    let former = cluster.leader_of("hand").await.unwrap();
    let begun = Instant::now();
    let leader = cluster.step_down("hand").await.unwrap();
    println!("handed over in {:?}", begun.elapsed());
    assert_ne!(former, leader);
    assert_eq!(cluster.leader_of("hand").await, Some(leader));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_reach_the_server() {
    let auth = Auth::User { user: "ann".to_owned(), password: "pa ss\"word".to_owned() };
    let options = ClusterOptions::servers(1).auth(auth).max_file_store(1 << 20);
    let cluster = Cluster::start(options).await.unwrap();
    let url = cluster.client_url(0).unwrap();
    assert!(async_nats::connect(&url).await.is_err(), "somebody without a password was let in");
    let context = client(&cluster, 0).await;
    stream(&context, "full", 1).await;
    let mut stored = 0;
    while let Ok(ack) = context.publish("full.x", vec![0; 100_000].into()).await
        && ack.await.is_ok()
    {
        stored += 1;
        assert!(stored < 20, "more was stored than the limit allows");
    }
    assert!(stored > 5, "only {stored} of ten were stored");

    let token = ClusterOptions::servers(1).auth(Auth::Token("s3cret".to_owned()));
    let cluster = Cluster::start(token.without_jetstream()).await.unwrap();
    let url = cluster.client_url(0).unwrap();
    assert!(async_nats::connect(&url).await.is_err(), "somebody without a token was let in");
    let context = client(&cluster, 0).await;
    assert!(context.query_account().await.is_err(), "JetStream is on");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_sizes_and_nodes_are_refused() {
    let refused = Cluster::start(ClusterOptions::servers(2)).await.unwrap_err();
    assert_eq!(refused.to_string(), "cannot start a cluster of 2: say 1, 3 or 5");
    let cluster = start(1).await;
    assert_eq!(cluster.isolate(1).unwrap_err().to_string(), "no node 1 in a cluster of 1");
}

/// If a container engine answers, containers must work; otherwise the error must say so.
#[cfg(feature = "docker")]
#[tokio::test(flavor = "multi_thread")]
async fn containers_run_servers_like_binaries() {
    let engine = std::process::Command::new("docker").arg("version").output();
    let options = ClusterOptions::servers(3).provision(Provision::Docker);
    if !engine.is_ok_and(|done| done.status.success()) {
        let error = Cluster::start(options).await.unwrap_err().to_string();
        assert!(error.starts_with("no nats-server by way of docker: "), "{error}");
        return;
    }
    let begun = Instant::now();
    let cluster = Cluster::start(options).await.unwrap();
    println!("{} x 3 started in {:?}", cluster.server(), begun.elapsed());
    let context = client(&cluster, 0).await;
    stream(&context, "box", 3).await;
    assert!(publish(&context, "box").await);
    cluster.pause(2).await.unwrap();
    cluster.kill(1).await.unwrap();
    assert!(!publish(&context, "box").await, "an acknowledgement without a quorum");
    cluster.resume(2).await.unwrap();
    cluster.run(1).await.unwrap();
    until("from restart to an acknowledgement", async || publish(&context, "box").await).await;
    cluster.restart(0).await.unwrap();
    cluster.wait_ready().await.unwrap();
    // The client has to reconnect, too.
    let there = async || messages(&context, "box").await >= Some(2);
    until("from restart to all that was acknowledged", there).await;
}
