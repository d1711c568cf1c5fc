//! Makes the connection, and turns the driver's errors into lines that an operator can act on.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use async_nats::rustls::{self, AlertDescription, CertificateError};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ReconnectToServer};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::config::{JetStreamConfig, Tls, server_url};
use crate::jetstream::gateway::nats::complaint::Complaint;
use crate::jetstream::gateway::nats::identity::Identity;
use crate::jetstream::gateway::nats::mux::Mux;
use crate::jetstream::gateway::nats::rotation::Rotation;

/// How often the client pings the server. After three pings without an answer the client closes the connection and
/// makes a new one.
const PING: Duration = Duration::from_secs(1);
/// The longest wait between two attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(250);
/// The most messages that wait in a subscription. Further messages are dropped: then a read times out and is repeated,
/// and a feed sees a gap and gets another consumer.
const CAPACITY: usize = 1 << 18;

pub(super) async fn connect(
    config: &JetStreamConfig,
    mux: Arc<Mux>,
    lost: Arc<Notify>,
    complaint: Complaint,
    deadline: Instant,
) -> Result<Client, Error> {
    let (mut servers, credentials) = server_url::resolve(&config.servers, &config.credentials)?;
    // The order is random, so that the clients of a lost server do not all go to the same other one.
    let first = getrandom::u32().map_or(0, |number| number as usize % servers.len().max(1));
    servers.rotate_left(first);
    let rotation = Rotation::default();
    let heard = complaint.clone();
    let options =
        options(config, Identity::new(credentials)?, deadline)?.event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                mux.lose_all();
                lost.notify_waiters();
            }
            heard.hear(&event);
            std::future::ready(())
        });
    let options = options.reconnect_to_server_callback(move |servers, _| {
        complaint.lost(&servers);
        let next = rotation.next(&servers);
        std::future::ready(next.map(|addr| ReconnectToServer { addr, delay: None }))
    });
    let attempt = options.connect(servers);
    match tokio::time::timeout_at(deadline, attempt).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(refused(config, &error)),
        Err(_) => Err(Error::unavailable(format!(
            "no connection to {} in time; {}",
            config.shown_servers(),
            silent(config)
        ))),
    }
}

fn options(
    config: &JetStreamConfig,
    identity: Option<Identity>,
    deadline: Instant,
) -> Result<ConnectOptions, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    // A server that accepts connections and then says nothing must leave time for the other servers.
    let servers = u32::try_from(config.servers.len()).unwrap_or(u32::MAX);
    let attempt = if servers > 1 { left / servers.saturating_add(1) } else { left };
    let options = match identity {
        None => ConnectOptions::new(),
        Some(identity) => {
            ConnectOptions::with_auth_callback(move |nonce| identity.clone().answer(nonce))
        }
    };
    let mut options = options
        .name(format!("membership {}", config.prefix))
        .connection_timeout(attempt.min(Duration::from_secs(5)))
        .ping_interval(PING)
        .subscription_capacity(CAPACITY)
        .client_capacity(4096)
        .request_timeout(None)
        .ignore_discovered_servers()
        // The keys are valid, because one function makes all of them. Filters are never subjects of a publish.
        .skip_subject_validation(true)
        .reconnect_delay_callback(|attempts| {
            RECONNECT.min(Duration::from_millis(10) * u32::try_from(attempts).unwrap_or(u32::MAX))
        });
    if let Some(tls) = &config.tls {
        options = options.require_tls(true);
        if tls.handshake_first {
            options = options.tls_first();
        }
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

/// Checks the files first: the driver does not name the file that it cannot use.
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
        // Nothing was sent yet, and the file was readable a moment ago.
        ConnectErrorKind::Authentication => "check the credentials",
        _ if let Some(failure) = tls_failure(error) => tls_hint(failure),
        ConnectErrorKind::ServerParse => "check the URL",
        ConnectErrorKind::Dns => "check the host name",
        ConnectErrorKind::AuthorizationViolation => "check the credentials",
        ConnectErrorKind::Tls => "check the TLS settings",
        ConnectErrorKind::TimedOut => silent(config),
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => match &config.tls {
            Some(Tls { client: None, .. }) => {
                "is a NATS server listening there, and wants it no certificate of ours?"
            }
            _ => "is a NATS server listening there?",
        },
    };
    // The text comes from the other end, which may send anything.
    let said = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    Error::unavailable(format!("cannot connect to {servers}: {said}; {hint}"))
}

/// The advice for the case that the server said nothing.
fn silent(config: &JetStreamConfig) -> &'static str {
    match &config.tls {
        Some(Tls { handshake_first: true, .. }) => "is a NATS server listening there?",
        _ => "is a NATS server listening there, one that does not wait for TLS (handshake_first)?",
    }
}

/// TLS errors, which the driver reports among its I/O errors.
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
        rustls::Error::InvalidMessage(_) => {
            "does the server speak TLS there, and with \
                                           handshake_first also first?"
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "give the certificate that the server asks for as tls.client"
        }
        _ => "check the TLS settings",
    }
}
