//! A violation, made small.
//!
//! What is left must be a witness against the whole history: if the rest has no order, the whole
//! had none. So not any call may go. These may:
//!
//! - What began after the call that could not be explained had returned, and the answers that came
//!   after that moment: if a history has an order, so has each of its beginnings.
//! - Calls that changed nothing, for sure: an order of the whole is, without them, one of the rest.
//! - All that is past at a moment at which one order leads to where every other one is, by no more
//!   than open calls that take effect: the rest then begins with the state of that one.
//!
//! A call that changed something, or may have, stays: others may have been answered as they were
//! because of it.

use super::check::find;
use super::search::Agreed;
use super::{Call, History, Reason, Says, Violation};

/// A smaller violation that the calls of `violation` contain.
#[must_use]
pub fn shrink(violation: Violation) -> Violation {
    let mut least = violation;
    loop {
        let before = least.witness.calls.len();
        least = without_what_only_saw(begun_late(least));
        if least.witness.calls.len() == before {
            least.witness.calls.sort_by_key(|call| call.began);
            // Which call it is now.
            return find(&least.witness).map_or(least, |(violation, _)| violation);
        }
    }
}

/// Begins the witness as late as all orders agree, and ends it when it has no order.
fn begun_late(violation: Violation) -> Violation {
    let Some(witness) = ended(&violation) else { return violation };
    let Some((ended, agreed)) = find(&witness) else { return violation };
    let later = agreed.map(|agreed| from(&ended.witness, agreed));
    later.and_then(|later| find(&later)).map_or(ended, |(later, _)| later)
}

/// The witness up to the moment at which it has no order.
fn ended(violation: &Violation) -> Option<History> {
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

fn from(witness: &History, agreed: Agreed) -> History {
    let past = |number: &usize| agreed.past.contains(number);
    let left = witness.calls.iter().enumerate().filter(|(number, _)| !past(number));
    History { start: agreed.state, calls: left.map(|(_, call)| call.clone()).collect() }
}

/// Without ever smaller groups of the calls that changed nothing.
fn without_what_only_saw(mut violation: Violation) -> Violation {
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
