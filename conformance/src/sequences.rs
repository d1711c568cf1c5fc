//! Random sequences of calls, made on a store and on the [`Model`] side by side.
//!
//! Few rooms, endpoints and users, so that the calls get in each other's way. A sequence is drawn
//! as plain numbers; what they mean is decided against the model's state at that moment
//! (`draw`), so that an epoch or a set of keys is mostly right and else wrong by little, and so
//! that a sequence still makes sense with calls taken out: a failure is shrunk to the fewest and
//! plainest calls that still show it.

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

/// How many sequences a case tries of a store in this process.
const SEQUENCES: u64 = 8;
/// How many calls each has.
const CALLS: usize = 250;

/// Tries sequences of `mix` on fresh stores, by `clients` clients in turn.
///
/// A failure is shrunk, and the shortest sequence that still fails is what the case's transcript
/// shows.
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

/// The numbers of a whole sequence, as trees that can be shrunk.
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

/// Where the store and the model parted.
struct Mismatch {
    /// The number of calls that came before.
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

/// A client, and the same one off the record.
struct Seat {
    client: Arc<dyn Store>,
    unrecorded: Arc<dyn Store>,
}

impl Trial<'_> {
    /// Plays a sequence on a store of its own, off the record.
    async fn afresh(&self, draws: &[Draw]) -> Verdict<Result<(), Mismatch>> {
        let instance = self.cx.target().create().await?;
        self.play(Some(&*instance), draws).await
    }

    /// Plays a failing sequence once more, on the case's own store and on the record.
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

    /// Opens the clients: of `instance`, or else of the case's own store, on the record.
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

    /// Compares every answer, and everything that can be seen at the end.
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
                    // One of them writes; all of them must see what is there.
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
                    // Once more, for the transcript.
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

    /// The calls of the failure that `case` ends in on a broken store, without their times.
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
    async fn a_failure_is_shrunk_to_the_calls_it_takes(
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
