//! Counts of the events in a history. A history that lacks the events that a case is about proves
//! nothing.

use std::collections::BTreeMap;

use membership::{Conflict, Decision, DenyReason, Error};

use super::{Call, History, Says};
use crate::model::Op;

/// How often each event happened.
pub type Reached = BTreeMap<&'static str, u64>;

/// All calls.
pub const CALLS: &str = "calls";
/// Pairs of concurrent rekeys from one epoch: one took effect, the other got `StaleEpoch`.
pub const CONTENDED_REKEYS: &str = "contended rekeys";
/// Calls that were refused with `StaleEpoch`.
pub const STALE_EPOCHS: &str = "stale epochs";
/// Additions and removals of members concurrent with a rekey of their room.
pub const MEMBERS_BESIDE_REKEYS: &str = "members beside rekeys";
/// Calls of `rooms_of` concurrent with a write that may change their answer.
pub const LISTS_BESIDE_CHANGES: &str = "lists beside changes";
/// Decisions on a user concurrent with the user's revocation.
pub const DECISIONS_BESIDE_REVOCATIONS: &str = "decisions beside revocations";
/// Decisions that denied a revoked user.
pub const REVOKED_KEPT_OUT: &str = "revoked kept out";
/// Revocations that were refused because they hit the last active admin.
pub const LAST_ADMINS: &str = "last admins kept";
/// Writes with an unknown outcome.
pub const UNKNOWN_OUTCOMES: &str = "unknown outcomes";

/// Barriers of the JetStream store that had to wait, because several were in flight.
pub const BARRIERS_WAITED: &str = "barriers that waited";
/// Exchanges with a server that the JetStream store tried again.
pub const RETRIES: &str = "retries";
/// Replies that the JetStream store discarded because they were stale.
pub const STALE_REPLIES: &str = "stale replies";

/// Counts the events of a history.
#[must_use]
pub fn reached(history: &History) -> Reached {
    let mut reached = Reached::new();
    let mut met = |what, times: usize| {
        if times > 0 {
            *reached.entry(what).or_default() += u64::try_from(times).unwrap_or(u64::MAX);
        }
    };
    let calls = &history.calls;
    let count = |which: fn(&Call) -> bool| calls.iter().filter(|call| which(call)).count();
    met(CALLS, calls.len());
    met(STALE_EPOCHS, count(stale));
    met(UNKNOWN_OUTCOMES, count(|call| call.says() == Says::Perhaps));
    met(LAST_ADMINS, count(|call| error(call) == Some(&Conflict::LastAdmin.into())));
    met(REVOKED_KEPT_OUT, count(keeps_out));
    met(
        CONTENDED_REKEYS,
        overlapping(calls, |one, two| match (&one.op, &two.op) {
            (Op::Rekey(room, first), Op::Rekey(other, second)) => {
                room == other && first.from() == second.from() && done(one) && stale(two)
            }
            _ => false,
        }),
    );
    met(
        MEMBERS_BESIDE_REKEYS,
        overlapping(calls, |one, two| match (&one.op, &two.op) {
            (Op::Rekey(room, _), Op::AddMember(other, _) | Op::RemoveMember(other, _)) => {
                room == other && done(one)
            }
            _ => false,
        }),
    );
    met(
        LISTS_BESIDE_CHANGES,
        overlapping(calls, |one, two| match &one.op {
            Op::RoomsOf(who, _) => done_listing(one) && changes_rooms_of(two, who) && done(two),
            _ => false,
        }),
    );
    met(
        DECISIONS_BESIDE_REVOCATIONS,
        overlapping(calls, |one, two| match (&one.op, &two.op) {
            (Op::IsAuthorized(key) | Op::IsAdmin(key), Op::RevokeUser(other, _)) => {
                key == other && done(two)
            }
            _ => false,
        }),
    );
    reached
}

fn error(call: &Call) -> Option<&Error> {
    call.ended.as_ref().and_then(|(_, answer)| answer.error())
}

fn stale(call: &Call) -> bool {
    matches!(error(call), Some(Error::StaleEpoch { .. }))
}

fn done(call: &Call) -> bool {
    call.says() == Says::Done
}

fn done_listing(call: &Call) -> bool {
    call.says() == Says::Seen
}

fn keeps_out(call: &Call) -> bool {
    use crate::model::Answer::Decision as Decided;
    let denied = Decided(Decision::Deny(DenyReason::Revoked));
    call.ended.as_ref().is_some_and(|(_, answer)| *answer == denied)
}

fn changes_rooms_of(call: &Call, who: &membership::EndpointId) -> bool {
    match &call.op {
        Op::CreateRoom(new) => new.owner == *who,
        Op::AddMember(_, new) => new.endpoint == *who,
        Op::RemoveMember(_, endpoint) => endpoint == who,
        Op::Rekey(_, rekey) => rekey.remove().contains(who),
        Op::DeleteRoom(_) => true,
        _ => false,
    }
}

/// Counts the pairs of concurrent calls for which `such` holds, in either order.
fn overlapping(calls: &[Call], such: impl Fn(&Call, &Call) -> bool) -> usize {
    let mut by_begin: Vec<&Call> = calls.iter().collect();
    by_begin.sort_by_key(|call| call.began);
    let mut open: Vec<&Call> = Vec::new();
    let mut pairs = 0;
    for call in by_begin {
        open.retain(|other| other.ended.as_ref().is_some_and(|(ended, _)| *ended >= call.began));
        pairs += open.iter().filter(|other| such(other, call) || such(call, other)).count();
        open.push(call);
    }
    pairs
}
