//! The lineage of a file: which store it is of, and how far it has come.
//!
//! Every transaction of a store counts on. SQLite carries the count from the log into the file
//! together with all other pages. So the count that the file alone shows never goes back, and the
//! log beside it goes on from there; where either is not so, one of the two is of another time, and
//! the records in them do not go together although each looks sound.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::driver::Result;
use super::log;
use super::sum::Sum;
use crate::Error;

/// The length of the random name of a store.
const NAME: usize = 16;

/// A point in the life of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    /// The store's own: drawn once, in all its copies.
    pub(super) name: [u8; NAME],
    /// How many transactions have changed it.
    pub(super) commits: u64,
}

impl Lineage {
    /// Begins a store's life.
    pub(super) fn begin(db: &Connection) -> Result<()> {
        let name = db.query_row("SELECT randomblob(16)", [], |row| row.get(0))?;
        let begun = Self { name, commits: 1 };
        db.execute(
            "INSERT INTO lineage (one, mark, sum) VALUES (1, ?1, ?2)",
            (begun.mark(), begun.sum()),
        )?;
        Ok(())
    }

    pub(super) fn read(db: &Connection) -> Result<Self> {
        let mut select = db.prepare_cached("SELECT mark, sum FROM lineage WHERE one = 1")?;
        let row = select.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let damaged = |problem: &str| Error::corrupt("lineage", "1", problem);
        let (mark, sum): (Vec<u8>, i64) = row.ok_or_else(|| damaged("is missing"))?;
        let found = Self::parse(&mark).ok_or_else(|| damaged("is no lineage"))?;
        if found.sum() != sum {
            return Err(damaged("does not match its checksum").into());
        }
        Ok(found)
    }

    /// Counts the transaction that is open.
    pub(super) fn count(db: &Connection) -> Result<Self> {
        let before = Self::read(db)?;
        let now = Self { commits: before.commits + 1, ..before };
        db.prepare_cached("UPDATE lineage SET mark = ?1, sum = ?2 WHERE one = 1")?
            .execute((now.mark(), now.sum()))?;
        Ok(now)
    }

    fn mark(self) -> Vec<u8> {
        [&self.name[..], &self.commits.to_be_bytes()].concat()
    }

    fn parse(mark: &[u8]) -> Option<Self> {
        let (name, commits) = mark.split_first_chunk()?;
        Some(Self { name: *name, commits: u64::from_be_bytes(commits.try_into().ok()?) })
    }

    fn sum(self) -> i64 {
        Sum::of("lineage").blob(&self.mark()).finish()
    }

    /// Whether a log can be that of a file which shows this lineage: it begins at most one
    /// transaction later, and has come at least as far.
    pub(super) fn continues_in(self, path: &Path) -> Result<bool> {
        let (mut first, mut last) = (None, None);
        let mut written = None;
        log::frames(path, |_, page, commits| {
            written = self.within(page).or(written);
            if commits && let Some(count) = written {
                first.get_or_insert(count);
                last = Some(count);
            }
        })
        .map_err(Error::unavailable)?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(true) };
        Ok(first <= self.commits + 1 && self.commits <= last)
    }

    /// The count in a page that has the mark of this store. No page but that of the table
    /// `lineage` has it: the name is drawn at random.
    fn within(self, page: &[u8]) -> Option<u64> {
        let at = page.windows(NAME).rposition(|window| window == self.name)?;
        let commits = page.get(at + NAME..at + NAME + 8)?;
        Some(u64::from_be_bytes(commits.try_into().ok()?))
    }
}
