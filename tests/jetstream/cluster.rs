//! Three real servers that are cut off, killed, slowed down and resized.

use std::sync::Mutex;
use std::time::Duration;

use membership::{
    BucketProgress, Ciphertext, Decision, DenyReason, Epoch, Error, JetStreamConfig,
    JetStreamStore, Label, NewMember, NewRoom, NewUser, Page, Rekey, RoomId, Store, Timestamp,
    UserKey,
};
use nats_cluster::{Cluster, ClusterOptions, Flow};
use tokio::time::Instant;

use crate::together::make_room;

const TIMEOUT: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_millis(250);

fn at() -> Timestamp {
    Timestamp::from_millis(1)
}

pub(crate) fn user(n: u8, admin: bool) -> NewUser {
    let label = Label::new("user").unwrap();
    NewUser { key: UserKey::from_bytes([n; 32]), label, admin, added_at: at() }
}

fn cipher(text: &str) -> Ciphertext {
    Ciphertext::new(text).unwrap()
}

async fn open(cluster: &Cluster, node: usize, prefix: &str) -> JetStreamStore {
    let config = JetStreamConfig {
        prefix: prefix.to_owned(),
        replicas: 3,
        op_timeout: TIMEOUT,
        ..JetStreamConfig::new([cluster.client_url(node).unwrap()])
    };
    JetStreamStore::open(config).await.unwrap()
}

