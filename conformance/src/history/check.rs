use std::fmt;

use super::parts::{Touching, parts};
use super::search::{Found, Origin, search};
use super::{Call, History};
use crate::model::Op;

/// Why a history fails the check.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The part of the history that fails by itself. Calls that touch other objects are left out.
    pub witness: History,
    /// What is wrong with the witness.
    pub reason: Reason,
}

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No order explains this call (an index into the witness's calls) together with all calls that
    /// returned before it.
    NoOrder(usize),
    /// The search gave up: too many calls were concurrent, or had an unknown outcome. Nothing is
    /// proved, so the history must not pass.
    TooMuch,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.witness.calls.len();
        match self.reason {
            Reason::NoOrder(_) => write!(f, "{calls} calls that no order explains"),
            Reason::TooMuch => write!(f, "{calls} calls with too many orders to try"),
        }
    }
}

impl std::error::Error for Violation {}

/// Checks that a history is linearizable (clause LIN-1).
///
/// One order of all calls must explain every answer, and a call that returned before another began
/// must precede it in that order.
///
/// # Errors
/// The first part of the history that has no such order, or too many to try.
pub fn check(history: &History) -> Result<(), Box<Violation>> {
    match find(history) {
        Some((violation, _)) => Err(Box::new(violation)),
        None => Ok(()),
    }
}

/// Does what [`check`] does, and also returns the last origin before the failure.
pub(super) fn find(history: &History) -> Option<(Violation, Option<Origin>)> {
    let lists = |call: &Call| matches!(call.op, Op::RoomsOf(..) | Op::Users(_));
    let all = history.calls.iter().any(lists);
    find_in(history, false).or_else(|| all.then(|| find_in(history, true)).flatten())
}

fn find_in(history: &History, listings: bool) -> Option<(Violation, Option<Origin>)> {
    parts(history, listings).into_iter().find_map(|part| {
        let (reason, origin) = match search(&history.start, &part) {
            Found::Order => return None,
            Found::None(stuck) => (Reason::NoOrder(stuck.call), stuck.origin),
            Found::TooMuch => (Reason::TooMuch, None),
        };
        Some((Violation { witness: witness(history, &part), reason }, origin))
    })
}

fn witness(history: &History, part: &[Touching<'_>]) -> History {
    let calls = part.iter().map(|touching| touching.call.clone()).collect();
    History { start: history.start.clone(), calls }
}
