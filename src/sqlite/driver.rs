//! SQLite's errors: the only code that turns them into an [`Error`].

use rusqlite::ErrorCode;

use crate::{Conflict, Error};

/// The result of a call of SQLite.
pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Wraps [`Error`]. `?` can turn a driver's error into this type, so that the public type does not depend on the
/// driver.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Error);

impl From<Failure> for Error {
    fn from(Failure(error): Failure) -> Self {
        error
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<Conflict> for Failure {
    fn from(conflict: Conflict) -> Self {
        Self(conflict.into())
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self(translate(error))
    }
}

fn translate(error: rusqlite::Error) -> Error {
    let Some(code) = error.sqlite_error_code() else {
        // SQLite reports a missing column, a column of another type, or an unexpected row. So the file does not have
        // the schema that this code expects.
        return Error::corrupt("database", "schema", error.to_string());
    };
    match code {
        // Another connection holds a lock, or the statement was interrupted at its deadline.
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OperationInterrupted => Error::Timeout,
        // `Unknown` means SQL that does not fit the tables. A failed constraint contradicts rows that the call has read
        // in the same transaction.
        ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::ConstraintViolation
        | ErrorCode::TypeMismatch
        | ErrorCode::Unknown => Error::corrupt("database", "file", error.to_string()),
        // The disk is full, the file is read-only or unreadable, memory is exhausted, and so on: the contract has one
        // error for a store that cannot serve.
        _ => Error::unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use rusqlite::ffi;

    use super::*;

    #[rstest]
    #[case::busy(ffi::SQLITE_BUSY, "timeout")]
    #[case::busy_in_recovery(ffi::SQLITE_BUSY_RECOVERY, "timeout")]
    #[case::locked(ffi::SQLITE_LOCKED, "timeout")]
    #[case::wal_locking(ffi::SQLITE_PROTOCOL, "timeout")]
    #[case::interrupt(ffi::SQLITE_INTERRUPT, "timeout")]
    #[case::corrupt(ffi::SQLITE_CORRUPT, "corrupt")]
    #[case::not_a_database(ffi::SQLITE_NOTADB, "corrupt")]
    #[case::constraint(ffi::SQLITE_CONSTRAINT_PRIMARYKEY, "corrupt")]
    #[case::no_such_table(ffi::SQLITE_ERROR, "corrupt")]
    #[case::full(ffi::SQLITE_FULL, "unavailable")]
    #[case::io(ffi::SQLITE_IOERR_FSYNC, "unavailable")]
    #[case::read_only(ffi::SQLITE_READONLY, "unavailable")]
    #[case::cannot_open(ffi::SQLITE_CANTOPEN, "unavailable")]
    #[case::permission(ffi::SQLITE_PERM, "unavailable")]
    #[case::memory(ffi::SQLITE_NOMEM, "unavailable")]
    #[case::misuse(ffi::SQLITE_MISUSE, "unavailable")]
    fn codes(#[case] code: i32, #[case] expected: &str) {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let got = match translate(error) {
            Error::Timeout => "timeout",
            Error::Corrupt(_) => "corrupt",
            Error::Unavailable(_) => "unavailable",
            other => panic!("{other:?}"),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn a_column_that_does_not_fit_is_corrupt() {
        assert!(matches!(translate(rusqlite::Error::InvalidColumnIndex(9)), Error::Corrupt(_)));
        assert!(matches!(translate(rusqlite::Error::QueryReturnedNoRows), Error::Corrupt(_)));
    }
}
