//! Rough numbers: `cargo test --release … speed -- --ignored --nocapture`. They assert nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::{
    Ciphertext, EndpointId, Epoch, JetStreamConfig, JetStreamStore, Label, NewMember, NewRoom,
    NewUser, Page, ReadMode, Rekey, Store, Timestamp, UserKey,
};

use crate::server::Server;

fn at() -> Timestamp {
    Timestamp::from_millis(1)
}

async fn timed(rounds: u32, mut call: impl AsyncFnMut()) -> Duration {
    for _ in 0..rounds / 10 {
        call().await;
    }
    let start = Instant::now();
    for _ in 0..rounds {
        call().await;
    }
    start.elapsed() / rounds
}

async fn shared(store: &Arc<JetStreamStore>, key: UserKey, callers: u32, rounds: u32) -> Duration {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            for _ in 0..rounds {
                assert!(store.is_authorized(&key).await.is_allowed());
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    start.elapsed() / (callers * rounds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn measure() {
    let server = Server::start();
    let raw = server.raw().await;
    let js = async_nats::jetstream::new(raw.clone());
    let mut echo = raw.subscribe("echo").await.unwrap();
    let replier = raw.clone();
    tokio::spawn(async move {
        use futures_util::StreamExt;
        while let Some(message) = echo.next().await {
            replier.publish(message.reply.unwrap(), message.payload).await.unwrap();
        }
    });
    let asker = server.raw().await;
    let store = Arc::new(server.open("s-").await);
    let key = UserKey::from_bytes([7; 32]);
    let user = NewUser { key, label: Label::new("u").unwrap(), admin: true, added_at: at() };
    store.bootstrap_admin(user).await.unwrap();

    for round in 0..3 {
        let ack = timed(3000, async || {
            let put = js.publish("$KV.s-users.=barrier", "".into()).await.unwrap();
            put.await.unwrap();
        })
        .await;
        let core =
            timed(3000, async || drop(asker.request("echo", "".into()).await.unwrap())).await;
        let one = timed(3000, async || assert!(store.is_authorized(&key).await.is_allowed())).await;
        println!(
            "{round}: ack {ack:?} core {core:?} is_authorized {one:?} ratio {:.2}",
            one.as_secs_f64() / (ack + core).as_secs_f64()
        );
        for callers in [64, 256] {
            let each = shared(&store, key, callers, 400).await;
            println!(
                "   {callers} callers {each:?} per call, {:.2} x barrier/callers",
                each.as_secs_f64() * f64::from(callers) / ack.as_secs_f64()
            );
        }
    }

    let bounded = JetStreamStore::open(JetStreamConfig {
        prefix: "s-".into(),
        read_mode: ReadMode::BoundedStaleness { bound: Duration::from_secs(1) },
        ..server.config()
    })
    .await
    .unwrap();
    let memory = timed(100_000, async || assert!(bounded.is_authorized(&key).await.is_allowed()));
    println!("bounded: {:?}", memory.await);

    let kv = js.get_key_value("s-users").await.unwrap();
    let get = timed(3000, async || drop(kv.get(key.to_string()).await.unwrap().unwrap())).await;
    println!("kv.get: {get:?}");

    for members in [1000_u32, 10_000] {
        let (room, owner) = (format!("r{members}"), "owner");
        let cipher = Ciphertext::new([7; 128]).unwrap();
        let new =
            NewRoom::encrypted(room.parse().unwrap(), owner.parse().unwrap(), at(), cipher.clone());
        store.create_room(new).await.unwrap();
        let room = room.parse().unwrap();
        let start = Instant::now();
        for n in 1..members {
            let who: EndpointId = format!("endpoint-{n}").parse().unwrap();
            let new = NewMember::sealed(who, at(), Epoch::FIRST, cipher.clone());
            store.add_member(&room, new).await.unwrap();
        }
        println!("add_member: {:?}", start.elapsed() / members);
        let mut epoch = Epoch::FIRST;
        for _ in 0..3 {
            let all = (0..members).map(|n| {
                let who = if n == 0 { owner.to_owned() } else { format!("endpoint-{n}") };
                (who.parse().unwrap(), cipher.clone())
            });
            let rekey = Rekey::new(epoch, [], all).unwrap();
            let start = Instant::now();
            epoch = store.rekey(&room, rekey).await.unwrap().epoch;
            let rekeyed = start.elapsed();
            let start = Instant::now();
            let mut acks = Vec::new();
            for n in 0..members {
                let subject = format!("$KV.s-room_keys.bare.{room}.{n}");
                acks.push(js.publish(subject, vec![7; 147].into()).await.unwrap());
                if acks.len() == 512 {
                    for ack in acks.drain(..256) {
                        ack.await.unwrap();
                    }
                }
            }
            for ack in acks {
                ack.await.unwrap();
            }
            println!("rekey of {members}: {rekeyed:?}, bare publishes {:?}", start.elapsed());
        }
        let who: EndpointId = "endpoint-5".parse().unwrap();
        let page = timed(100, async || drop(store.members(&room, Page::first()).await.unwrap()));
        println!("page of members: {:?}", page.await);
        let one = timed(1000, async || drop(store.room(&room).await.unwrap())).await;
        println!("room: {one:?}");
        let one = timed(1000, async || drop(store.latest_key(&room, &who).await.unwrap())).await;
        println!("latest_key: {one:?}");
        let one = timed(300, async || drop(store.rooms_of(&who, Page::first()).await.unwrap()));
        println!("rooms_of: {:?}", one.await);
    }
}
