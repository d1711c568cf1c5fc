//! Scenarios on one server.

use membership::Said;

use super::ground::{Ground, begin, is_stored, until};
use super::{Named, Words};

/// All scenarios on one server.
pub(super) const ALONE: [Named; 6] = [
    ("a first message", |ground| Box::pin(first_message(ground))),
    ("expectations", |ground| Box::pin(expectations(ground))),
    ("listings", |ground| Box::pin(listings(ground))),
    ("purges", |ground| Box::pin(purges(ground))),
    ("feeds", |ground| Box::pin(feeds(ground))),
    ("a lost answer", |ground| Box::pin(lost_answer(ground))),
];

/// Messages that are stored only if nothing was ever stored.
async fn first_message(ground: &Ground) -> Words {
    let probe = ground.probe(0).await;
    until("make", |said| *said == Said::Done, async || probe.make(1).await).await;
    let probe = probe.patient();
    let mut words = Words::new();
    words.push(("the first", probe.store_first("a").await));
    words.push(("a second copy", probe.store_first("a").await));
    words.push(("another", probe.store_first("b").await));
    words.push(("purged all", probe.purge("a", None).await));
    words.push(("in an emptied bucket", probe.store_first("a").await));
    words.push(("new all the same", probe.store(&[("a", Some(0))]).await));
    words
}

/// Expectations of single messages and of batches.
async fn expectations(ground: &Ground) -> Words {
    let probe = begin(ground, 1).await;
    let mut words = Words::new();
    let mut say = |what, said| words.push((what, said));
    say("new", probe.store(&[("a", Some(0))]).await);
    say("new again", probe.store(&[("a", Some(0))]).await);
    say("over a wrong one", probe.store(&[("a", Some(1))]).await);
    say("over the newest", probe.store(&[("a", Some(2))]).await);
    say("over what it replaced", probe.store(&[("a", Some(2))]).await);
    say("removed", probe.remove("a").await);
    say("new after the removal", probe.store(&[("a", Some(0))]).await);
    say("over the removal", probe.store(&[("a", Some(4))]).await);
    say("batch", probe.store(&[("b", Some(0)), ("c", None), ("a", Some(5))]).await);
    say("all of it", probe.read(&["a", "b", "c"]).await);
    say(
        "batch with one refusal",
        probe.store(&[("b", Some(6)), ("c", Some(6)), ("d", None)]).await,
    );
    say("nothing of it", probe.read(&["a", "b", "c", "d"]).await);
    words
}

/// The most keys that one answer may hold, and filters.
async fn listings(ground: &Ground) -> Words {
    let probe = begin(ground, 1).await;
    let keys: Vec<_> = (0..1024).map(|n| format!("k.{n}")).collect();
    let mut words = Words::new();
    for keys in [&keys[..1023], &keys[1023..]] {
        for part in keys.chunks(900) {
            let puts: Vec<_> = part.iter().map(|key| (key.as_str(), Some(0))).collect();
            words.push(("stored", probe.store(&puts).await));
        }
        // Every read asks for the barrier's own key, too.
        words.push((
            "read",
            match probe.read(&["k.*"]).await {
                Said::State(up_to, all) => {
                    Said::State(up_to, vec![("all".to_owned(), all.len() as u64)])
                }
                other => other,
            },
        ));
    }
    words.push(("two filters", probe.read(&["k.7", "k.1000", "nothing", "k.*.x"]).await));
    words.push(("a tail", probe.read(&["nothing.>"]).await));
    words
}

/// Purges: which messages are removed, and which can be stored afterwards.
async fn purges(ground: &Ground) -> Words {
    let probe = begin(ground, 1).await;
    let mut words = Words::new();
    for key in ["a.1", "a.2", "b.1", "a.3"] {
        words.push(("stored", probe.store(&[(key, None)]).await));
    }
    words.push(("purged up to", probe.purge("a.*", Some(3)).await));
    words.push(("left", probe.read(&[">"]).await));
    words.push(("new where it was purged", probe.store(&[("a.1", Some(0))]).await));
    words.push(("purged all", probe.purge("a.>", None).await));
    words.push(("left", probe.read(&[">"]).await));
    words.push(("purged nothing", probe.purge("c", None).await));
    words.push(("goes on", probe.store(&[("b.1", Some(4))]).await));
    words
}

/// Consumers deliver the newest message of each key in order, from a given sequence on, and also
/// after a restart of the server.
async fn feeds(ground: &Ground) -> Words {
    let probe = begin(ground, 1).await;
    let mut words = Words::new();
    for key in ["a", "b", "a", "c"] {
        words.push(("stored", probe.store(&[(key, None)]).await));
    }
    let heard = |all: Option<Vec<(u64, String, u64)>>| {
        let all = all.unwrap_or_default();
        let of = |(count, key, sequence): (u64, String, u64)| (format!("{count} {key}"), sequence);
        Said::State(0, all.into_iter().map(of).collect())
    };
    words.push(("from the beginning", heard(probe.listen(0).await)));
    words.push(("from there on", heard(probe.listen(3).await)));
    ground.restart(0).await;
    let probe = ground.probe(0).await.patient();
    until("barrier", is_stored, async || probe.barrier().await).await;
    words.push((
        "after a restart",
        match heard(probe.listen(3).await) {
            // The number of barriers differs from run to run.
            Said::State(up_to, all) => {
                Said::State(up_to, all.into_iter().filter(|(key, _)| !key.contains('=')).collect())
            }
            other => other,
        },
    ));
    words
}

/// A write whose answer is lost took effect.
async fn lost_answer(ground: &Ground) -> Words {
    let probe = begin(ground, 1).await;
    let hasty = ground.probe(0).await;
    ground.lose_answers(0);
    let mut words = vec![("stored, and not heard", hasty.store(&[("a", Some(0))]).await)];
    ground.lose_none(0);
    let there = |said: &Said| matches!(said, Said::State(_, all) if !all.is_empty());
    words.push(("it is there", until("read", there, async || probe.read(&["a"]).await).await));
    words.push(("once more", probe.store(&[("a", Some(0))]).await));
    words
}
