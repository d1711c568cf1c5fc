//! Golden transcripts: fixed scenarios, whose calls and results are kept in files with which every
//! store is compared.

mod calls;
mod closing;
mod errors;
mod keys;
mod listings;
mod rooms;
mod users;

use std::sync::Arc;

use crate::model::Op;
use crate::target::{Target, TargetError};
use crate::transcript::{Client, Transcript};

/// A scenario: a fixed sequence of calls.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The name of the scenario, and of its file under `fixtures/golden/`.
    pub name: &'static str,
    steps: fn() -> Vec<Step>,
}

/// One call, and the number of the client that makes it, from 0.
struct Step {
    client: usize,
    op: Op,
}

/// Every scenario.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        rooms::SCENARIOS,
        keys::SCENARIOS,
        listings::SCENARIOS,
        errors::SCENARIOS,
        users::SCENARIOS,
        closing::SCENARIOS,
    ]
    .concat()
}

/// Plays a scenario on a fresh store of `target`, and returns its transcript.
///
/// A scenario with several clients needs [`Need::Clients`](crate::Need::Clients).
pub async fn play(scenario: &Scenario, target: &dyn Target) -> Result<String, TargetError> {
    let transcript = Arc::new(Transcript::whole());
    let instance = target.create().await?;
    let mut clients: Vec<Client> = Vec::new();
    for step in (scenario.steps)() {
        while clients.len() <= step.client {
            clients.push(transcript.record(clients.len() + 1, instance.open().await?));
        }
        if let Some(client) = clients.get(step.client) {
            step.op.apply(client).await;
        }
    }
    let golden = transcript.golden();
    for client in clients {
        client.unrecorded().close().await?;
    }
    Ok(golden)
}

/// Lists a file's scenarios: functions that return calls, all of them made by client 0.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        pub(super) const SCENARIOS: &[$crate::golden::Scenario] = &[$(
            $crate::golden::Scenario {
                name: stringify!($name),
                steps: || $name().into_iter().map(Into::into).collect(),
            }
        ),+];
    };
}
use scenarios;

impl From<Op> for Step {
    fn from(op: Op) -> Self {
        Self { client: 0, op }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use membership::{Conflict, Error};

    use super::*;
    use crate::model::Model;

    fn kind(error: &Error) -> String {
        match error {
            Error::Conflict(Conflict::KeysMismatch { .. }) => "Conflict(KeysMismatch)".to_owned(),
            Error::Conflict(conflict) => format!("Conflict({conflict:?})"),
            other => first_word(other),
        }
    }

    fn first_word(value: &impl std::fmt::Debug) -> String {
        let text = format!("{value:?}");
        text.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()
    }

    /// Every method, every error, and every kind of `Conflict`. Left out are errors that calls
    /// alone cannot provoke (`Timeout`, `Unavailable`, `Corrupt`, the last epoch), and `Invalid`,
    /// which the types' constructors return before a store is called.
    #[test]
    fn the_scenarios_call_every_method_and_provoke_every_error() {
        let (mut methods, mut errors) = (BTreeSet::new(), BTreeSet::new());
        for scenario in all() {
            // A closed client answers every call with `Closed`; the other clients go on.
            let (mut model, mut closed) = (Model::new(), BTreeSet::new());
            for Step { client, op } in (scenario.steps)() {
                methods.insert(first_word(&op));
                if matches!(op, Op::Close) {
                    closed.insert(client);
                } else if closed.contains(&client) {
                    errors.insert(format!("Closed for {}", first_word(&op)));
                } else if let Some(error) = model.apply(&op).error() {
                    errors.insert(kind(error));
                }
            }
        }
        assert_eq!(methods.len(), 20, "{methods:?}");
        let closed = errors.iter().filter(|error| error.starts_with("Closed for")).count();
        assert_eq!(closed, 19, "{errors:?}");
        for provoked in [
            "NotFound",
            "AlreadyExists",
            "StaleEpoch",
            "Conflict(KeyMissing)",
            "Conflict(RoomUnencrypted)",
            "Conflict(OwnerStays)",
            "Conflict(KeysMismatch)",
            "Conflict(AdminExists)",
            "Conflict(LastAdmin)",
        ] {
            assert!(errors.contains(provoked), "no {provoked} among {errors:?}");
        }
    }

    #[test]
    fn every_scenario_has_a_unique_name() {
        let names: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().len());
        assert!(names.len() >= 10);
    }
}
