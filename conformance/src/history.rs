//! Histories of concurrent calls, and the check that a history is linearizable (clause LIN-1).
//!
//! [`Recorder`] records the calls of several clients with their answers. [`check()`] searches for
//! one order of all calls that explains every answer, with the [`Model`] as the sequential
//! specification. Time is a counter: only the order of beginnings and returns matters. So a history
//! can come from real servers, from a simulation or from a file.
//!
//! ```
//! use membership_conformance::history::{History, Recorder, check};
//! use membership_conformance::make::{at, user, user_key};
//! use membership_conformance::model::Op;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! let store = membership::MemoryStore::new();
//! let recorder = Recorder::new();
//! recorder.call(1, &store, Op::AddUser(user(user_key(1)))).await;
//! recorder.call(2, &store, Op::IsAuthorized(user_key(1))).await;
//! assert!(check(&recorder.history()).is_ok());
//! # });
//! ```

mod caller;
mod check;
mod file;
mod judge;
#[cfg(test)]
mod known;
pub mod nemesis;
mod parts;
mod picture;
mod play;
pub mod reached;
mod record;
mod scene;
mod search;
mod shrink;
mod steps;

use serde::{Deserialize, Serialize};

use crate::model::{Answer, Model, Op};

pub use caller::{Caller, Mix};
pub use check::{Reason, Violation, check};
pub use file::Saved;
pub use judge::judge;
pub use picture::picture;
pub use play::{Play, Playing, Pulse};
pub use reached::{Reached, reached};
pub use record::Recorder;
pub use scene::Scene;
pub use shrink::shrink;

/// The calls of several clients of one store, with their answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The state before the first call.
    pub start: Model,
    /// Every call that may have changed the state, and any of the other calls; in any order.
    pub calls: Vec<Call>,
}

/// One call of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The number of the client that made the call. The number is for display only and implies no
    /// order.
    pub client: usize,
    /// The call with its arguments.
    pub op: Op,
    /// The moment at which the call began.
    pub began: u64,
    /// The moment at which the call returned, and its answer; `None` if it never returned, or if
    /// its caller dropped it.
    ///
    /// A call that returned before another began (`<`) precedes it. Two calls that share a moment
    /// are concurrent, and may take effect in either order.
    pub ended: Option<(u64, Answer)>,
}

/// What a call proves about the order of all calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The call proves nothing: a read without a definite answer, a call that returned `Closed`, or
    /// `close` itself.
    Nothing,
    /// The call changed nothing, and its answer was right at one moment while it lasted.
    Seen,
    /// The call took effect, with its answer, at one moment while it lasted.
    Done,
    /// The outcome of the call is unknown: it takes effect at one moment after it began, or never
    /// (clause ERR-2).
    Perhaps,
}

impl Call {
    /// Classifies the call by its answer.
    ///
    /// `Timeout`, `Unavailable` or no answer leave the outcome of a write unknown, and a read
    /// without value. `Closed` proves nothing. Every other error is a definite answer: the model
    /// must return it too, and a call to which it returns an error changes nothing.
    #[must_use]
    pub fn says(&self) -> Says {
        let write = self.op.is_write();
        let Some((_, answer)) = &self.ended else {
            return if write { Says::Perhaps } else { Says::Nothing };
        };
        match answer.error() {
            _ if self.op == Op::Close => Says::Nothing,
            Some(membership::Error::Closed) => Says::Nothing,
            Some(error) if error.outcome_unknown() && write => Says::Perhaps,
            Some(error) if error.outcome_unknown() => Says::Nothing,
            None if write => Says::Done,
            _ => Says::Seen,
        }
    }
}
