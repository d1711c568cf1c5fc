//! What servers say that are cut off from the others.

use membership::{Probe, Said};

use super::Words;
use super::ground::{Ground, begin, is_stored, until};

/// What a server says of what others have stored since it was cut off.
pub(super) const READ: &str = "read there, when others have stored a newer one";
pub(super) const REFUSED: &str = "refused there, though right by what others have stored";

/// Three servers, of which a key has `first` as its newest message, on all replicas.
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

    /// What is read of the key: what was there at first, or something else. Who had to try twice
    /// has stored something twice, so sequences say nothing.
    fn seen(&self, said: Said) -> Said {
        let Said::State(_, all) = said else { return said };
        let age = |sequence| if sequence == self.first { "the first" } else { "a newer one" };
        Said::State(0, all.iter().map(|(_, sequence)| (age(*sequence).to_owned(), 0)).collect())
    }

    async fn read(&self, probe: &Probe) -> Said {
        self.seen(probe.read(&["a"]).await)
    }

    /// Waits until what is read there is new.
    async fn healed(&self, probe: &Probe) {
        until("healed", |said| *said == newer(), async || self.read(probe).await).await;
    }
}

/// What a replica says that has missed what a majority has stored since.
pub(super) fn stale() -> Said {
    Said::State(0, vec![("the first".to_owned(), 0)])
}

fn newer() -> Said {
    Said::State(0, vec![("a newer one".to_owned(), 0)])
}

/// Stores the key, whatever is there, and returns its sequence.
async fn stored(probe: &Probe) -> u64 {
    let said = until("store", is_stored, async || probe.store(&[("a", None)]).await).await;
    let Said::Stored(sequence) = said else { unreachable!("it is stored") };
    sequence
}

/// What a follower says once it is cut off and the majority has gone on; then it is healed.
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

/// A follower that is cut off when it answers reads: it goes on to, from what it has.
pub(super) async fn cut_follower(ground: &Ground) -> Words {
    let three = Three::begin(ground).await;
    let follower = (three.leader + 1) % 3;
    ground.answers(follower).await;
    ground.isolate(follower).await;
    cut_off(ground, &three, follower).await
}

/// A follower that is cut off when it has everything, and may not answer reads yet.
pub(super) async fn cut_at_once(ground: &Ground) -> Words {
    let three = Three::begin(ground).await;
    let follower = (three.leader + 1) % 3;
    ground.isolate(follower).await;
    cut_off(ground, &three, follower).await
}

/// A follower that starts again while it is cut off: it answers nothing.
pub(super) async fn starts_alone(ground: &Ground) -> Words {
    let three = Three::begin(ground).await;
    let follower = (three.leader + 1) % 3;
    ground.answers(follower).await;
    ground.isolate(follower).await;
    ground.restart(follower).await;
    cut_off(ground, &three, follower).await
}

/// A leader that is cut off: what it says while it does not know.
pub(super) async fn cut_leader(ground: &Ground) -> Words {
    let three = Three::begin(ground).await;
    let (cut, near) =
        (ground.probe(three.leader).await, ground.probe((three.leader + 1) % 3).await);
    ground.isolate(three.leader).await;
    // It refuses by what it knows, acknowledges nothing, and answers from what it has.
    let mut words = vec![
        ("refused there", cut.patient().store(&[("a", Some(0))]).await),
        ("stored there", cut.store(&[("a", Some(three.first))]).await),
        ("read there", three.read(&cut.patient()).await),
    ];
    let newest = stored(&near).await;
    // The same when others have been elected: it refuses what they would store.
    words.push((REFUSED, cut.patient().store(&[("a", Some(newest))]).await));
    words.push((READ, three.read(&cut.patient()).await));
    ground.join();
    // What was sent to it, and what was stored since, are as the majority has it.
    three.healed(&cut).await;
    words
}
