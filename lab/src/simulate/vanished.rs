//! Judges the calls made after all users vanished.
//!
//! These calls need not have an order that explains them. But the loss must let nobody in (clauses
//! PAST-3 and AUTH-5).

use membership::{Decision, UserKey};

use membership_conformance::history::{Call, History};
use membership_conformance::model::{Answer, Op};

/// Returns the part of a history that one order must explain.
///
/// Calls on users that began after the loss at `moment` are removed; calls on users that were in
/// flight at the loss lose their answers.
pub(super) fn until(mut history: History, moment: u64) -> History {
    history.calls.retain(|call| !is_of_users(&call.op) || call.began < moment);
    for call in history.calls.iter_mut().filter(|call| is_of_users(&call.op)) {
        call.ended.take_if(|(ended, _)| *ended >= moment);
    }
    history
}

fn is_of_users(op: &Op) -> bool {
    matches!(
        op,
        Op::BootstrapAdmin(_)
            | Op::AddUser(_)
            | Op::RevokeUser(..)
            | Op::User(_)
            | Op::Users(_)
            | Op::HasAdmin
            | Op::IsAuthorized(_)
            | Op::IsAdmin(_)
    )
}

/// Says what is wrong with the first wrong answer after the loss, if there is one.
pub(super) fn wrong(history: &History, moment: u64) -> Option<String> {
    let mut later = history.calls.iter().filter(|call| ended(call).is_some_and(|at| at >= moment));
    later.find_map(|call| wrong_answer(history, call, moment))
}

/// The moment at which a call returned success.
fn ended(call: &Call) -> Option<u64> {
    call.ended.as_ref().filter(|(_, answer)| answer.error().is_none()).map(|(at, _)| *at)
}

fn wrong_answer(history: &History, call: &Call, moment: u64) -> Option<String> {
    // A call that began before the admin was made may still answer that there is none.
    let before = |other: &&Call| ended(other).is_some_and(|at| at < moment.min(call.began));
    let makes_an_admin = |op: &Op| match op {
        Op::BootstrapAdmin(_) => true,
        Op::AddUser(new) => new.admin,
        _ => false,
    };
    let admin_was_made =
        || history.calls.iter().filter(before).any(|other| makes_an_admin(&other.op));
    let (_, answer) = call.ended.as_ref()?;
    match (&call.op, answer) {
        (Op::BootstrapAdmin(_), _) if admin_was_made() => {
            Some("a bootstrap succeeds after the admins have vanished (PAST-3)".to_owned())
        }
        (Op::HasAdmin, Answer::Bool(Ok(false))) if admin_was_made() => {
            Some("has_admin answers false after the admins have vanished (AUTH-5)".to_owned())
        }
        (Op::IsAuthorized(user) | Op::IsAdmin(user), Answer::Decision(Decision::Allow)) => {
            let let_in = may_be_in(history, call, user, moment);
            (!let_in).then(|| {
                let calls: Vec<_> = history.calls.iter().map(|call| format!("{call:?}")).collect();
                let calls = calls.join("\n  ");
                format!("{user:?} is allowed after the users have vanished, at {moment} (PAST-3):\n  {calls}")
            })
        }
        _ => None,
    }
}

/// Whether the user may be added and not revoked at some moment of the call.
fn may_be_in(history: &History, call: &Call, user: &UserKey, moment: u64) -> bool {
    let adds = |op: &Op| match op {
        Op::BootstrapAdmin(new) | Op::AddUser(new) => new.key == *user,
        _ => false,
    };
    let is_revocation = |other: &&Call| matches!(&other.op, Op::RevokeUser(key, _) if key == user);
    let ends = history.calls.iter().filter(is_revocation).filter_map(ended);
    let revoked = ends.filter(|at| *at < call.began).max();
    history.calls.iter().filter(|other| adds(&other.op)).any(|other| match revoked {
        None => true,
        // The emptied bucket does not know the revocation, so the user can be added again.
        Some(at) => other.ended.as_ref().is_none_or(|(ended, _)| *ended > at.max(moment)),
    })
}
