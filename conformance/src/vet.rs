//! What a target says of itself, looked at before anything runs.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::case::registry;
use crate::run::panic_message;
use crate::target::{Claim, Need, Target};

/// The longest `op_timeout` of a store that is held to the contract: a store that may take longer for each
/// call could hang, and nobody would call it that (clause TIME-1).
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The shortest one: below it a deadline passes before anything can happen.
pub(crate) const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

/// What a target claimed when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims(Vec<(Need, Claim)>);

impl Claims {
    /// Asks for all there is to claim; an error is the panic that it ended in.
    pub(crate) fn of(target: &dyn Target) -> Result<Self, String> {
        let ask = || Need::ALL.map(|need| (need, target.claims(need))).to_vec();
        caught("claims", ask).map(Self)
    }

    /// What it declines of `needs`, if anything.
    pub(crate) fn declined(&self, needs: &[Need]) -> Option<(Need, &'static str)> {
        self.0.iter().find_map(|(need, claim)| match claim {
            Claim::Declined(reason) if needs.contains(need) => Some((*need, *reason)),
            _ => None,
        })
    }

    /// The first claim that is another one now, in words.
    pub(crate) fn changed(&self, now: &Self) -> Option<String> {
        let differs = |(was, is): &(&(Need, Claim), &(Need, Claim))| was != is;
        let ((need, was), (_, is)) = self.0.iter().zip(&now.0).find(differs)?;
        Some(format!("its claim of {need} changed from {was:?} to {is:?}"))
    }
}

/// What is wrong with these targets, in one line, and what they claim, in their order.
pub(crate) fn vetted(targets: &[Arc<dyn Target>]) -> Result<Vec<Claims>, String> {
    let mut names = BTreeSet::new();
    for target in targets {
        let name = caught("name", || target.name().to_owned())?;
        if name.is_empty() {
            return Err("a target's name is empty; it names a column and the tests".to_owned());
        }
        if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(format!("a target's name is {name:?}; it must have no spaces or breaks"));
        }
        if !names.insert(name.clone()) {
            return Err(format!("two targets are named {name:?}; each needs a name of its own"));
        }
    }
    targets.iter().map(|target| one(&**target)).collect()
}

fn one(target: &dyn Target) -> Result<Claims, String> {
    let name = target.name();
    let of = |error: String| format!("{name}: {error}");
    let needs: BTreeSet<_> = registry().map(|case| case.needs).collect();
    let timeouts = || {
        let each = needs.iter().map(|needs| target.op_timeout_for(needs));
        each.chain([target.op_timeout()]).collect::<Vec<_>>()
    };
    for timeout in caught("op_timeout", timeouts).map_err(of)? {
        if !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&timeout) {
            return Err(of(format!(
                "its op_timeout is {timeout:?}; it must be from {SHORTEST_TIMEOUT:?} to \
                 {LONGEST_TIMEOUT:?}, or TIME-1 would say nothing"
            )));
        }
    }
    let claims = Claims::of(target).map_err(of)?;
    match claims.changed(&Claims::of(target).map_err(of)?) {
        Some(changed) => Err(of(changed)),
        None => Ok(claims),
    }
}

/// Asks a target something that must not panic.
pub(crate) fn caught<T>(what: &str, ask: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(ask))
        .map_err(|panic| format!("{what} panicked: {}", panic_message(&*panic)))
}
