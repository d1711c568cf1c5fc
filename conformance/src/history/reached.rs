//! What a history met. One that never met what it is for shows nothing.

use std::collections::BTreeMap;

use membership::{Conflict, Decision, DenyReason, Error};

use super::{Call, History, Says};
use crate::model::Op;

/// How often each thing was met.
pub type Reached = BTreeMap<&'static str, u64>;

/// All calls.
pub const CALLS: &str = "calls";
/// Rekeys from one epoch at the same time, one of which was too late.
pub const CONTENDED_REKEYS: &str = "contended rekeys";
/// Compare-and-sets that were refused: `StaleEpoch`.
pub const STALE_EPOCHS: &str = "stale epochs";
/// Changes of a room's members while it is moved to another epoch.
pub const MEMBERS_BESIDE_REKEYS: &str = "members beside rekeys";
/// Lists of several rooms while one of them changes.
pub const LISTS_BESIDE_CHANGES: &str = "lists beside changes";
/// Decisions on somebody who is being revoked.
pub const DECISIONS_BESIDE_REVOCATIONS: &str = "decisions beside revocations";
/// Revoked users who were kept out.
pub const REVOKED_KEPT_OUT: &str = "revoked kept out";
/// Last admins who could not be revoked.
pub const LAST_ADMINS: &str = "last admins kept";
/// Writes of which nobody knows whether they took effect.
pub const UNKNOWN_OUTCOMES: &str = "unknown outcomes";

/// Of a store that proves its reads: proofs that had to wait for others.
pub const BARRIERS_WAITED: &str = "barriers that waited";
/// Of a store on servers: exchanges with one that were tried again.
pub const RETRIES: &str = "retries";
/// Of a store that proves its reads: replies that were too old.
pub const STALE_REPLIES: &str = "stale replies";

/// What this history met.
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

/// How many pairs of calls that had a moment in common are such.
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
