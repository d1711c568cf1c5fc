//! Credentials and certificates that expire and are renewed: an open store uses the new ones.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use membership::{Credentials, Error, JetStreamConfig, JetStreamStore, Store, Tls};
use nats_cluster::ClusterOptions;

use crate::server::Server;
use crate::who::{Authority, NEVER, Operated, user_with};

const TIMEOUT: Duration = Duration::from_secs(1);

/// Repeats a call until it succeeds. Returns the last error.
async fn answered(store: &JetStreamStore) -> Option<Error> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut said = None;
    loop {
        match store.has_admin().await {
            Ok(_) => return said,
            Err(error) => said = Some(error),
        }
        assert!(Instant::now() < deadline, "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_credentials_is_read_for_each_connection() {
    let Operated { server, account, .. } = Operated::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.creds");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    fs::write(&file, user_with(&account, now + 4, -1)).unwrap();
    let config = JetStreamConfig {
        credentials: Credentials::File(file.clone()),
        op_timeout: TIMEOUT,
        ..server.config()
    };
    let store = JetStreamStore::open(config).await.unwrap();

    // The credentials expire without being renewed.
    let deadline = Instant::now() + Duration::from_secs(20);
    let said = loop {
        match store.has_admin().await {
            Ok(_) => assert!(Instant::now() < deadline, "it never ends"),
            Err(error) => break error.to_string(),
        }
    };
    println!("{said}");
    // The first error may come while the client is still reconnecting.
    let said = match store.has_admin().await.unwrap_err() {
        Error::Unavailable(cause) => cause.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(said.starts_with("no connection: nats://127.0.0.1:"), "{said}");
    assert!(said.ends_with("authorization violation; check the credentials"), "{said}");

    // The file is cut in half, as a reader sees it while it is being written.
    fs::write(&file, "-----BEGIN NATS USER JWT-----\n").unwrap();
    assert!(store.has_admin().await.is_err());
    let said = store.has_admin().await.unwrap_err().to_string();
    assert!(said.contains("app.creds cannot be used: it has no user JWT"), "{said}");

    fs::write(&file, user_with(&account, NEVER, -1)).unwrap();
    answered(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_for_each_connection() {
    let [old, new] = [Authority::new(), Authority::new()];
    let tls = nats_cluster::Tls { client: Some(old.signs("suite")), ..old.served() };
    let server = Server::start_with(ClusterOptions::servers(1).tls(tls)).await;
    let shown = old.shown(&old);
    let Tls { ca_file: Some(ca), client: Some((certificate, key)), .. } = shown.clone() else {
        panic!("{shown:?}")
    };
    let config = JetStreamConfig { tls: Some(shown), op_timeout: TIMEOUT, ..server.config() };
    let store = JetStreamStore::open(config).await.unwrap();

    // The server gets new certificates, signed by another authority, and from now on trusts only
    // that one.
    let put = |dir: &std::path::Path, name: &str, (pem, secret): (String, String)| {
        fs::write(dir.join(format!("{name}.pem")), pem).unwrap();
        fs::write(dir.join(format!("{name}.key")), secret).unwrap();
    };
    let dir = server.dir();
    let changed = |text| {
        fs::write(dir.join("authority.pem"), &new.pem).unwrap();
        put(&dir, "server", new.signs("127.0.0.1"));
        put(&dir, "client", new.signs("suite"));
        text
    };
    server.run_with(changed).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let said = store.has_admin().await.unwrap_err().to_string();
        if said.contains("invalid peer certificate") {
            assert!(said.contains("no connection: nats://127.0.0.1:"), "{said}");
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
    fs::write(ca, &new.pem).unwrap();
    let (pem, secret) = new.signs("client");
    fs::write(certificate, pem).unwrap();
    fs::write(key, secret).unwrap();
    answered(&store).await;
}
