use rusqlite::Row;
use rusqlite::types::ValueRef;

/// Why a record cannot be decoded: a fragment for [`Error::corrupt`](crate::Error::corrupt).
pub(super) type Problem = String;

/// Reads the columns of one row in order, and checks the type of each. Borrows from the row, so
/// that a decision allocates nothing.
pub(super) struct Columns<'row> {
    row: &'row Row<'row>,
    next: usize,
}

impl<'row> Columns<'row> {
    pub(super) fn of(row: &'row Row<'row>) -> Self {
        Self { row, next: 0 }
    }

    pub(super) fn text(&mut self) -> Result<&'row str, Problem> {
        match self.value()? {
            ValueRef::Text(bytes) => {
                std::str::from_utf8(bytes).map_err(|error| self.problem(&error.to_string()))
            }
            _ => Err(self.problem("is no text")),
        }
    }

    pub(super) fn blob(&mut self) -> Result<&'row [u8], Problem> {
        match self.value()? {
            ValueRef::Blob(bytes) => Ok(bytes),
            _ => Err(self.problem("is no blob")),
        }
    }

    pub(super) fn int(&mut self) -> Result<i64, Problem> {
        match self.value()? {
            ValueRef::Integer(number) => Ok(number),
            _ => Err(self.problem("is no integer")),
        }
    }

    pub(super) fn maybe(&mut self) -> Result<Option<i64>, Problem> {
        match self.value()? {
            ValueRef::Integer(number) => Ok(Some(number)),
            ValueRef::Null => Ok(None),
            _ => Err(self.problem("is neither an integer nor null")),
        }
    }

    pub(super) fn flag(&mut self) -> Result<bool, Problem> {
        match self.int()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.problem("is neither 0 nor 1")),
        }
    }

    fn value(&mut self) -> Result<ValueRef<'row>, Problem> {
        let value = self.row.get_ref(self.next).map_err(|error| error.to_string());
        self.next += 1;
        value
    }

    fn problem(&self, problem: &str) -> Problem {
        format!("column {} {problem}", self.next)
    }
}
