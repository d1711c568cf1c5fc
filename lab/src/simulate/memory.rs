//! Judges bounded-staleness decisions (clause AUTH-4).
//!
//! A revoked user may be allowed until the bound is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use membership::{Decision, UserKey};

use membership_conformance::history::History;
use membership_conformance::model::{Answer, Op};

/// The users that were added and revoked so far. Times are those of the clients' machine.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Users whose addition was called, answered or not.
    added: BTreeSet<UserKey>,
    /// When the revocation of a user was first acknowledged.
    revoked: BTreeMap<UserKey, Duration>,
}

impl Known {
    /// Records that a call begins.
    pub(super) fn begins(&mut self, op: &Op) {
        if let Op::BootstrapAdmin(new) | Op::AddUser(new) = op {
            self.added.insert(new.key);
        }
    }

    /// Records that a call was answered at this time.
    pub(super) fn ended(&mut self, op: &Op, answer: &Answer, now: Duration) {
        if let (Op::RevokeUser(user, _), None) = (op, answer.error()) {
            self.revoked.entry(*user).or_insert(now);
        }
    }

    /// Says why a decision breaks the contract, if it does. The call began at `asked`.
    pub(super) fn wrong(
        &self,
        op: &Op,
        answer: &Answer,
        asked: Duration,
        bound: Duration,
    ) -> Option<String> {
        let (Op::IsAuthorized(user) | Op::IsAdmin(user)) = op else { return None };
        let Answer::Decision(Decision::Allow) = answer else { return None };
        if !self.added.contains(user) {
            return Some(format!("{op:?} allows somebody whom nobody added (AUTH-1)"));
        }
        let revoked = self.revoked.get(user)?;
        (asked >= *revoked + bound).then(|| {
            let late = asked.saturating_sub(*revoked);
            format!("{op:?} allows {late:?} after the revocation; the bound is {bound:?} (AUTH-4)")
        })
    }
}

/// Removes the decisions from a history: stale ones have no place in the other calls' order.
pub(super) fn without_decisions(mut history: History) -> History {
    history.calls.retain(|call| !matches!(call.op, Op::IsAuthorized(_) | Op::IsAdmin(_)));
    history
}
