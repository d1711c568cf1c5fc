//! The latest changes of a record, by which a writer that got no answer learns the outcome of its change.

use serde::{Deserialize, Serialize};

/// How many of its latest changes a record keeps.
const REMEMBERED: usize = 32;

/// The latest changes of a record. A writer that got no answer looks for its change here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::jetstream) struct Changes {
    /// The number of changes so far.
    version: u64,
    /// The ids of the latest changes, the newest last.
    recent: Vec<String>,
}

/// The outcome of a change that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jetstream) enum Fate {
    /// The change was made.
    Done,
    /// The change was not made and never will be.
    Lost,
    /// The change was not made, and may still be.
    Open,
    /// More changes followed than the record keeps, so the outcome cannot be told.
    Unknown,
}

impl Changes {
    /// Returns these changes, followed by the change `write`.
    pub(in crate::jetstream) fn next(&self, write: &str) -> Self {
        let forgotten = (self.recent.len() + 1).saturating_sub(REMEMBERED);
        let mut recent = self.recent.get(forgotten..).unwrap_or_default().to_vec();
        recent.push(write.to_owned());
        Self { version: self.version + 1, recent }
    }

    /// Whether the record has not changed since it was made.
    pub(in crate::jetstream) fn is_first(&self) -> bool {
        self.version == 1
    }

    /// The newest change.
    pub(in crate::jetstream) fn last(&self) -> &str {
        self.recent.last().map_or("", String::as_str)
    }

    /// Returns the outcome of the newest change of `planned`. `self` has the changes of the record that is stored now.
    pub(in crate::jetstream) fn fate_of(&self, planned: &Self) -> Fate {
        let Some(back) = self.version.checked_sub(planned.version) else { return Fate::Open };
        let made_by =
            usize::try_from(back).ok().and_then(|back| self.recent.iter().rev().nth(back));
        match made_by {
            Some(write) if write == planned.last() => Fate::Done,
            Some(_) => Fate::Lost,
            None => Fate::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::not_yet(3, "w3", Fate::Open)]
    #[case::newest(2, "w2", Fate::Done)]
    #[case::older(1, "w1", Fate::Done)]
    #[case::overtaken(2, "other", Fate::Lost)]
    #[case::overtaken_long_ago(1, "other", Fate::Lost)]
    fn the_fate_of_a_write(#[case] version: u64, #[case] write: &str, #[case] fate: Fate) {
        let now = Changes::default().next("w1").next("w2");
        let planned = Changes { version, recent: vec![write.to_owned()] };
        assert_eq!(now.fate_of(&planned), fate);
    }

    #[test]
    fn what_is_forgotten_is_unknown() {
        let first = Changes::default().next("w0");
        let second = first.next("w1");
        let now = (2..=REMEMBERED).fold(second.clone(), |now, n| now.next(&format!("w{n}")));
        assert_eq!(now.fate_of(&first), Fate::Unknown);
        assert_eq!(now.fate_of(&second), Fate::Done);
        assert_eq!(now.recent.len(), REMEMBERED);
    }
}
