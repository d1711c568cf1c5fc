//! Scenarios on three servers, one of which is cut off from the others.

use membership::{Probe, Said};

use super::Words;
use super::ground::{Ground, begin, is_stored, until};

/// The names of two answers of a server that is cut off.
pub(super) const READ: &str = "read there, when others have stored a newer one";
pub(super) const REFUSED: &str = "refused there, though right by what others have stored";

/// Three servers whose replicas all have `first` as the newest message of a key.
struct Three {
    leader: usize,
    first: u64,
}

impl Three {
    async fn begin(ground: &Ground) -> Self {
        let probe = begin(ground, 3).await;
        let first = stored(&probe).await;
        let leader = ground.leader().await;
        ground.everywhere(first).await;
        Self { leader, first }
    }

    /// Replaces each sequence in an answer by whether it is that of the first message. A write that
    /// was retried may have stored two messages, so sequences differ between runs.
    fn seen(&self, said: Said) -> Said {
        let Said::State(_, all) = said else { return said };
        let age = |sequence| if sequence == self.first { "the first" } else { "a newer one" };
        Said::State(0, all.iter().map(|(_, sequence)| (age(*sequence).to_owned(), 0)).collect())
    }

    async fn read(&self, probe: &Probe) -> Said {
        self.seen(probe.read(&["a"]).await)
    }

    /// Waits until a read there returns a newer message.
    async fn healed(&self, probe: &Probe) {
        until("healed", |said| *said == newer(), async || self.read(probe).await).await;
    }
}

/// The answer of a replica that lacks a message that a majority has stored.
pub(super) fn stale() -> Said {
    Said::State(0, vec![("the first".to_owned(), 0)])
}

fn newer() -> Said {
    Said::State(0, vec![("a newer one".to_owned(), 0)])
}

/// Stores a message under the key, without an expectation, and returns its sequence.
async fn stored(probe: &Probe) -> u64 {
    let said = until("store", is_stored, async || probe.store(&[("a", None)]).await).await;
    let Said::Stored(sequence) = said else { unreachable!("it is stored") };
    sequence
}

/// Returns the answers of a follower that is cut off, and heals the cut.
///
/// While the follower is cut off, the majority stores another message.
async fn cut_off(ground: &Ground, three: &Three, follower: usize) -> Words {
    let near = ground.probe((0..3).find(|s| ![follower, three.leader].contains(s)).unwrap()).await;
    stored(&near).await;
    let cut = ground.probe(follower).await;
    let words = vec![
        (READ, three.read(&cut.patient()).await),
        ("stored there", cut.patient().store(&[("b", None)]).await),
    ];
    ground.join();
    three.healed(&cut).await;
    words
}

/// A follower that is cut off after it began to answer reads goes on answering, from what it has.
pub(super) async fn cut_follower(ground: &Ground) -> Words {
    let three = Three::begin(ground).await;
    let follower = (three.leader + 1) % 3;
    ground.answers(follower).await;
    ground.isolate(follower).await;
    cut_off(ground, &three, follower).await
}

/// A follower that is cut off when it has every message, but may not answer reads yet.
pub(super) async fn cut_at_once(ground: &Ground) -> Words {
    let three = Three::begin(ground).await;
    let follower = (three.leader + 1) % 3;
    ground.isolate(follower).await;
    cut_off(ground, &three, follower).await
}

/// A follower that is started again while it is cut off answers nothing.
pub(super) async fn starts_alone(ground: &Ground) -> Words {
    let three = Three::begin(ground).await;
    let follower = (three.leader + 1) % 3;
    ground.answers(follower).await;
    ground.isolate(follower).await;
    ground.restart(follower).await;
    cut_off(ground, &three, follower).await
}

/// A leader that is cut off, before and after it knows that others lead.
pub(super) async fn cut_leader(ground: &Ground) -> Words {
    let three = Three::begin(ground).await;
    let (cut, near) =
        (ground.probe(three.leader).await, ground.probe((three.leader + 1) % 3).await);
    ground.isolate(three.leader).await;
    // The leader refuses by the data that it has, acknowledges nothing, and answers reads from its
    // data.
    let mut words = vec![
        ("refused there", cut.patient().store(&[("a", Some(0))]).await),
        ("stored there", cut.store(&[("a", Some(three.first))]).await),
        ("read there", three.read(&cut.patient()).await),
    ];
    let newest = stored(&near).await;
    // The former leader does the same after another leader was elected. The former leader refuses a
    // write that the new leader would store.
    words.push((REFUSED, cut.patient().store(&[("a", Some(newest))]).await));
    words.push((READ, three.read(&cut.patient()).await));
    ground.join();
    // In the end the server has what the majority stored, and nothing that was sent to it alone.
    three.healed(&cut).await;
    words
}
