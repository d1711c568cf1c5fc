//! What one replica of a bucket holds: a stream with one message a key.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::jetstream::gateway::{Entry, Put};
use crate::jetstream::simulation::weather::Chance;

/// The most keys one answer may hold (`multi_last`).
const MOST_KEYS: usize = 1024;

#[derive(Clone, Debug)]
pub(super) struct Message {
    sequence: u64,
    removal: bool,
    value: Bytes,
}

/// A state of the stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    last: u64,
    messages: BTreeMap<Arc<str>, Message>,
    /// Of each key the message before the newest.
    replaced: BTreeMap<Arc<str>, Message>,
    /// What was purged since the server started, and what that had replaced.
    purged: Vec<(Arc<str>, Message, Option<Message>)>,
}

/// What replaces one state by the next, on every replica alike.
#[derive(Debug)]
pub(super) enum Change {
    Store(Vec<Stored>),
    Purge {
        filter: String,
        up_to: Option<u64>,
    },
    /// What was purged, or what it had replaced, is there again.
    Back(Vec<(Arc<str>, Message)>),
}

/// A message to be stored.
#[derive(Debug)]
pub(super) struct Stored {
    key: Arc<str>,
    removal: bool,
    value: Bytes,
}

impl Change {
    pub(super) fn store(puts: &[Put]) -> Self {
        let stored = puts.iter().map(|put| Stored {
            key: put.key.as_str().into(),
            removal: put.removal,
            value: put.value.clone(),
        });
        Self::Store(stored.collect())
    }
}

impl Stream {
    /// The sequence of the last message there was.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether every put finds what it expects; of a batch all before any of it is stored.
    pub(super) fn accepts(&self, puts: &[Put]) -> bool {
        puts.iter().all(|put| {
            let now = self.messages.get(put.key.as_str()).map_or(0, |message| message.sequence);
            put.expect.is_none_or(|expected| expected == now)
        })
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Store(stored) => {
                for Stored { key, removal, value } in stored {
                    self.last += 1;
                    let (sequence, removal) = (self.last, *removal);
                    let message = Message { sequence, removal, value: value.clone() };
                    if let Some(old) = self.messages.insert(Arc::clone(key), message) {
                        self.replaced.insert(Arc::clone(key), old);
                    }
                }
            }
            Change::Purge { filter, up_to } => {
                let gone: Vec<_> = self
                    .matching(filter)
                    .filter(|(_, message)| up_to.is_none_or(|up_to| message.sequence <= up_to))
                    .map(|(key, _)| Arc::clone(key))
                    .collect();
                for key in gone {
                    let replaced = self.replaced.remove(&key);
                    if let Some(message) = self.messages.remove(&key) {
                        self.purged.push((key, message, replaced));
                    }
                }
            }
            Change::Back(back) => {
                for (key, message) in back {
                    self.messages.entry(Arc::clone(key)).or_insert_with(|| message.clone());
                }
            }
        }
    }

    /// The newest message of each key that a filter matches, in the order of their sequences;
    /// `None` where they are too many.
    pub(super) fn read(&self, filters: &[String]) -> Option<Vec<Entry>> {
        let mut found = BTreeMap::new();
        for filter in filters {
            for (key, message) in self.matching(filter) {
                found.insert(message.sequence, (key, message));
            }
        }
        (found.len() <= MOST_KEYS)
            .then(|| found.into_values().map(|(key, message)| entry(key, message)).collect())
    }

    /// The first message above a sequence.
    pub(super) fn next(&self, after: u64) -> Option<Entry> {
        let above = self.messages.iter().filter(|(_, message)| message.sequence > after);
        above.min_by_key(|(_, message)| message.sequence).map(|(key, message)| entry(key, message))
    }

    /// What a server that is killed may not have written down: a purge, or that the purged message
    /// had replaced another (nats-server 2.15.1, one replica). Each of it is drawn.
    pub(super) fn forgotten(&mut self, chance: &mut Chance) -> Vec<(Arc<str>, Message)> {
        let purged = std::mem::take(&mut self.purged);
        let back = purged.into_iter().filter_map(|(key, message, replaced)| {
            let back = if chance.happens(500) { Some(message) } else { replaced };
            back.filter(|_| !self.messages.contains_key(&key) && chance.happens(500))
                .map(|back| (key, back))
        });
        back.collect()
    }

    fn matching<'a>(
        &'a self,
        filter: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Message)> {
        let literal = filter.find(['*', '>']).map_or(filter, |end| &filter[..end]);
        self.messages
            .range::<str, _>((Bound::Included(literal), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(literal))
            .filter(move |(key, _)| matches(filter, key))
    }
}

fn entry(key: &Arc<str>, message: &Message) -> Entry {
    let Message { sequence, removal, value } = message.clone();
    Entry { key: key.to_string(), sequence, removal, value }
}

/// Whether a filter of tokens, `*` for any one and `>` for all that follow, is met by a key.
fn matches(filter: &str, key: &str) -> bool {
    let mut tokens = key.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            (_, None) => return false,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted != token => return false,
            _ => {}
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a.b", "a.b", true)]
    #[case("a.*", "a.b", true)]
    #[case("a.*", "a.b.c", false)]
    #[case("a.>", "a.b.c", true)]
    #[case("a.>", "a", false)]
    #[case("*.b", "a.c", false)]
    #[case(">", "a", true)]
    #[case("a", "a.b", false)]
    fn filters(#[case] filter: &str, #[case] key: &str, #[case] expected: bool) {
        assert_eq!(matches(filter, key), expected);
    }
}
