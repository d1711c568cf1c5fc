//! From configuration to connection, and from the driver's failures to a line an operator can
//! act on.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::config::{Credentials, JetStreamConfig};
use crate::jetstream::gateway::mux::Mux;

/// How often the connection is tried for life; it is given up, and made anew, when three in a row
/// went without an answer.
const PING: Duration = Duration::from_secs(1);
/// The longest wait between two attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(250);
/// Messages that may wait for the one who reads a subscription. Past it some are lost: a read
/// times out and is repeated, a feed sees the gap and starts again.
const CAPACITY: usize = 1 << 18;

pub(super) async fn connect(
    config: &JetStreamConfig,
    mux: Arc<Mux>,
    lost: Arc<Notify>,
    by: Instant,
) -> Result<Client, Error> {
    let servers = config
        .servers
        .iter()
        .map(|url| url.parse::<ServerAddr>().map_err(|error| bad_url(url, &error.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    let options = options(config, by)?.event_callback(move |event| {
        if matches!(event, Event::Disconnected | Event::Closed) {
            mux.lose_all();
            lost.notify_waiters();
        }
        std::future::ready(())
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

fn options(config: &JetStreamConfig, by: Instant) -> Result<ConnectOptions, Error> {
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
    options = match &config.credentials {
        Credentials::None => options,
        Credentials::UserPassword { user, password } => {
            options.user_and_password(user.clone(), password.clone())
        }
        Credentials::Token(token) => options.token(token.clone()),
        Credentials::Nkey(seed) => options.nkey(seed.clone()),
        Credentials::File(path) => {
            let unreadable = |error: std::io::Error| {
                let problem = format!("file {} cannot be used: {error}", path.display());
                Error::from(Invalid::new("credentials", problem))
            };
            options
                .credentials(&std::fs::read_to_string(path).map_err(unreadable)?)
                .map_err(unreadable)?
        }
    };
    if let Some(tls) = &config.tls {
        options = options.require_tls(true);
        if let Some(ca) = &tls.ca_file {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &tls.client {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
    }
    Ok(options)
}

fn refused(config: &JetStreamConfig, error: &async_nats::ConnectError) -> Error {
    let servers = config.shown_servers();
    let hint = match error.kind() {
        ConnectErrorKind::ServerParse => "check the URL",
        ConnectErrorKind::Dns => "check the host name",
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            "check the credentials"
        }
        ConnectErrorKind::Tls => "check the TLS settings and the server's certificate",
        ConnectErrorKind::TimedOut | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            "is a NATS server listening there?"
        }
    };
    Error::unavailable(format!("cannot connect to {servers}: {error}; {hint}"))
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
}
