use std::fmt;

use super::parts::{Touching, parts};
use super::search::{Agreed, Found, search};
use super::{Call, History};
use crate::model::Op;

/// Why a history is none that a store may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// Calls of the history that have no order among themselves, from the history's start; those
    /// that have nothing to do with them are left out.
    pub witness: History,
    /// What is wrong with them.
    pub reason: Reason,
}

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// When the call that is this one of the witness returned, no order explained it together with
    /// all that had returned before.
    NoOrder(usize),
    /// It could not be found out: too many calls whose outcome is unknown, or too many at once.
    /// Nothing is proved, so it must not pass.
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

/// Whether one order of all calls explains every answer, in which a call that returned before
/// another began comes before it (clause LIN-1).
///
/// # Errors
/// The first part of the history that has no such order, or too many to try.
pub fn check(history: &History) -> Result<(), Box<Violation>> {
    match find(history) {
        Some((violation, _)) => Err(Box::new(violation)),
        None => Ok(()),
    }
}

/// The same, with what was agreed on last before there was no order any more.
pub(super) fn find(history: &History) -> Option<(Violation, Option<Agreed>)> {
    let lists = |call: &Call| matches!(call.op, Op::RoomsOf(..) | Op::Users(_));
    let all = history.calls.iter().any(lists);
    find_in(history, false).or_else(|| all.then(|| find_in(history, true)).flatten())
}

fn find_in(history: &History, listings: bool) -> Option<(Violation, Option<Agreed>)> {
    parts(history, listings).into_iter().find_map(|part| {
        let (reason, agreed) = match search(&history.start, &part) {
            Found::Order => return None,
            Found::None(stuck) => (Reason::NoOrder(stuck.call), stuck.agreed),
            Found::TooMuch => (Reason::TooMuch, None),
        };
        Some((Violation { witness: witness(history, &part), reason }, agreed))
    })
}

fn witness(history: &History, part: &[Touching<'_>]) -> History {
    let calls = part.iter().map(|touching| touching.call.clone()).collect();
    History { start: history.start.clone(), calls }
}