/// Repeats a call until it succeeds, since a leader may have to be elected first.
async fn in_the_end<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match call().await {
            Ok(value) => return value,
            Err(error) if error.outcome_unknown() => {
                assert!(Instant::now() < deadline, "{what}: {error}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// The copy of users follows the leader. If a server is slow, finding a new leader takes long.
/// Meanwhile the copy still listens to the former one.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_allow_while_the_leader_moves_and_a_server_is_slow() {
    let cluster = Cluster::start(ClusterOptions::servers(3)).await.unwrap();
    let store = open(&cluster, 0, "m-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    cluster.lead(0, "KV_m-users").await.unwrap();
    let slow = Flow::Delay(Duration::from_millis(100));
    for other in [0, 1] {
        cluster.route(2, other).unwrap().both(slow);
    }
    for leader in [1, 0, 1, 0] {
        cluster.lead(leader, "KV_m-users").await.unwrap();
        // The store may take this long to notice the new leader and to make a consumer there.
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            let decision = store.is_authorized(&user(1, true).key).await;
            assert_eq!(decision, Decision::Allow, "after n{leader} began to lead");
        }
    }
}

/// A client of a node that is cut off gets no stale answer. If `leads`, the node leads the users.
/// Otherwise it leads no bucket, if there is such a node.
async fn cut_off(leads: bool) {
    let cluster = Cluster::start(ClusterOptions::servers(3)).await.unwrap();
    let first = open(&cluster, 0, "c-").await;
    first.bootstrap_admin(user(1, true)).await.unwrap();
    first.add_user(user(2, false)).await.unwrap();
    let room: RoomId = "ops".parse().unwrap();
    make_room(&first, &room, 3).await;
    let gone: RoomId = "gone".parse().unwrap();
    make_room(&first, &gone, 1).await;

    // Finds the node that leads the users, or a node that leads no bucket.
    let leader = cluster.leader_of("KV_c-users").await.unwrap();
    let node = if leads {
        leader
    } else {
        let mut led = Vec::new();
        for bucket in ["rooms", "members", "rooms_by_member", "room_keys", "users"] {
            led.push(cluster.leader_of(&format!("KV_c-{bucket}")).await.unwrap());
        }
        (0..3).find(|node| !led.contains(node)).unwrap_or((leader + 1) % 3)
    };
    let lonely = open(&cluster, node, "c-").await;
    let among = open(&cluster, (node + 1) % 3, "c-").await;
    let revoked = user(2, false).key;
    assert!(lonely.is_authorized(&revoked).await.is_allowed());
    assert!(lonely.member(&room, &"endpoint 2".parse().unwrap()).await.is_ok());

    cluster.isolate(node).unwrap();
    in_the_end("revoke", async || among.revoke_user(&revoked, at()).await).await;
    // From here on the user must not be let in.
    let until = Instant::now() + Duration::from_secs(15);
    let two = "endpoint 2".parse().unwrap();
    in_the_end("remove", async || match among.remove_member(&room, &two).await {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    })
    .await;
    let keys = || (0..2).map(|n| (format!("endpoint {n}").parse().unwrap(), cipher("at 2")));
    in_the_end("rekey", async || {
        match among.rekey(&room, Rekey::new(Epoch::FIRST, [], keys()).unwrap()).await {
            Err(Error::StaleEpoch { .. }) => Ok(()),
            other => other.map(drop),
        }
    })
    .await;
    in_the_end("delete", async || match among.delete_room(&gone).await {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    })
    .await;

    let mut asked = 0;
    while Instant::now() < until {
        let begun = Instant::now();
        let (decision, room_, key, create, members, stale) = tokio::join!(
            lonely.is_authorized(&revoked),
            lonely.room(&gone),
            lonely.latest_key(&room, &two),
            lonely.create_room(NewRoom::unencrypted(gone.clone(), two.clone(), at())),
            lonely.members(&room, Page::first()),
            lonely.rekey(&room, Rekey::new(Epoch::MAX, [], keys()).unwrap()),
        );
        assert!(!decision.is_allowed(), "a revoked user is let in");
        assert!(room_.as_ref().is_err_and(Error::outcome_unknown), "{room_:?}");
        assert!(key.as_ref().is_err_and(Error::outcome_unknown), "{key:?}");
        assert!(create.as_ref().is_err_and(Error::outcome_unknown), "{create:?}");
        assert!(members.as_ref().is_err_and(Error::outcome_unknown), "{members:?}");
        assert!(stale.as_ref().is_err_and(Error::outcome_unknown), "{stale:?}");
        // All calls are made together; the rekey may take ten times as long as the others.
        assert!(begun.elapsed() <= 10 * TIMEOUT + SLACK, "{:?}", begun.elapsed());
        let begun = Instant::now();
        assert!(!lonely.is_authorized(&revoked).await.is_allowed());
        assert!(begun.elapsed() <= TIMEOUT + SLACK, "{:?}", begun.elapsed());
        asked += 1;
    }
    println!("asked {asked} times");

    cluster.heal();
    let healed = Instant::now();
    let back = in_the_end("room", async || lonely.room(&room).await).await;
    println!("works again after {:?}", healed.elapsed());
    assert_eq!(back.epoch.get(), 2);
    let decision = in_the_end("decide", async || match lonely.is_authorized(&revoked).await {
        Decision::Deny(DenyReason::Failed(error)) => Err(error),
        decision => Ok(decision),
    })
    .await;
    println!("decides again after {:?}", healed.elapsed());
    assert_eq!(decision, Decision::Deny(DenyReason::Revoked), "after healing");
    in_the_end("key", async || match lonely.latest_key(&room, &two).await {
        Err(Error::NotFound(_)) => Ok(()),
        other => other.map(|key| panic!("a removed member has {key:?}")),
    })
    .await;
    // The creations that were sent to the node while it was cut off may still make the room, but
    // only once.
    let made = in_the_end("room", async || match lonely.room(&gone).await {
        Err(Error::NotFound(_)) => Ok(None),
        other => other.map(Some),
    })
    .await;
    assert!(made.is_none_or(|made| !made.encrypted && made.owner == two));
    among.close().await.unwrap();
    lonely.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_cut_off_gives_no_stale_answer() {
    cut_off(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_gives_no_stale_answer() {
    cut_off(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_work_without_one_of_three_servers_and_fail_without_two() {
    let cluster = Cluster::start(ClusterOptions::servers(3)).await.unwrap();
    let store = open(&cluster, 0, "k-").await;
    store.bootstrap_admin(user(1, true)).await.unwrap();
    let room: RoomId = "ops".parse().unwrap();
    make_room(&store, &room, 1).await;
    let key = user(1, true).key;

    cluster.kill(2).await.unwrap();
    let lost = Instant::now();
    for n in 1..20 {
        let who = format!("endpoint {n}").parse().unwrap();
        let new = NewMember::sealed(who, at(), Epoch::FIRST, cipher("x"));
        in_the_end("add", async || match store.add_member(&room, new.clone()).await {
            Err(Error::AlreadyExists(_)) => Ok(()),
            other => other.map(drop),
        })
        .await;
    }
    println!("one lost: {:?} for 19 writes", lost.elapsed());
    in_the_end("authorize", async || match store.is_authorized(&key).await {
        Decision::Allow => Ok(()),
        Decision::Deny(_) => Err(Error::Timeout),
    })
    .await;

    cluster.kill(1).await.unwrap();
    // Opening a store must fail within ten times `op_timeout`, although the last server may not
    // know yet that it is alone, and may not answer.
    let config = JetStreamConfig {
        op_timeout: TIMEOUT / 5,
        ..JetStreamConfig::new([cluster.client_url(0).unwrap()])
    };
    let begun = Instant::now();
    let opened = tokio::time::timeout(5 * TIMEOUT, JetStreamStore::open(config)).await;
    assert!(matches!(opened, Ok(Err(_))), "{opened:?} after {:?}", begun.elapsed());
    assert!(begun.elapsed() <= 2 * TIMEOUT + SLACK, "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert!(!store.is_authorized(&key).await.is_allowed());
    assert!(begun.elapsed() <= TIMEOUT + SLACK, "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert!(store.room(&room).await.is_err_and(|error| error.outcome_unknown()));
    assert!(begun.elapsed() <= TIMEOUT + SLACK, "{:?}", begun.elapsed());

    cluster.restart(1).await.unwrap();
    cluster.restart(2).await.unwrap();
    let members = in_the_end("members", async || store.members(&room, Page::first()).await).await;
    assert_eq!(members.len(), 20);
    in_the_end("authorize", async || match store.is_authorized(&key).await {
        Decision::Allow => Ok(()),
        Decision::Deny(_) => Err(Error::Timeout),
    })
    .await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_work_while_the_number_of_replicas_changes() {
    let cluster = Cluster::start(ClusterOptions::servers(3)).await.unwrap();
    let config = JetStreamConfig {
        op_timeout: Duration::from_secs(3),
        ..JetStreamConfig::new([cluster.client_url(0).unwrap()])
    };
    let store = JetStreamStore::open(config).await.unwrap();
    let room: RoomId = "ops".parse().unwrap();
    make_room(&store, &room, 1).await;
    let mut added = 0;
    for replicas in [3, 1, 3] {
        let last = Mutex::new(Vec::new());
        let change = store.set_replicas(replicas, |progress| {
            println!("{progress:?}");
            *last.lock().unwrap() = progress.to_vec();
        });
        let mut change = std::pin::pin!(change);
        loop {
            let who = format!("endpoint {}", added + 1).parse().unwrap();
            let new = NewMember::sealed(who, at(), Epoch::FIRST, cipher("x"));
            let add =
                in_the_end("add", async || match store.add_member(&room, new.clone()).await {
                    Err(Error::AlreadyExists(_)) => Ok(()),
                    other => other.map(drop),
                });
            tokio::select! {
                biased;
                changed = &mut change => { changed.unwrap(); break; }
                () = add => added += 1,
            }
        }
        let last = last.lock().unwrap();
        assert!(last.len() == 5 && last.iter().all(BucketProgress::is_done), "{last:?}");
        println!("{replicas} replicas after {added} additions");
    }
    let members = in_the_end("members", async || store.members(&room, Page::first()).await).await;
    assert!(members.len() > added, "{} of {added}", members.len());
    let problem = store.set_replicas(5, |_| {}).await;
    assert!(matches!(problem, Err(Error::Invalid(_))), "{problem:?}");
    store.close().await.unwrap();
}
