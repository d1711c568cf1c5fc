//! From configuration to connection, and from the driver's failures to a line an operator can
//! act on.

use std::error::Error as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use async_nats::rustls::{self, AlertDescription, CertificateError};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ReconnectToServer, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::config::{Credentials, JetStreamConfig, Tls};
use crate::jetstream::gateway::mux::Mux;
use crate::jetstream::gateway::rotation::Rotation;

/// How often the connection is tried for life; it is given up, and made anew, when three in a row
/// went without an answer.
const PING: Duration = Duration::from_secs(1);
/// The longest wait between two attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(250);
/// Messages that may wait for the one who reads a subscription. Past it some are lost: a read
/// times out and is repeated, a feed sees the gap and starts again.
const CAPACITY: usize = 1 << 18;

/// What the server complained of last, beside its answers: that something is not permitted it
/// does not say to the one who waits for it.
#[derive(Clone, Default)]
pub(super) struct Complaint(Arc<Mutex<Option<String>>>);

impl Complaint {
    fn set(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// A missing answer, with the reason if there is one.
    pub(super) fn explain(&self, error: Error) -> Error {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(text) if error == Error::Timeout => Error::unavailable(format!(
                "the server says {text}; allow it for this user, or give other credentials"
            )),
            _ => error,
        }
    }
}

pub(super) async fn connect(
    config: &JetStreamConfig,
    mux: Arc<Mux>,
    lost: Arc<Notify>,
    complaint: Complaint,
    by: Instant,
) -> Result<Client, Error> {
    let mut servers =
        config.servers.iter().map(|url| address(url)).collect::<Result<Vec<_>, _>>()?;
    // So that not all clients of a server that is lost go to the same one.
    let first = getrandom::u32().map_or(0, |number| number as usize % servers.len().max(1));
    servers.rotate_left(first);
    let rotation = Rotation::default();
    let options = options(config, &servers, by)?.event_callback(move |event| {
        match event {
            Event::Disconnected | Event::Closed => {
                mux.lose_all();
                lost.notify_waiters();
            }
            Event::ServerError(error) => complaint.set(error.to_string()),
            _ => {}
        }
        std::future::ready(())
    });
    let options = options.reconnect_to_server_callback(move |servers, _| {
        let next = rotation.next(&servers);
        std::future::ready(next.map(|addr| ReconnectToServer { addr, delay: None }))
    });
    let attempt = options.connect(servers);
    match tokio::time::timeout_at(by, attempt).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(refused(config, &error)),
        Err(_) => Err(Error::unavailable(format!(
            "no connection to {} in time; is a NATS server listening there?",
            config.shown_servers()
        ))),
    }
}

fn address(url: &str) -> Result<ServerAddr, Error> {
    let address: ServerAddr =
        url.parse().map_err(|error: io::Error| bad_url(url, &error.to_string()))?;
    if address.host().is_empty() {
        return Err(bad_url(url, "it names no host"));
    }
    if address.is_websocket() {
        return Err(bad_url(url, "websockets are not supported"));
    }
    Ok(address)
}

fn bad_url(url: &str, problem: &str) -> Error {
    let problem = format!(
        "has {:?}, which is no NATS URL ({problem}); e.g. nats://127.0.0.1:4222",
        hide(url)
    );
    Invalid::new("servers", problem).into()
}

/// A URL without what stands before its `@`.
fn hide(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        _ => url.to_owned(),
    }
}

/// Who we are, by what stands before the `@` of the URLs. The driver does not look there.
fn named_in_urls(servers: &[ServerAddr]) -> Result<Option<Credentials>, Error> {
    let mut names = servers.iter().map(|server| (server.username(), server.password()));
    let Some((user, password)) = names.next() else { return Ok(None) };
    if names.any(|other| other != (user, password)) {
        let problem = "name different users; a store is the same user to all of its servers";
        return Err(Invalid::new("servers", problem).into());
    }
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Ok(user.map(|user| match password {
        Some(password) => {
            Credentials::UserPassword { user: plain(user), password: plain(password) }
        }
        None => Credentials::Token(plain(user)),
    }))
}

fn credentials(config: &JetStreamConfig, servers: &[ServerAddr]) -> Result<Credentials, Error> {
    match (&config.credentials, named_in_urls(servers)?) {
        (Credentials::None, Some(named)) => Ok(named),
        (given, None) => Ok(given.clone()),
        _ => {
            let problem = "are given, and others stand in the URLs of servers; keep one of them";
            Err(Invalid::new("credentials", problem).into())
        }
    }
}

