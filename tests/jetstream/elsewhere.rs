//! Buckets that are in another account or domain than the client's own, or that need other
//! subjects.

use std::fs;
use std::time::{Duration, Instant};

use membership::{
    Ciphertext, Credentials, Epoch, JetStreamConfig, JetStreamStore, Label, NewMember, NewRoom,
    NewUser, Page, Rekey, SealedKey, Store, Timestamp, UserKey,
};
use nats_cluster::ClusterOptions;

use crate::badinput::refused;
use crate::server::Server;

const AT: Timestamp = Timestamp::from_millis(1);

fn user(n: u16, admin: bool) -> NewUser {
    let mut key = [0; 32];
    key[..2].copy_from_slice(&n.to_be_bytes());
    NewUser { key: UserKey::from_bytes(key), label: Label::new("u").unwrap(), admin, added_at: AT }
}

fn sealed(text: &str) -> Ciphertext {
    Ciphertext::new(text).unwrap()
}

/// Makes every kind of call, and checks with a second client what the first one did.
async fn works(config: JetStreamConfig) {
    let store = JetStreamStore::open(config.clone()).await.unwrap();
    let other = JetStreamStore::open(config.clone()).await.unwrap();
    // The deliveries, of some 200 bytes each, are more than one window of flow control.
    store.bootstrap_admin(user(0, true)).await.unwrap();
    let adding = (1..400).map(|n| store.add_user(user(n, false)));
    futures_util::future::try_join_all(adding).await.unwrap();
    assert!(other.is_authorized(&user(399, false).key).await.is_allowed());
    store.revoke_user(&user(399, false).key, AT).await.unwrap();
    assert!(!other.is_authorized(&user(399, false).key).await.is_allowed());
    assert_eq!(other.users(Page::first()).await.unwrap().len(), 400);

    let (room, ann, ben) = ("ops".parse().unwrap(), "ann".parse().unwrap(), "ben".parse().unwrap());
    let new = NewRoom::encrypted(room, ann, AT, sealed("a"));
    let (room, ann) = (new.id.clone(), new.owner.clone());
    store.create_room(new).await.unwrap();
    let new = NewMember::sealed(ben, AT, Epoch::FIRST, sealed("b"));
    let ben = store.add_member(&room, new).await.unwrap().endpoint;
    assert_eq!(other.latest_key(&room, &ben).await.unwrap().ciphertext, sealed("b"));
    assert_eq!(other.members(&room, Page::first()).await.unwrap().len(), 2);
    let keys = [(ann.clone(), sealed("c"))];
    let rekey = Rekey::new(Epoch::FIRST, [ben.clone()], keys).unwrap();
    store.rekey(&room, rekey).await.unwrap();
    let SealedKey { epoch, ciphertext: key, .. } = other.latest_key(&room, &ann).await.unwrap();
    assert_eq!((epoch.get(), key), (2, sealed("c")));
    assert!(other.rooms_of(&ben, Page::first()).await.unwrap().is_empty());
    store.delete_room(&room).await.unwrap();
    assert!(other.rooms_of(&ann, Page::first()).await.unwrap().is_empty());

    // A new client receives all users through its own feed.
    let third = JetStreamStore::open(config).await.unwrap();
    assert_eq!(third.users(Page::first()).await.unwrap().len(), 400);
    for store in [store, other, third] {
        store.close().await.unwrap();
    }
}

