//! Shows the events of the stores on standard error, as `RUST_LOG` asks.

use std::{env, io};

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::EnvFilter;

const VARIABLE: &str = "RUST_LOG";

/// From now on shows the events that `RUST_LOG` names. Shows none if `RUST_LOG` is unset or empty.
pub(super) fn show() -> Result<(), String> {
    let Some(wanted) = env::var_os(VARIABLE).filter(|wanted| !wanted.is_empty()) else {
        return Ok(());
    };
    let wanted = wanted.to_str().ok_or_else(|| format!("{VARIABLE} is no UTF-8"))?;
    let filter = EnvFilter::builder().parse(wanted).map_err(|error| {
        format!("{VARIABLE}: {wanted:?} is no filter such as \"membership=debug\": {error}")
    })?;
    let colours = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let events = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    events.with_ansi(colours).try_init().map_err(|error| error.to_string())
}
