//! The greeting: the line that a server sends to every client before it asks for credentials.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use serde::Deserialize;

/// How long the connection to a server may take, and how long the server may take to send its
/// greeting.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most bytes of a greeting, which is one line.
const LONGEST: u64 = 1 << 16;

#[derive(Deserialize)]
struct Info {
    version: String,
}

/// The version of the server at an address. Blocks.
pub(super) fn version_at(host: &str, port: u16) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot reach {host}:{port}: {error}");
    let found = (host, port).to_socket_addrs().map_err(cannot)?.next();
    let found = found.ok_or_else(|| format!("{host} has no address"))?;
    let stream = TcpStream::connect_timeout(&found, PATIENCE).map_err(cannot)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(cannot)?;
    let mut line = String::new();
    // After an error the line is incomplete, and the parser refuses it.
    let _ = BufReader::new(stream.take(LONGEST)).read_line(&mut line);
    let info = line.strip_prefix("INFO ").and_then(|json| serde_json::from_str::<Info>(json).ok());
    info.map(|info| info.version).ok_or_else(|| {
        format!("what listens at {host}:{port} does not speak as a NATS server does")
    })
}
