//! Random sequences of calls, made on a store and on the [`Model`] side by side.
//!
//! The sequences name few rooms, endpoints and users, so that the calls interfere. A sequence is
//! drawn as plain numbers, which become calls when it is played (`draw`). The numbers are
//! interpreted in the model's state at that moment. So an epoch or a set of keys is mostly right,
//! and otherwise slightly wrong, and a sequence still makes sense without some of its calls. That
//! allows shrinking a failure to the fewest and simplest calls that show it.

mod draw;
mod shrink;

use std::sync::Arc;

use membership::Store;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::context::Cx;
use crate::model::{Model, Op};
use crate::show::Show;
use crate::target::Instance;
use crate::verdict::{Failure, Verdict};
use draw::{Act, Draw, views};

pub(crate) use draw::Mix;

/// The number of sequences that a case tries on a store in memory; a slower store gets fewer.
const SEQUENCES: u64 = 8;
/// The number of calls in a sequence.
const CALLS: usize = 250;

/// Compares a store with the model on random sequences of `mix`, each on a fresh store, with
/// `clients` clients.
///
/// A failure is shrunk, and the case's transcript shows the shortest sequence that still fails.
pub(crate) async fn agree(cx: &Cx, mix: Mix, clients: usize) -> Verdict {
    for sequence in 0..cx.rounds(SEQUENCES) {
        let drawn = draws(cx.seed(), sequence)?;
        let whole: Vec<_> = drawn.iter().map(ValueTree::current).collect();
        let trial = Trial { cx, mix, clients };
        if let Err(mismatch) = trial.afresh(&whole).await? {
            let (least, mismatch) = shrink::shrink(&trial, drawn, mismatch).await?;
            return trial.show(sequence, &least, mismatch).await;
        }
    }
    Ok(())
}

/// Draws the numbers of a whole sequence, as trees that can be shrunk.
fn draws(seed: u64, sequence: u64) -> Verdict<Vec<impl ValueTree<Value = Draw> + Send>> {
    let mut bytes = [0; 32];
    for (byte, from) in bytes.iter_mut().zip([seed, sequence].iter().flat_map(|n| n.to_le_bytes()))
    {
        *byte = from;
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = Draw::strategy();
    let trees: Result<_, _> = (0..CALLS).map(|_| strategy.new_tree(&mut runner)).collect();
    trees.map_err(|reason| Failure::new("a random sequence", reason.to_string()))
}

/// The first call to which the store and the model give different answers.
struct Mismatch {
    /// The number of calls before it.
    before: usize,
    call: String,
    expected: String,
    got: String,
}

struct Trial<'a> {
    cx: &'a Cx,
    mix: Mix,
    clients: usize,
}

/// A client, and the same client without the recording of its calls.
struct Seat {
    client: Arc<dyn Store>,
    unrecorded: Arc<dyn Store>,
}