fn options(
    config: &JetStreamConfig,
    servers: &[ServerAddr],
    by: Instant,
) -> Result<ConnectOptions, Error> {
    let left = by.saturating_duration_since(Instant::now());
    let mut options = ConnectOptions::new()
        .name(format!("membership {}", config.prefix))
        .connection_timeout(left.min(Duration::from_secs(5)))
        .ping_interval(PING)
        .subscription_capacity(CAPACITY)
        .client_capacity(4096)
        .request_timeout(None)
        .ignore_discovered_servers()
        // Our keys are made by one function, and filters are no publish subjects.
        .skip_subject_validation(true)
        .reconnect_delay_callback(|attempts| {
            RECONNECT.min(Duration::from_millis(10) * u32::try_from(attempts).unwrap_or(u32::MAX))
        });
    options = match credentials(config, servers)? {
        Credentials::None => options,
        Credentials::UserPassword { user, password } => options.user_and_password(user, password),
        Credentials::Token(token) => options.token(token),
        Credentials::Nkey(seed) => options.nkey(seed),
        Credentials::File(path) => {
            let unusable = |error: io::Error| {
                let problem = format!("file {} cannot be used: {error}", path.display());
                Error::from(Invalid::new("credentials", problem))
            };
            options.credentials(&fs::read_to_string(&path).map_err(unusable)?).map_err(unusable)?
        }
    };
    if let Some(tls) = &config.tls {
        options = options.require_tls(true);
        if let Some(ca) = &tls.ca_file {
            check_pem("tls.ca_file", ca, "BEGIN CERTIFICATE-----")?;
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &tls.client {
            check_pem("tls.client", certificate, "BEGIN CERTIFICATE-----")?;
            check_pem("tls.client", key, "PRIVATE KEY-----")?;
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
    }
    Ok(options)
}

/// The driver reads the files, and names none of them when it cannot use one.
fn check_pem(field: &'static str, path: &Path, holds: &str) -> Result<(), Error> {
    let shown = path.display();
    let refuse = |problem: String| Err(Error::from(Invalid::new(field, problem)));
    match fs::read_to_string(path) {
        Err(error) => refuse(format!("file {shown} cannot be read: {error}")),
        Ok(text) if !text.contains(holds) => {
            refuse(format!("file {shown} is no PEM file with \"{holds}\" in it"))
        }
        Ok(_) => Ok(()),
    }
}

fn refused(config: &JetStreamConfig, error: &async_nats::ConnectError) -> Error {
    let servers = config.shown_servers();
    let hint = match error.kind() {
        // Nothing was sent yet: the seed is none.
        ConnectErrorKind::Authentication => {
            return Invalid::new("credentials", "hold no seed of a user nkey (SU…)").into();
        }
        _ if let Some(failure) = tls_failure(error) => tls_hint(failure),
        ConnectErrorKind::ServerParse => "check the URL",
        ConnectErrorKind::Dns => "check the host name",
        ConnectErrorKind::AuthorizationViolation => "check the credentials",
        ConnectErrorKind::Tls => "check the TLS settings",
        ConnectErrorKind::TimedOut | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            match &config.tls {
                Some(Tls { client: None, .. }) => {
                    "is a NATS server listening there, and wants it no certificate of ours?"
                }
                _ => "is a NATS server listening there?",
            }
        }
    };
    // What listens there may have said anything.
    let said = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    Error::unavailable(format!("cannot connect to {servers}: {said}; {hint}"))
}

/// What TLS did not like. The driver has it among its I/O errors.
fn tls_failure(error: &async_nats::ConnectError) -> Option<&rustls::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(failure) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(failure);
        }
        cause = error.source();
    }
    None
}

fn tls_hint(failure: &rustls::Error) -> &'static str {
    match failure {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "give the authority that signed the server's certificate as tls.ca_file",
        rustls::Error::InvalidCertificate(_) => "check the server's certificate",
        rustls::Error::InvalidMessage(_) => "does the server speak TLS there?",
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "give the certificate that the server asks for as tls.client"
        }
        _ => "check the TLS settings",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("nats://user:secret@host:4222", "nats://…@host:4222")]
    #[case("user:secret@host", "…@host")]
    #[case("nats://host", "nats://host")]
    fn passwords_are_not_shown(#[case] url: &str, #[case] shown: &str) {
        assert_eq!(hide(url), shown);
    }

    #[rstest]
    #[case::nobody(&["nats://a"], "None")]
    #[case::user(&["nats://u:p@a", "u:p@b"], "UserPassword { user: \"u\", password: <1 bytes> }")]
    #[case::encoded(&["nats://%40:p%2Fq@a"], "UserPassword { user: \"@\", password: <3 bytes> }")]
    #[case::token(&["nats://t@a"], "Token(<1 bytes>)")]
    #[case::two(&["nats://t@a", "b"], "invalid servers: name different users; a store is the same user to all of its servers")]
    #[case::websocket(&["ws://a"], "invalid servers: has \"ws://a\", which is no NATS URL (websockets are not supported); e.g. nats://127.0.0.1:4222")]
    fn urls_say_who_we_are(#[case] urls: &[&str], #[case] expected: &str) {
        let servers = urls.iter().map(|url| address(url)).collect::<Result<Vec<_>, _>>();
        let named = servers.and_then(|s| credentials(&JetStreamConfig::new(["unused"]), &s));
        let said = named.map_or_else(|error| error.to_string(), |named| format!("{named:?}"));
        assert_eq!(said, expected);
    }

    #[test]
    fn who_we_are_is_said_once() {
        let config = JetStreamConfig {
            credentials: Credentials::Token("t".to_owned()),
            ..JetStreamConfig::new(["nats://u:p@a"])
        };
        let error = credentials(&config, &[address("nats://u:p@a").unwrap()]).unwrap_err();
        assert!(error.to_string().starts_with("invalid credentials: are given, and others stand"));
    }

    #[test]
    fn a_complaint_explains_what_was_too_late_and_nothing_else() {
        let complaint = Complaint::default();
        let other = Error::unavailable("no quorum");
        assert_eq!(complaint.explain(Error::Timeout), Error::Timeout);
        complaint.set("permissions violation".to_owned());
        assert!(matches!(complaint.explain(Error::Timeout), Error::Unavailable(_)));
        assert_eq!(complaint.explain(other.clone()), other);
    }
}
