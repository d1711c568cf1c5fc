//! Histories: what several clients asked at the same time, what each was answered, and whether
//! one order of all the calls explains every answer (clause LIN-1).
//!
//! [`Recorder`] writes a history down while it happens, [`check()`] judges it, with the
//! [`Model`] as the sequential specification. Time is a counter: only
//! what came before what matters. So a history can come from real servers, from a simulation, or
//! from a file.
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

/// What some clients asked of one store's data, and were answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// What is stored before the first call.
    pub start: Model,
    /// Every call that could have changed anything, and of the others as many as are wanted; in
    /// any order.
    pub calls: Vec<Call>,
}

/// One call of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Who made it. Only for people: it orders nothing.
    pub client: usize,
    /// What was asked.
    pub op: Op,
    /// When it began.
    pub began: u64,
    /// When it returned, and what; `None` where it never did, or its caller did not wait.
    ///
    /// A call that returned before another began (`<`) comes before it. Two that have a moment in
    /// common may be in either order.
    pub ended: Option<(u64, Answer)>,
}

/// What a call says about the order of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing: a read that failed, or a call that was not let in.
    Nothing,
    /// What was stored at one moment of it; it changed nothing.
    Seen,
    /// That it took effect, with this answer, at one moment of it.
    Done,
    /// That it may take effect, at one moment after it began, or never (clause ERR-2).
    Perhaps,
}

impl Call {
    /// What the call says.
    ///
    /// `Timeout` and `Unavailable` leave a write open, and say nothing where nothing could be
    /// changed; so does a call without an answer. `Closed` says nothing at all. Every other error
    /// is an answer like any other: the model must give it too, and so nothing may have changed.
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
