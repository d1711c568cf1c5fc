//! Checks the targets before any case runs.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::case::registry;
use crate::run::panic_message;
use crate::target::{Claim, Need, Target};

/// The longest `op_timeout` that is accepted. With a longer one, even a store that hangs could keep
/// clause TIME-1.
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The shortest `op_timeout` that is accepted. A shorter deadline passes before any call can end.
pub(crate) const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

/// The claims of a target at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims(Vec<(Need, Claim)>);

impl Claims {
    /// Asks the target about every need. The error is the text of a panic.
    pub(crate) fn of(target: &dyn Target) -> Result<Self, String> {
        let ask = || Need::ALL.map(|need| (need, target.claims(need))).to_vec();
        caught("claims", ask).map(Self)
    }

    /// The first of `needs` that the target declines, with its reason.
    pub(crate) fn declined(&self, needs: &[Need]) -> Option<(Need, &'static str)> {
        self.0.iter().find_map(|(need, claim)| match claim {
            Claim::Declined(reason) if needs.contains(need) => Some((*need, *reason)),
            _ => None,
        })
    }

    /// Describes the first claim that differs from the one in `now`.
    pub(crate) fn changed(&self, now: &Self) -> Option<String> {
        let differs = |(was, is): &(&(Need, Claim), &(Need, Claim))| was != is;
        let ((need, was), (_, is)) = self.0.iter().zip(&now.0).find(differs)?;
        Some(format!("its claim of {need} changed from {was:?} to {is:?}"))
    }
}

/// Checks the targets, and returns the claims of each. The error is one line that says what is
/// wrong.
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

/// Calls a target, and turns a panic into an error that names `what` panicked.
pub(crate) fn caught<T>(what: &str, ask: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(ask))
        .map_err(|panic| format!("{what} panicked: {}", panic_message(&*panic)))
}
