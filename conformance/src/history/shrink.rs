//! Shrinking of a violation to few calls.
//!
//! The shrunk violation must prove that the whole history is not linearizable. So shrinking may
//! remove only these:
//!
//! - Calls that began after the unexplained call returned, and answers given after that moment.
//!   Every prefix of a linearizable history is linearizable.
//! - Calls that certainly changed nothing: an order of all calls is also an order of the rest.
//! - Calls that are past at an origin: a configuration of the search from which all others at that
//!   moment follow by linearizing pending calls. The rest then starts from the origin's state.
//!
//! A call that changed the state, or may have, stays: other answers may depend on it.

use super::check::find;
use super::search::Origin;
use super::{Call, History, Reason, Says, Violation};

/// Shrinks a violation: returns one that contains only calls of `violation`.
#[must_use]
pub fn shrink(violation: Violation) -> Violation {
    let mut least = violation;
    loop {
        let before = least.witness.calls.len();
        least = without_reads(without_past(least));
        if least.witness.calls.len() == before {
            least.witness.calls.sort_by_key(|call| call.began);
            // The index of the unexplained call has changed.
            return find(&least.witness).map_or(least, |(violation, _)| violation);
        }
    }
}

/// Ends the witness at the return of the unexplained call, and starts it at the last origin.
fn without_past(violation: Violation) -> Violation {
    let Some(witness) = until_unexplained(&violation) else { return violation };
    let Some((ended, origin)) = find(&witness) else { return violation };
    let later = origin.map(|origin| from(&ended.witness, origin));
    later.and_then(|later| find(&later)).map_or(ended, |(later, _)| later)
}

/// The witness up to the return of the unexplained call.
fn until_unexplained(violation: &Violation) -> Option<History> {
    let Reason::NoOrder(number) = violation.reason else { return None };
    let (end, _) = violation.witness.calls.get(number)?.ended.as_ref()?;
    let mut witness = violation.witness.clone();
    witness.calls.retain(|call| call.began <= *end);
    for call in &mut witness.calls {
        call.ended.take_if(|(at, _)| *at > *end);
    }
    witness.calls.retain(|call| call.says() != Says::Nothing);
    Some(witness)
}

fn from(witness: &History, origin: Origin) -> History {
    let past = |number: &usize| origin.past.contains(number);
    let left = witness.calls.iter().enumerate().filter(|(number, _)| !past(number));
    History { start: origin.state, calls: left.map(|(_, call)| call.clone()).collect() }
}

/// Removes groups of calls that changed nothing, ever smaller ones, while a violation remains.
fn without_reads(mut violation: Violation) -> Violation {
    let saw = |call: &Call| call.says() == Says::Seen;
    let mut group = violation.witness.calls.iter().filter(|call| saw(call)).count();
    while group > 0 {
        let mut start = 0;
        loop {
            let mut seen = 0..;
            let dropped = start..start + group;
            let kept = |call: &&Call| {
                !saw(call) || !seen.next().is_some_and(|number| dropped.contains(&number))
            };
            let calls: Vec<_> = violation.witness.calls.iter().filter(kept).cloned().collect();
            if calls.len() == violation.witness.calls.len() {
                break;
            }
            let fewer = History { start: violation.witness.start.clone(), calls };
            match find(&fewer) {
                Some((still, _)) if still.reason != Reason::TooMuch => violation = still,
                _ => start += group,
            }
        }
        group /= 2;
    }
    violation
}
