//! Golden transcripts: fixed scenarios, whose calls and results are kept in files with which every
//! store is compared.
//!
//! `WRITE_FIXTURES=1 cargo test --package membership-conformance --lib golden` writes the files
//! anew, with the memory store's answers. Read the difference before you commit it.

mod calls;
mod closing;
mod errors;
mod keys;
mod listings;
mod rooms;
mod users;

use std::sync::Arc;

use membership::Store;

use crate::model::Op;
use crate::transcript::{Client, Transcript};

/// A scenario: a fixed sequence of calls.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The name of the scenario, and of its file under `golden/`.
    pub name: &'static str,
    /// The calls with their right answers.
    pub transcript: &'static str,
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

/// Plays a scenario on a fresh store, of which `open` opens a client, and returns its transcript.
///
/// A scenario with several clients needs [`Need::Clients`](crate::Need::Clients).
///
/// # Errors
/// Fails with the error of `open`.
pub async fn play<E, Opened>(scenario: &Scenario, open: impl Fn() -> Opened) -> Result<String, E>
where
    Opened: Future<Output = Result<Arc<dyn Store>, E>>,
{
    let transcript = Arc::new(Transcript::whole());
    let mut clients: Vec<Client> = Vec::new();
    for step in (scenario.steps)() {
        while clients.len() <= step.client {
            clients.push(transcript.record(clients.len() + 1, open().await?));
        }
        if let Some(client) = clients.get(step.client) {
            step.op.apply(client).await;
        }
    }
    let golden = transcript.golden();
    for client in clients {
        // A failed close is not this case's concern: other cases check it.
        let _ = client.unrecorded().close().await;
    }
    Ok(golden)
}

/// The first call with another result: as the transcript has it, and as the store answered.
pub(crate) fn difference(scenario: &Scenario, told: &str) -> Option<(String, String)> {
    let mut call = "";
    let mut right = scenario.transcript.lines();
    for line in told.lines() {
        let expected = right.next().unwrap_or("the end");
        if line != expected {
            return Some((format!("{call}{expected}"), format!("{call}{line}")));
        }
        call = if line.starts_with(' ') { "" } else { line };
    }
    right.next().map(|expected| (expected.to_owned(), "the end".to_owned()))
}

/// Lists a file's scenarios: functions that return calls, all of them made by client 0.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        pub(super) const SCENARIOS: &[$crate::golden::Scenario] = &[$(
            $crate::golden::Scenario {
                name: stringify!($name),
                transcript: include_str!(concat!("../../golden/", stringify!($name), ".txt")),
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
    /// alone cannot provoke (`Timeout`, `Unavailable`, `Corrupt`, the last epoch, a full room), and `Invalid`,
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

    #[tokio::test]
    async fn the_files_are_what_the_memory_store_answers_and_there_are_no_others() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        let mut files: BTreeSet<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        for scenario in all() {
            let store = membership::MemoryStore::new();
            let open = async || Ok::<Arc<dyn Store>, ()>(Arc::new(store.client()));
            let told = play(&scenario, open).await.unwrap();
            let file = format!("{}.txt", scenario.name);
            if std::env::var_os("WRITE_FIXTURES").is_some() {
                std::fs::write(folder.join(&file), &told).unwrap();
            } else {
                assert_eq!(told, scenario.transcript, "{file}");
            }
            files.remove(&file);
        }
        assert!(files.is_empty(), "of no scenario: {files:?}");
    }

    #[test]
    fn every_scenario_has_a_unique_name() {
        let names: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().len());
        assert!(names.len() >= 10);
    }
}
