//! Mistakes of operators, and records edited by hand. Each of them must be one clear error, and
//! must let nobody in.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use membership::{
    Ciphertext, Damage, Decision, DenyReason, EndpointId, Error, JetStreamConfig, JetStreamStore,
    Label, NewRoom, NewUser, Page, RoomId, Store, Timestamp, UserKey,
};
use nats_cluster::{Cluster, ClusterOptions, NatsServer};

use crate::server::Server;

/// The `op_timeout` of stores that must not open.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a store that must be refused in time. Returns the error, which must be one line.
pub(crate) async fn refused(config: JetStreamConfig) -> String {
    let config = JetStreamConfig { op_timeout: TIMEOUT, ..config };
    let begun = Instant::now();
    let error = JetStreamStore::open(config).await.expect_err("opened");
    assert!(begun.elapsed() < 10 * TIMEOUT + Duration::from_millis(250), "{:?}", begun.elapsed());
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    println!("{:?}: {text}", begun.elapsed());
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_without_a_server_are_refused() {
    let at = |url: &str| refused(JetStreamConfig::new([url]));
    let no_url = "invalid servers: hold no NATS URL as number 1: ";
    assert!(at("http://a").await.starts_with(&format!("{no_url}it begins with neither nats://")));
    assert!(at("ws://127.0.0.1:1").await.starts_with(&format!("{no_url}websockets are not")));
    assert!(at("").await.starts_with(&format!("{no_url}it names no host")));
    // The URL ends inside the password. No part of the password may be dialled or shown.
    let said = at("nats://app:22#secret@127.0.0.1:1").await;
    assert!(said.starts_with(&format!("{no_url}something follows host and port")), "{said}");
    assert!(said.contains("# as %23") && !said.contains("secret"), "{said}");
    let said = at("nats://127.0.0.1:1").await;
    assert!(said.contains("cannot connect to nats://127.0.0.1:1") && said.contains("refused"));
    assert!(said.ends_with("; is a NATS server listening there?"), "{said}");
    let said = at("nats://nowhere.invalid:4222").await;
    assert!(said.ends_with("; check the host name"), "{said}");

    // One listener says nothing, and another one is no NATS server.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let said = at(&format!("nats://{}", silent.local_addr().unwrap())).await;
    assert!(said.contains("in time; is a NATS server listening there"), "{said}");
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", web.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut client, _) = web.accept().unwrap();
        let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let said = at(&url).await;
    assert!(said.ends_with("is a NATS server listening there?"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_without_jetstream_are_refused() {
    let server = Server::start_with(ClusterOptions::servers(1).without_jetstream()).await;
    let begun = Instant::now();
    let said = refused(server.config()).await;
    assert!(said.contains("JetStream is not enabled") && said.contains("(-js)"), "{said}");
    assert!(begun.elapsed() < 2 * TIMEOUT, "{:?}", begun.elapsed());

    // JetStream is enabled on the server, but not for this account.
    let accounts = "accounts { A { users: [ { user: a, password: a } ] } }\nno_auth_user: a";
    let data = tempfile::tempdir().unwrap();
    let lines = format!("{accounts}\njetstream {{ store_dir: {:?} }}", data.path());
    let options = ClusterOptions::servers(1).without_jetstream().lines(lines);
    let server = Server::start_with(options).await;
    let said = refused(server.config()).await;
    assert!(said.contains("enable it for this account"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_refused_and_unchanged() {
    let old = NatsServer::too_old().unwrap();
    let cluster = Cluster::start_with(old, ClusterOptions::servers(1)).await.unwrap();
    let said = refused(JetStreamConfig::new([cluster.client_url(0).unwrap()])).await;
    assert_eq!(
        said,
        "invalid server: runs nats-server 2.11.11, which has no atomic batches with \
         expectations; upgrade it to 2.12.1 or later"
    );
    let raw = async_nats::connect(cluster.client_url(0).unwrap()).await.unwrap();
    let streams = raw.request("$JS.API.STREAM.NAMES", "".into()).await.unwrap();
    let streams: serde_json::Value = serde_json::from_slice(&streams.payload).unwrap();
    assert_eq!(streams["total"], 0, "{streams}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_replicas_than_servers_are_refused() {
    let one = Server::start().await;
    let said = refused(JetStreamConfig { replicas: 3, ..one.config() }).await;
    assert!(said.starts_with("invalid replicas: are more than the servers there are"), "{said}");
    let three = Cluster::start(ClusterOptions::servers(3)).await.unwrap();
    let config = JetStreamConfig { replicas: 5, ..JetStreamConfig::new(three.client_urls()) };
    let said = refused(config).await;
    assert!(said.starts_with("invalid replicas: are more than the servers there are"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_edited_by_hand_is_corrupt_and_lets_nobody_in() {
    let server = Server::start().await;
    let store = server.open("e-").await;
    let at = Timestamp::from_millis(1);
    let (room, ann): (RoomId, EndpointId) = ("ops".parse().unwrap(), "ann".parse().unwrap());
    let user = UserKey::from_bytes([1; 32]);
    let corrupt = |error: Error, place: &str| {
        assert!(matches!(&error, Error::Corrupt(c) if c.place() == place), "{error}");
    };
    let label = Label::new("u").unwrap();
    store.bootstrap_admin(NewUser { key: user, label, admin: true, added_at: at }).await.unwrap();

    let fresh = async || {
        let key = Ciphertext::new("sealed").unwrap();
        let made = store.create_room(NewRoom::encrypted(room.clone(), ann.clone(), at, key)).await;
        assert!(made.is_ok() || matches!(made, Err(Error::AlreadyExists(_))), "{made:?}");
    };
    fresh().await;
    store.corrupt(&Damage::Keys(room.clone(), ann.clone(), None)).await.unwrap();
    corrupt(store.latest_key(&room, &ann).await.unwrap_err(), "room_keys");
    store.corrupt(&Damage::Member(room.clone(), ann.clone())).await.unwrap();
    corrupt(store.member(&room, &ann).await.unwrap_err(), "members");
    corrupt(store.members(&room, Page::first()).await.unwrap_err(), "members");
    // If the key itself is corrupt, too, the key is reported rather than the member.
    corrupt(store.latest_key(&room, &ann).await.unwrap_err(), "room_keys");
    corrupt(store.rooms_of(&ann, Page::first()).await.unwrap_err(), "members");
    store.corrupt(&Damage::Head(room.clone())).await.unwrap();
    corrupt(store.room(&room).await.unwrap_err(), "members");
    store.corrupt(&Damage::Index(ann.clone())).await.unwrap();
    corrupt(store.rooms_of(&ann, Page::first()).await.unwrap_err(), "rooms_by_member");
    store.corrupt(&Damage::Room(room.clone())).await.unwrap();
    corrupt(store.room(&room).await.unwrap_err(), "rooms");
    corrupt(store.delete_room(&room).await.unwrap_err(), "rooms");

    store.corrupt(&Damage::User(user)).await.unwrap();
    corrupt(store.user(&user).await.unwrap_err(), "users");
    corrupt(store.users(Page::first()).await.unwrap_err(), "users");
    let decision = store.is_authorized(&user).await;
    assert!(
        matches!(&decision, Decision::Deny(DenyReason::Failed(Error::Corrupt(_)))),
        "{decision:?}"
    );
    store.corrupt(&Damage::Admins).await.unwrap();
    corrupt(store.has_admin().await.unwrap_err(), "users");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_or_dropping_a_store_leaves_other_stores_open() {
    let server = Server::start().await;
    let (a, b, c) = (server.open("z-").await, server.open("z-").await, server.open("z-").await);
    let (first, second) = tokio::join!(a.close(), a.close());
    first.unwrap();
    second.unwrap();
    let user = UserKey::from_bytes([1; 32]);
    assert_eq!(a.has_admin().await, Err(Error::Closed));
    assert_eq!(a.set_replicas(1, |_| {}).await, Err(Error::Closed));
    assert_eq!(a.is_authorized(&user).await, Decision::Deny(DenyReason::Failed(Error::Closed)));
    drop(c);
    assert_eq!(b.has_admin().await, Ok(false));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    // In the end only the connection of `b` may be left.
    loop {
        let left = server.clients().await;
        if left == 1 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{left} connections are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