/// The names of the streams that a client sees.
async fn streams(client: async_nats::Client) -> Vec<String> {
    let names = client.request("$JS.API.STREAM.NAMES", "".into()).await.unwrap();
    let names: serde_json::Value = serde_json::from_slice(&names.payload).unwrap();
    serde_json::from_value(names["streams"].clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_works_in_the_domain_of_a_hub_behind_a_leaf_node() {
    let data = tempfile::tempdir().unwrap();
    let domain = |name: &str| {
        let dir = data.path().join(name);
        format!("jetstream {{ store_dir: {dir:?}, domain: {name} }}\n")
    };
    let one = || ClusterOptions::servers(1).without_jetstream();
    let leafs = "leafnodes { listen: \"127.0.0.1:-1\" }";
    let hub = Server::start_with(one().lines(domain("hub") + leafs)).await;
    // The kernel picked the port, and the log reports it.
    let log = fs::read_to_string(hub.log()).unwrap();
    let (_, at) = log.split_once("Listening for leafnode connections on ").unwrap();
    let at = at.lines().next().unwrap();
    let remote = format!("leafnodes {{ remotes: [ {{ url: \"nats-leaf://{at}\" }} ] }}");
    let leaf = Server::start_with(one().lines(domain("leaf") + &remote)).await;

    let config = |prefix: &str| JetStreamConfig { prefix: prefix.into(), ..leaf.config() };
    let in_hub = JetStreamConfig { domain: Some("hub".to_owned()), ..config("d-") };
    // The two servers connect only some time after they have started.
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = JetStreamStore::open(in_hub.clone()).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    works(in_hub).await;
    works(JetStreamConfig { api_prefix: Some("$JS.hub.API".to_owned()), ..config("a-") }).await;
    let at = |server: &Server| {
        let url = server.url();
        async move { streams(async_nats::connect(url).await.unwrap()).await }
    };
    assert_eq!((at(&hub).await.len(), at(&leaf).await), (10, vec![]));
    // Without a domain, the client uses the leaf node's own buckets.
    works(config("l-")).await;
    assert_eq!((at(&hub).await.len(), at(&leaf).await.len()), (10, 5));
    // The domain is unknown.
    let nowhere = JetStreamConfig { domain: Some("nowhere".to_owned()), ..leaf.config() };
    let said = refused(nowhere).await;
    assert!(said.contains("JetStream is not enabled") && said.contains("domain"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_works_in_another_account_that_exports_its_jetstream() {
    let service = |subject: &str, to: &str| {
        format!("{{ service: {{ account: OWNER, subject: {subject:?} }}, to: {to:?} }},\n")
    };
    let api = ["INFO", "STREAM.>", "CONSUMER.>", "DIRECT.>"];
    let imports = api.map(|what| service(&format!("$JS.API.{what}"), &format!("JS.owner.{what}")));
    let exports =
        api.map(|what| format!("{{ service: \"$JS.API.{what}\", response_type: \"stream\" }},\n"));
    let lines = format!(
        r#"accounts {{
            OWNER {{
                jetstream: enabled
                users: [ {{ user: owner, password: p }} ]
                exports: [ {exports} {{ service: "$KV.>" }}, {{ service: "$JS.FC.>" }},
                           {{ stream: "deliver.app.>" }} ]
            }}
            APP {{
                users: [ {{ user: app, password: p }} ]
                imports: [ {imports} {kv} {flow}
                           {{ stream: {{ account: OWNER, subject: "deliver.app.>" }} }} ]
            }}
        }}
        no_auth_user: owner"#,
        exports = exports.concat(),
        imports = imports.concat(),
        kv = service("$KV.>", "JS.owner.$KV.>"),
        flow = service("$JS.FC.>", "$JS.FC.>"),
    );
    let server = Server::start_with(ClusterOptions::servers(1).lines(lines)).await;
    let config = JetStreamConfig {
        credentials: Credentials::UserPassword { user: "app".into(), password: "p".into() },
        api_prefix: Some("JS.owner".to_owned()),
        inbox_prefix: Some("deliver.app".to_owned()),
        ..server.config()
    };
    works(config).await;
    assert_eq!(streams(server.raw().await).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_works_with_an_inbox_prefix_of_its_own() {
    let lines = "authorization { users: [ { user: all, password: p },\n\
                 { user: app, password: p, permissions: { subscribe: [\"_INBOX_app.>\"] } } ] }\n\
                 no_auth_user: all";
    let server = Server::start_with(ClusterOptions::servers(1).lines(lines)).await;
    let credentials = Credentials::UserPassword { user: "app".into(), password: "p".into() };
    let config = JetStreamConfig { credentials, ..server.config() };
    works(JetStreamConfig { inbox_prefix: Some("_INBOX_app".to_owned()), ..config.clone() }).await;
    let said = refused(config).await;
    assert!(said.contains("Permissions Violation for Subscription to \"_INBOX."), "{said}");
}
