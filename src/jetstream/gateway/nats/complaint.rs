//! Reasons for missing answers, as a server or the driver reports them.
//!
//! A server reports a missing permission on the connection, not as the answer to the request. The driver reports a lost
//! connection as an event, not to the caller. This module keeps the latest report of each kind.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{ClientError, Event, Server, ServerError};
use tokio::time::Instant;

use crate::trace::event;
use crate::{Error, shown};

/// The latest reports.
#[derive(Clone, Default)]
pub(super) struct Complaint(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// The server's last error, and when it came.
    said: Option<(Instant, String)>,
    /// Why there is no connection; `None` while there is one.
    away: Option<String>,
    /// Whether a connection was lost and not replaced yet.
    lost: bool,
}

impl Complaint {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an event of the driver.
    pub(super) fn hear(&self, event: &Event) {
        match event {
            Event::Connected => {
                let again = {
                    let mut heard = self.heard();
                    heard.away = None;
                    std::mem::take(&mut heard.lost)
                };
                if again {
                    event!(connection: info, "connected again");
                } else {
                    event!(connection: debug, "connected");
                }
            }
            Event::Disconnected => {
                event!(connection: info, "the connection was lost");
                self.heard().lost = true;
            }
            Event::LameDuckMode => event!(connection: info, "the server is about to stop"),
            Event::SlowConsumer(_) => {
                event!(connection: debug, "a full subscription dropped a message");
            }
            Event::ServerError(error) => {
                let text = match error {
                    ServerError::AuthorizationViolation => "authorization violation".to_owned(),
                    other => one_line(other.to_string().trim_start_matches("nats: ")),
                };
                event!(connection: warn, "the server reports an error", error = text);
                self.heard().said = Some((Instant::now(), text));
            }
            // The event has only the kind of the error. The next attempt to connect reports the details.
            Event::ClientError(ClientError::Other(kind)) => {
                self.heard().away.get_or_insert_with(|| one_line(kind));
            }
            _ => {}
        }
    }

    /// Keeps why the last attempt to connect failed.
    pub(super) fn lost(&self, servers: &[Server]) {
        let why = |server: &Server| {
            let error = server.last_error.as_ref().filter(|_| server.failed_attempts > 0)?;
            let url = [server.addr.as_url_str().to_owned()];
            Some(format!("{}: {}", shown::servers(&url).concat(), one_line(error)))
        };
        let why: Vec<String> = servers.iter().filter_map(why).collect();
        if !why.is_empty() {
            event!(connection: debug, "an attempt to connect failed", error = why.join(", "));
            self.heard().away = Some(why.join(", "));
        }
    }

    /// Returns the reason for a missing answer, if one was reported within the last `within`.
    pub(super) fn reason(&self, within: Duration) -> Option<Error> {
        let heard = self.heard();
        if let Some(why) = &heard.away {
            let why = format!("no connection: {why}{}", hint(why));
            return Some(Error::unavailable(why));
        }
        let (at, text) = heard.said.as_ref()?;
        let text = format!("no answer; the server says {text}{}", hint(text));
        (at.elapsed() <= within).then(|| Error::unavailable(text))
    }
}

/// Adds the advice for an error.
fn hint(said: &str) -> &'static str {
    let said = said.to_lowercase();
    let hints = [
        ("permissions violation", "; allow it for this user, or give other credentials"),
        ("maximum payload", "; raise max_payload of the server, the account or the user"),
        ("maximum", "; raise the account's limit"),
        ("authorization", "; check the credentials"),
        ("authentication", "; check the credentials"),
        ("certificate", "; check the certificates"),
    ];
    let fits = hints.into_iter().find(|(what, _)| said.contains(what));
    fits.map_or("", |(_, hint)| hint)
}

/// The text comes from the other end, which may send anything.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(2);

    fn server(url: &str, failed_attempts: usize, last_error: Option<&str>) -> Server {
        let (addr, last_error) = (url.parse().unwrap(), last_error.map(str::to_owned));
        Server { addr, failed_attempts, did_connect: true, is_discovered: false, last_error }
    }

    fn said(complaint: &Complaint) -> String {
        complaint.reason(SOON).map_or_else(String::new, |error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_complaint_is_told_while_it_is_new() {
        let complaint = Complaint::default();
        assert_eq!(complaint.reason(SOON), None);
        let text = "Permissions Violation for Publish to \"a\"".to_owned();
        complaint.hear(&Event::ServerError(ServerError::Other(text.clone())));
        let expected = "; allow it for this user, or give other credentials";
        assert_eq!(
            said(&complaint),
            format!("unavailable: no answer; the server says {text}{expected}")
        );
        tokio::time::advance(SOON + Duration::from_millis(1)).await;
        assert_eq!(complaint.reason(SOON), None);
    }

    #[tokio::test]
    async fn why_there_is_no_connection_is_told_until_there_is_one() {
        let complaint = Complaint::default();
        complaint.hear(&Event::Disconnected);
        complaint.lost(&[server("a", 0, Some("long ago"))]);
        assert_eq!(complaint.reason(SOON), None);
        complaint
            .hear(&Event::ClientError(ClientError::Other("authorization violation".to_owned())));
        let kind = "unavailable: no connection: authorization violation; check the credentials";
        assert_eq!(said(&complaint), kind);
        let refused = "IO error:\nrefused";
        complaint.lost(&[server("u:p@a:1", 2, Some(refused)), server("b", 0, None)]);
        complaint.hear(&Event::ClientError(ClientError::Other("IO error".to_owned())));
        assert_eq!(said(&complaint), "unavailable: no connection: nats://…@a:1: IO error: refused");
        complaint.hear(&Event::Connected);
        assert_eq!(complaint.reason(SOON), None);
    }
}
