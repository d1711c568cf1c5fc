//! Credentials and TLS: every way in which a store and its servers authenticate each other, used
//! rightly and wrongly.

use std::fs;
use std::path::PathBuf;

use data_encoding::BASE64URL_NOPAD;
use membership::{Credentials, JetStreamConfig, JetStreamStore, Store};
use nats_cluster::{Auth, ClusterOptions, Tls};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::badinput::refused;
use crate::server::Server;

/// Checks that a server lets in `right`, and neither `wrong` nor a client without credentials.
async fn let_in(server: &Server, right: Credentials, wrong: Credentials) {
    let as_ = |credentials| JetStreamConfig { credentials, ..server.config() };
    let store = JetStreamStore::open(as_(right)).await.unwrap();
    assert_eq!(store.has_admin().await, Ok(false));
    store.close().await.unwrap();
    for stranger in [wrong, Credentials::None] {
        let said = refused(as_(stranger)).await;
        assert!(said.contains("cannot connect to nats://127.0.0.1:"), "{said}");
        assert!(said.ends_with("authorization violation; check the credentials"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_is_let_in() {
    let (user, password) = ("ann".to_owned(), "pass@word/".to_owned());
    let auth = Auth::User { user: user.clone(), password: password.clone() };
    let server = Server::start_with(ClusterOptions::servers(1).auth(auth)).await;
    let wrong = Credentials::UserPassword { user: user.clone(), password: "wrong".into() };
    let_in(&server, Credentials::UserPassword { user, password: password.into() }, wrong).await;
    // The credentials must also work in the URL.
    let at = |who: &str| JetStreamConfig::new([server.url().replace("://", &format!("://{who}@"))]);
    JetStreamStore::open(at("ann:pass%40word%2F")).await.unwrap();
    let said = refused(at("ann:wrong")).await;
    assert!(said.ends_with("check the credentials") && !said.contains("wrong"), "{said}");
    let twice = JetStreamConfig { credentials: Credentials::Token("t".into()), ..at("ann:p") };
    assert!(refused(twice).await.starts_with("invalid credentials: are given, and others"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_the_token_is_let_in() {
    let auth = Auth::Token("s3cret".to_owned());
    let server = Server::start_with(ClusterOptions::servers(1).auth(auth)).await;
    let [right, wrong] = ["s3cret", "secret"].map(|token| Credentials::Token(token.into()));
    let_in(&server, right, wrong).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_an_nkey_is_let_in() {
    let [known, unknown] = [KeyPair::new_user(), KeyPair::new_user()];
    let seed = known.seed().unwrap();
    let auth = Auth::NKey { public: known.public_key(), seed: seed.clone() };
    let server = Server::start_with(ClusterOptions::servers(1).auth(auth)).await;
    let with_line_break = Credentials::Nkey(format!("{seed}\n").into());
    opens(JetStreamConfig { credentials: with_line_break, ..server.config() }).await;
    let [right, wrong] = [seed, unknown.seed().unwrap()].map(|seed| Credentials::Nkey(seed.into()));
    let_in(&server, right, wrong).await;
    // A public key in place of a seed is refused. The error does not show the key, since it might
    // be a secret.
    let nkey = Credentials::Nkey(known.public_key().into());
    let said = refused(JetStreamConfig { credentials: nkey, ..server.config() }).await;
    assert_eq!(said, "invalid credentials: hold no seed of a user nkey (SU…)");
}

/// The year 2100.
pub(crate) const NEVER: i64 = 4_102_444_800;

/// A JWT as `nsc` makes it, valid until `until` (seconds since 1970).
fn jwt(issuer: &KeyPair, subject: &KeyPair, until: i64, nats: &Value) -> String {
    let encoded = |json: Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
    let head = encoded(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let name = subject.public_key();
    let claims = encoded(json!({
        "jti": name, "iat": 0, "exp": until, "iss": issuer.public_key(), "sub": name, "name": name,
        "nats": nats,
    }));
    let signed = format!("{head}.{claims}");
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// The text of a credentials file of a new user of the account.
fn user_of(account: &KeyPair) -> String {
    user_with(account, NEVER, -1)
}

/// As above, for a user who is let in until `until` (seconds since 1970). Its messages have at most
/// `payload` bytes (-1: any size).
pub(crate) fn user_with(account: &KeyPair, until: i64, payload: i64) -> String {
    let user = KeyPair::new_user();
    let limits =
        json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": payload });
    format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(account, &user, until, &limits),
        user.seed().unwrap()
    )
}

/// A server whose accounts are signed by an operator, and one of these accounts.
pub(crate) struct Operated {
    pub(crate) server: Server,
    pub(crate) account: KeyPair,
    /// The text of a credentials file of a user of the account.
    known: String,
}

impl Operated {
    pub(crate) async fn start() -> Self {
        let operator = KeyPair::new_operator();
        let [system, account] = [(); 2].map(|()| KeyPair::new_account());
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1,
            "consumer": -1,
        });
        let known_as = |account: &KeyPair, limits: &Value| {
            let claims = json!({ "type": "account", "version": 2, "limits": limits });
            format!("{}: {}", account.public_key(), jwt(&operator, account, NEVER, &claims))
        };
        // JetStream needs a system account, which must not have JetStream itself.
        let lines = format!(
            "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{\n{}\n{}\n}}",
            jwt(&operator, &operator, NEVER, &json!({ "type": "operator", "version": 2 })),
            system.public_key(),
            known_as(&system, &json!({ "subs": -1, "data": -1, "payload": -1, "conn": -1 })),
            known_as(&account, &limits),
        );
        let known = user_of(&account);
        let auth = Auth::Credentials(known.clone());
        let server = Server::start_with(ClusterOptions::servers(1).auth(auth).lines(lines)).await;
        Self { server, account, known }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_credentials_file_is_let_in() {
    let Operated { server, known, .. } = Operated::start().await;
    let stranger = KeyPair::new_account();

    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Credentials::File(path)
    };
    let right = file("right.creds", &known);
    let_in(&server, right, file("stranger.creds", &user_of(&stranger))).await;
    for (credentials, problem) in [
        (Credentials::File(dir.path().join("none.creds")), "No such file"),
        (file("empty.creds", ""), "it has no user JWT between BEGIN and END"),
        (file("half.creds", known.split_once("-----BEGIN USER").unwrap().0), "it has no nkey seed"),
    ] {
        let said = refused(JetStreamConfig { credentials, ..server.config() }).await;
        assert!(
            said.starts_with("invalid credentials: file /") && said.contains(problem),
            "{said}"
        );
        assert!(said.contains(".creds cannot be used: "), "{said}");
    }
    // Editors and shells make these variants of the file.
    for (name, text) in [
        ("crlf.creds", known.replace('\n', "\r\n")),
        ("mark.creds", format!("\u{feff}{known}")),
        ("cut.creds", known.trim_end().to_owned()),
    ] {
        opens(JetStreamConfig { credentials: file(name, &text), ..server.config() }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_needed_permissions_is_refused() {
    let user = |name: &str, publish: &str| {
        format!("{{ user: {name}, password: p, permissions: {{ publish: [{publish}] }} }}")
    };
    let lines = format!(
        "authorization {{ users: [ {{ user: all, password: p }}, {}, {} ] }}\nno_auth_user: all",
        user("nothing", "\"elsewhere\""),
        user("reader", "\"$JS.API.>\"")
    );
    let [all, nothing, reader] = ["all", "nothing", "reader"]
        .map(|user| Credentials::UserPassword { user: user.into(), password: "p".into() });
    let server = Server::start_with(ClusterOptions::servers(1).lines(lines)).await;
    let as_ = |credentials| JetStreamConfig { credentials, ..server.config() };
    JetStreamStore::open(as_(all)).await.unwrap();
    for (who, subject) in [(nothing, "$JS.API.INFO"), (reader, "$KV.")] {
        let said = refused(as_(who)).await;
        assert!(said.contains("Permissions Violation for Publish to"), "{said}");
        assert!(said.contains(subject) && said.contains("allow it for this user"), "{said}");
    }
}

/// A certificate authority, with its certificates in files.
pub(crate) struct Authority {
    pub(crate) dir: TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), &pem).unwrap();
        Self { dir, issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// Signs a certificate for this host. Returns the certificate and its key.
    pub(crate) fn signs(&self, host: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// TLS of a server with a certificate that this authority signed.
    pub(crate) fn served(&self) -> Tls {
        Tls { authority: self.pem.clone(), server: self.signs("127.0.0.1"), ..Tls::default() }
    }

    /// TLS of a client that trusts this authority, and has no certificate.
    pub(crate) fn trusted(&self) -> membership::Tls {
        membership::Tls { ca_file: Some(self.dir.path().join("ca.pem")), ..Default::default() }
    }

    /// TLS of a client that trusts this authority, and has a certificate signed by `signer`.
    pub(crate) fn shown(&self, signer: &Self) -> membership::Tls {
        let (certificate, key) = signer.signs("client");
        let client = (self.file("c.pem", &certificate), self.file("c.key", &key));
        membership::Tls { client: Some(client), ..self.trusted() }
    }
}

pub(crate) async fn opens(config: JetStreamConfig) {
    let store = JetStreamStore::open(config).await.unwrap();
    assert_eq!(store.has_admin().await, Ok(false));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_certificate_must_be_signed_by_the_authority() {
    let [ours, other] = [Authority::new(), Authority::new()];
    let server = Server::start_with(ClusterOptions::servers(1).tls(ours.served())).await;
    let with = |tls| JetStreamConfig { tls, ..server.config() };
    opens(with(Some(ours.trusted()))).await;
    let url = server.url().replace("nats://", "tls://");
    opens(JetStreamConfig { servers: vec![url], ..with(Some(ours.trusted())) }).await;

    for tls in [None, Some(membership::Tls::default()), Some(other.trusted())] {
        let said = refused(with(tls)).await;
        assert!(said.contains("invalid peer certificate"), "{said}");
        assert!(said.ends_with("signed the server's certificate as tls.ca_file"), "{said}");
    }
    // The authority is the right one, but the certificate is for another host.
    let host = server.url().replace("127.0.0.1", "localhost");
    let said = refused(JetStreamConfig { servers: vec![host], ..with(Some(ours.trusted())) }).await;
    assert!(said.ends_with("; check the server's certificate"), "{said}");

    for (ca, problem) in [
        (ours.dir.path().join("none.pem"), "none.pem cannot be read: No such file"),
        (ours.file("no.pem", "nothing"), "no.pem is no PEM file with \"BEGIN CERTIFICATE-----\""),
    ] {
        let tls = membership::Tls { ca_file: Some(ca), ..Default::default() };
        let said = refused(with(Some(tls))).await;
        assert!(
            said.starts_with("invalid tls.ca_file: file /") && said.contains(problem),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_needs_a_certificate_where_the_server_demands_one() {
    let [ours, other] = [Authority::new(), Authority::new()];
    let tls = Tls { client: Some(ours.signs("suite")), ..ours.served() };
    let server = Server::start_with(ClusterOptions::servers(1).tls(tls)).await;
    let with = |tls| JetStreamConfig { tls: Some(tls), ..server.config() };
    opens(with(ours.shown(&ours))).await;
    let said = refused(with(ours.trusted())).await;
    assert!(said.contains("cannot connect to") && said.contains("certificate"), "{said}");
    let said = refused(with(ours.shown(&other))).await;
    assert!(said.contains("cannot connect to"), "{said}");
    let mut keyless = ours.shown(&ours);
    keyless.client = keyless.client.map(|(certificate, _)| (certificate.clone(), certificate));
    let said = refused(with(keyless)).await;
    assert!(said.starts_with("invalid tls.client: file /"), "{said}");
    assert!(said.ends_with("is no PEM file with \"PRIVATE KEY-----\" in it"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_first_works_only_where_both_sides_begin_with_tls() {
    let ours = Authority::new();
    let tls = Tls { handshake_first: true, ..ours.served() };
    let server = Server::start_with(ClusterOptions::servers(1).tls(tls)).await;
    let first = membership::Tls { handshake_first: true, ..ours.trusted() };
    opens(JetStreamConfig { tls: Some(first.clone()), ..server.config() }).await;
    for tls in [None, Some(ours.trusted())] {
        let said = refused(JetStreamConfig { tls, ..server.config() }).await;
        assert!(said.ends_with("one that does not wait for TLS (handshake_first)?"), "{said}");
    }
    // A server that sends first is refused before the client sends it a secret.
    let plain = Server::start().await;
    let said = refused(JetStreamConfig { tls: Some(first), ..plain.config() }).await;
    assert!(said.ends_with("and with handshake_first also first?"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_server_without_tls_is_refused() {
    let server = Server::start().await;
    let authority = Authority::new();
    let tls = Some(authority.trusted());
    let said = refused(JetStreamConfig { tls, ..server.config() }).await;
    assert!(
        said.ends_with("; does the server speak TLS there, and with handshake_first also first?"),
        "{said}"
    );
}
