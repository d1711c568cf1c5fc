//! Migration 2: gives every record of version 1 its checksum.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::super::columns::{Columns, Problem};
use super::super::driver::Result;
use super::super::layout::{KeyRow, MemberRow, RoomRow, UserRow, bootstrap_sum};
use crate::Error;

/// How many records are held in memory at a time.
const BATCH: usize = 500;

struct Table {
    name: &'static str,
    /// The first `key` columns are the primary key.
    key: usize,
    columns: &'static [&'static str],
    /// The checksum of a row that can be decoded.
    sum: fn(&Row<'_>) -> Result<i64, Problem>,
}

const TABLES: [Table; 4] = [
    Table {
        name: "rooms",
        key: 1,
        columns: &["id", "owner", "encrypted", "epoch", "rekey_due", "created_at"],
        sum: |row| {
            let row = RoomRow::unsealed(&mut Columns::of(row))?;
            row.parse().map(|_| row.sum())
        },
    },
    Table {
        name: "members",
        key: 2,
        columns: &["room", "endpoint", "owner", "joined_epoch", "added_at"],
        sum: |row| {
            let row = MemberRow::unsealed(&mut Columns::of(row))?;
            row.parse().map(|_| row.sum())
        },
    },
    Table {
        name: "room_keys",
        key: 3,
        columns: &["room", "epoch", "endpoint", "ciphertext"],
        sum: |row| {
            let row = KeyRow::unsealed(&mut Columns::of(row))?;
            row.parse().map(|_| row.sum())
        },
    },
    Table {
        name: "users",
        key: 1,
        columns: &["key", "label", "admin", "revoked", "added_at", "revoked_at"],
        sum: |row| {
            let row = UserRow::unsealed(&mut Columns::of(row))?;
            row.parse().map(|_| row.sum())
        },
    },
];

pub(super) fn fill(db: &Connection) -> Result<()> {
    for table in &TABLES {
        table.fill(db)?;
    }
    let made = db.query_row("SELECT admin_made FROM bootstrap", [], |row| row.get(0))?;
    db.execute("UPDATE bootstrap SET sum = ?1", [bootstrap_sum(made)])?;
    Ok(())
}

impl Table {
    fn fill(&self, db: &Connection) -> Result<()> {
        let mut last = None;
        loop {
            let batch = self.batch(db, last.as_deref())?;
            let (key, marks) = self.key();
            let sql = format!("UPDATE {} SET sum = ? WHERE ({key}) = ({marks})", self.name);
            let mut update = db.prepare_cached(&sql)?;
            for (key, sum) in &batch {
                update.execute(params_from_iter([&Value::Integer(*sum)].into_iter().chain(key)))?;
            }
            match batch.into_iter().last() {
                Some((key, _)) => last = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// The keys and checksums of the next records after the key `last`.
    fn batch(&self, db: &Connection, last: Option<&[Value]>) -> Result<Vec<(Vec<Value>, i64)>> {
        let (key, marks) = self.key();
        let after = last.map_or(String::new(), |_| format!("WHERE ({key}) > ({marks})"));
        let columns = self.columns.join(", ");
        let (name, limit) = (self.name, BATCH);
        let sql = format!("SELECT {columns} FROM {name} {after} ORDER BY {key} LIMIT {limit}");
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(last.unwrap_or_default()))?;
        let mut batch = Vec::new();
        while let Some(row) = rows.next()? {
            let key = (0..self.key).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>()?;
            let sum = (self.sum)(row)
                .map_err(|problem| Error::corrupt(name, format!("{key:?}"), problem))?;
            batch.push((key, sum));
        }
        Ok(batch)
    }

    fn key(&self) -> (String, String) {
        let key: Vec<_> = self.columns.iter().take(self.key).copied().collect();
        (key.join(", "), vec!["?"; self.key].join(", "))
    }
}
