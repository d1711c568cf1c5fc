//! Servers that are lost for good, one after another, or removed while they are cut off.

use std::time::Duration;

use membership::{Decision, DenyReason, ReadMode, Store, Timestamp};
use nats_cluster::{Cluster, ClusterOptions, Sync};
use tokio::time::Instant;

use crate::cluster::user;
use crate::damaged::{copy, open, put_back, same_everywhere, surely};

const AT: Timestamp = Timestamp::from_millis(1);

/// Two servers of three acknowledge a revocation. One of them loses its power, and with it what it
/// had not synced. Then the other one is lost, and the third comes back. Returns the decisions
/// after that, of a client that was open all the time and of new clients.
async fn one_loses_power_and_another_is_lost(sync: Sync) -> (Vec<Decision>, Vec<Decision>) {
    let cluster = Cluster::start(ClusterOptions::servers(3).sync(sync)).await.unwrap();
    let all = [0, 1, 2];
    let store = open(&cluster, &all, ReadMode::Linearizable).await.unwrap();
    store.bootstrap_admin(user(1, true)).await.unwrap();
    store.add_user(user(2, false)).await.unwrap();
    same_everywhere(&cluster).await;
    let synced = tempfile::tempdir().unwrap();
    cluster.stop(0).await.unwrap();
    copy(cluster.node(0).unwrap().store(), synced.path());
    cluster.run(0).await.unwrap();
    cluster.wait_ready().await.unwrap();

    cluster.kill(2).await.unwrap();
    surely("revoke", async || store.revoke_user(&user(2, false).key, AT).await).await;
    cluster.kill(0).await.unwrap();
    if sync == Sync::Default {
        put_back(synced.path(), cluster.node(0).unwrap().store());
    }
    cluster.kill(1).await.unwrap();
    cluster.run(0).await.unwrap();
    cluster.run(2).await.unwrap();
    cluster.wait_ready().await.unwrap();

    let (mut long_lived, mut fresh) = (Vec::new(), Vec::new());
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        long_lived.push(store.is_authorized(&user(2, false).key).await);
        if let Ok(new) = open(&cluster, &[0, 2], ReadMode::Linearizable).await {
            fresh.push(new.is_authorized(&user(2, false).key).await);
            new.close().await.unwrap();
        }
    }
    (long_lived, fresh)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_synced_outlives_the_power_of_one_server_and_the_loss_of_another() {
    let (long_lived, fresh) = one_loses_power_and_another_is_lost(Sync::Always).await;
    let revoked = Decision::Deny(DenyReason::Revoked);
    for decision in long_lived.iter().chain(&fresh) {
        assert!(!decision.is_allowed(), "a revoked user is let in");
    }
    assert!(fresh.contains(&revoked), "nobody knows of the revocation");
}

/// A known limit, which `PROTOCOL.md` names: a new client cannot know what no server knows.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_synced_is_lost_with_the_power_of_one_server_and_the_loss_of_another() {
    let (_, fresh) = one_loses_power_and_another_is_lost(Sync::Default).await;
    assert!(fresh.iter().any(Decision::is_allowed), "no limit any more: say so in PROTOCOL.md");
}

/// The server that leads the users is cut off, and meanwhile its place in the bucket is taken away.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_removed_while_it_is_cut_off_lets_nobody_in() {
    let cluster = Cluster::start(ClusterOptions::servers(5)).await.unwrap();
    let first = open(&cluster, &[0, 1, 2, 3, 4], ReadMode::Linearizable).await.unwrap();
    first.bootstrap_admin(user(1, true)).await.unwrap();
    first.add_user(user(2, false)).await.unwrap();
    first.close().await.unwrap();
    let stream = "KV_d-users";
    let cut = cluster.leader_of(stream).await.unwrap();
    let others: Vec<_> = (0..5).filter(|node| *node != cut).collect();
    let lonely = open(&cluster, &[cut], ReadMode::Linearizable).await.unwrap();
    let among = open(&cluster, &others, ReadMode::Linearizable).await.unwrap();
    let key = user(2, false).key;
    for store in [&lonely, &among] {
        assert!(store.is_authorized(&key).await.is_allowed());
    }

    cluster.isolate(cut).unwrap();
    surely("revoke", async || among.revoke_user(&key, AT).await).await;
    let name = cluster.node(cut).unwrap().name().to_owned();
    let removed = Instant::now() + Duration::from_secs(30);
    loop {
        let admin = cluster.admin(others[0]).await.unwrap();
        let subject = format!("$JS.API.STREAM.PEER.REMOVE.{stream}");
        let body = format!("{{\"peer\": \"{name}\"}}");
        let said = match admin.request(subject, body.into()).await {
            Ok(answer) => String::from_utf8_lossy(&answer.payload).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("{said}");
        if said.contains("\"success\":true") {
            break;
        }
        assert!(Instant::now() < removed, "{said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        for store in [&lonely, &among] {
            assert!(!store.is_authorized(&key).await.is_allowed(), "a revoked user is let in");
        }
    }
    cluster.heal();
    let healed = Instant::now() + Duration::from_mins(1);
    loop {
        let decisions = [lonely.is_authorized(&key).await, among.is_authorized(&key).await];
        assert!(!decisions.iter().any(Decision::is_allowed), "a revoked user is let in");
        if decisions.iter().all(|decision| *decision == Decision::Deny(DenyReason::Revoked)) {
            break;
        }
        assert!(Instant::now() < healed, "{decisions:?}");
    }
    for node in 0..5 {
        let fresh =
            surely("open", async || open(&cluster, &[node], ReadMode::Linearizable).await).await;
        assert!(
            !fresh.is_authorized(&key).await.is_allowed(),
            "a revoked user is let in at n{node}"
        );
        fresh.close().await.unwrap();
    }
}
