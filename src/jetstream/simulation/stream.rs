//! The messages that one replica of a bucket holds.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::jetstream::gateway::exchange::{Entry, Put};
use crate::jetstream::simulation::weather::Chance;

/// The most keys that the answer to a batched direct get (`multi_last`) may hold.
const MOST_KEYS: usize = 1024;

#[derive(Clone, Debug)]
pub(super) struct Message {
    sequence: u64,
    /// The moment at which it was stored. The messages of one batch share it.
    stored: u64,
    removal: bool,
    value: Bytes,
}

/// The state of a stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    last: u64,
    /// How many messages of each key the stream keeps.
    history: usize,
    /// The messages of each key, the newest last; none is empty.
    messages: BTreeMap<Arc<str>, VecDeque<Message>>,
    /// The message before the newest one, of each key.
    replaced: BTreeMap<Arc<str>, Message>,
    /// The messages purged since the server started, each with the message that it had replaced.
    purged: Vec<(Arc<str>, Message, Option<Message>)>,
}

/// A committed change. Every replica applies it in the same way.
#[derive(Debug)]
pub(super) enum LogEntry {
    Store(Vec<Stored>),
    Purge {
        filter: String,
        up_to: Option<u64>,
    },
    /// Removes every message, by a `max_age`.
    Expire,
    /// Brings back purged messages, or the messages that these had replaced.
    Back(Vec<(Arc<str>, Message)>),
}

/// A message to be stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    key: Arc<str>,
    message: Message,
}

impl LogEntry {
    /// The change that stores these messages after the sequence `last`, at the moment `stored`.
    pub(super) fn store(puts: &[Put], last: u64, stored: u64) -> Self {
        let stored = puts.iter().zip(last + 1..).map(|(put, sequence)| Stored {
            key: put.key.as_str().into(),
            message: Message { sequence, stored, removal: put.removal, value: put.value.clone() },
        });
        Self::Store(stored.collect())
    }
}

impl Stream {
    /// Makes an empty stream that keeps `history` messages of each key.
    pub(super) fn new(history: usize) -> Self {
        Self {
            last: 0,
            history: history.max(1),
            messages: BTreeMap::new(),
            replaced: BTreeMap::new(),
            purged: Vec::new(),
        }
    }

    /// The newest message of a key.
    fn newest(&self, key: &str) -> Option<&Message> {
        self.messages.get(key)?.back()
    }

    /// The sequence of the last message that was ever stored.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether every expectation holds. All messages of a batch are checked before any of them is
    /// stored.
    pub(super) fn accepts(&self, puts: &[Put]) -> bool {
        puts.iter().all(|put| {
            let now = self.newest(&put.key).map_or(0, |message| message.sequence);
            put.expect.is_none_or(|expected| expected == now) && (!put.first || self.last == 0)
        })
    }

    pub(super) fn apply(&mut self, change: &LogEntry) {
        match change {
            LogEntry::Store(stored) => {
                for Stored { key, message } in stored {
                    self.last = self.last.max(message.sequence);
                    let kept = self.messages.entry(Arc::clone(key)).or_default();
                    if let Some(old) = kept.back() {
                        self.replaced.insert(Arc::clone(key), old.clone());
                    }
                    kept.push_back(message.clone());
                    if kept.len() > self.history {
                        kept.pop_front();
                    }
                }
            }
            LogEntry::Purge { filter, up_to } => {
                let gone: Vec<_> = self
                    .matching(filter)
                    .filter(|(_, message)| up_to.is_none_or(|up_to| message.sequence <= up_to))
                    .map(|(key, _)| Arc::clone(key))
                    .collect();
                for key in gone {
                    let replaced = self.replaced.remove(&key);
                    if let Some(message) = self.messages.remove(&key).and_then(|mut m| m.pop_back())
                    {
                        self.purged.push((key, message, replaced));
                    }
                }
            }
            // What expired does not come back when the server is killed, not even what an expired message had replaced
            // (nats-server 2.15.1).
            LogEntry::Expire => {
                self.messages.clear();
                self.replaced.clear();
                self.purged.clear();
            }
            LogEntry::Back(back) => {
                for (key, message) in back {
                    let back = || VecDeque::from([message.clone()]);
                    self.messages.entry(Arc::clone(key)).or_insert_with(back);
                }
            }
        }
    }

    /// The newest message of each key that a filter matches, in the order of their sequences;
    /// `None` if one answer cannot hold them.
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

    /// The first message at or after a sequence that a filter matches, and when it was stored.
    pub(super) fn next(&self, from: u64, filters: &[String]) -> Option<(Entry, u64)> {
        let wanted = |key: &str| filters.iter().any(|filter| matches(filter, key));
        let first = |(key, kept): (&Arc<str>, &VecDeque<Message>)| {
            let message = kept.iter().find(|message| message.sequence >= from)?;
            wanted(key).then(|| (Arc::clone(key), message.clone()))
        };
        let next = self.messages.iter().filter_map(first);
        let (key, message) = next.min_by_key(|(_, message)| message.sequence)?;
        Some((entry(&key, &message), message.stored))
    }

    /// Draws what a killed server forgets (nats-server 2.15.1, one replica). Either the server
    /// forgets a purge, so the purged message comes back; or it forgets that the purged message had
    /// replaced another one, which comes back instead. Returns the messages that come back.
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
            .filter_map(|(key, kept)| Some((key, kept.back()?)))
    }
}

fn entry(key: &Arc<str>, message: &Message) -> Entry {
    let Message { sequence, removal, value, .. } = message.clone();
    Entry { key: key.to_string(), sequence, removal, value }
}

/// Whether a key matches a filter, in which `*` is any one token and `>` is all tokens that follow.
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