impl Trial<'_> {
    /// Plays a sequence on a fresh store, unrecorded.
    async fn afresh(&self, draws: &[Draw]) -> Verdict<Result<(), Mismatch>> {
        let instance = self.cx.target().create().await?;
        self.play(Some(&*instance), draws).await
    }

    /// Plays a failing sequence once more, recorded, on the case's own store.
    async fn show(&self, sequence: u64, draws: &[Draw], found: Mismatch) -> Verdict {
        let Mismatch { before, call, expected, got } = match self.play(None, draws).await? {
            Err(mismatch) => mismatch,
            Ok(()) => {
                Mismatch { got: format!("{} (but not when tried again)", found.got), ..found }
            }
        };
        Err(Failure::new(
            format!("{expected} from {call}, as from the model"),
            format!("{got}, after {before} calls (sequence {sequence}, shrunk)"),
        ))
    }

    /// Opens the clients of `instance`, unrecorded. Without `instance`, opens recorded clients of
    /// the case's own store.
    async fn open(&self, instance: Option<&dyn Instance>) -> Verdict<Vec<Seat>> {
        let mut seats = Vec::new();
        for _ in 0..self.clients {
            seats.push(if let Some(instance) = instance {
                let client = instance.open().await?;
                Seat { unrecorded: Arc::clone(&client), client }
            } else {
                let client = self.cx.open().await?;
                Seat { unrecorded: client.unrecorded(), client: Arc::new(client) }
            });
        }
        Ok(seats)
    }

    /// Plays a sequence, and compares every answer and all that can be read at the end.
    async fn play(
        &self,
        instance: Option<&dyn Instance>,
        draws: &[Draw],
    ) -> Verdict<Result<(), Mismatch>> {
        let mut model = Model::new();
        let mut seats = self.open(instance).await?;
        for (before, draw) in draws.iter().enumerate() {
            match draw.act(self.mix, &mut model) {
                Act::Call(op) => {
                    // One client makes a write; every client makes a read.
                    let writer = op.is_write().then(|| draw.client(seats.len()));
                    for (number, seat) in seats.iter().enumerate() {
                        if writer.is_none_or(|writer| writer == number)
                            && let Err(m) = compare(&mut model, &*seat.client, &op, before).await
                        {
                            return Ok(Err(m));
                        }
                    }
                }
                Act::Reopen => {
                    close(seats).await?;
                    seats = self.open(instance).await?;
                }
            }
        }
        for op in views(&mut model) {
            for seat in &seats {
                let seen = compare(&mut model, &*seat.unrecorded, &op, draws.len()).await;
                if seen.is_err() {
                    // Repeat the call, so that the transcript shows it.
                    op.apply(&*seat.client).await;
                    return Ok(seen);
                }
            }
        }
        close(seats).await?;
        Ok(Ok(()))
    }
}

async fn close(seats: Vec<Seat>) -> Verdict {
    for seat in seats {
        seat.client.close().await?;
    }
    Ok(())
}

async fn compare(
    model: &mut Model,
    store: &dyn Store,
    op: &Op,
    before: usize,
) -> Result<(), Mismatch> {
    let (expected, got) = (model.apply(op), op.apply(store).await);
    if got == expected {
        return Ok(());
    }
    Err(Mismatch { before, call: format!("{op:?}"), expected: expected.show(), got: got.show() })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use crate::case::registry;
    use crate::controls;
    use crate::run::{Status, run_case};

    /// The shrunk calls of the failure in which `case` ends on a broken store, without durations.
    async fn shrunk(control: &str, case: &str, seed: u64) -> Vec<String> {
        let control = controls::all().into_iter().find(|m| m.name == control).unwrap();
        let case = registry().find(|c| c.group == "sequences" && c.title == case).unwrap();
        let Status::Fail(report) = run_case(case, &control.target, seed).await.status else {
            panic!("{} passed {} with seed {seed}", control.name, case.name());
        };
        let timeless = |line: &String| line.rsplit_once("   (").unwrap().0.to_owned();
        report.transcript.iter().map(timeless).collect()
    }

    #[rstest]
    #[case("accepts_a_missing_key", "epochs_and_keys_are_as_in_the_model", 3)]
    #[case("returns_keys_to_who_comes_back", "epochs_and_keys_are_as_in_the_model", 6)]
    #[case("revives_former_members", "everything_is_as_in_the_model", 5)]
    #[case("readmits_the_revoked", "users_and_decisions_are_as_in_the_model", 3)]
    #[case("remembers_rooms", "two_clients_in_turn_are_as_in_the_model", 6)]
    #[case("loses_the_last_write", "a_store_opened_again_is_as_it_was", 4)]
    #[tokio::test]
    async fn a_failure_is_shrunk_to_the_calls_that_it_needs(
        #[case] control: &str,
        #[case] case: &str,
        #[case] most: usize,
        #[values(1, 2, 3)] seed: u64,
    ) {
        let calls = shrunk(control, case, seed).await;
        assert!(calls.len() <= most, "{} calls: {calls:#?}", calls.len());
        assert_eq!(calls, shrunk(control, case, seed).await, "one seed, one failure");
    }
}
