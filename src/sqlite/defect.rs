use std::cell::Cell;

use crate::mutation::Mutation;

/// The defects that a test can give to a SQLite store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
#[allow(unreachable_pub, reason = "public with the feature `testing` alone")]
pub enum SqliteDefect {
    /// Callers are answered before the commit of their writes.
    AnswersBeforeCommit,
    /// A refused write undoes the other writes of its transaction, whose callers get success.
    LosesNeighbours,
    /// A rekey commits its removals and half of its keys before it writes the rest.
    CommitsHalfARekey,
    /// Each statement of a read sees another state.
    ReadsStateByState,
    /// A write takes its lock at its first change.
    LocksLate,
    /// Writes wait for a lock without a deadline.
    WaitsForEver,
    /// Checksums are not checked.
    SkipsChecksums,
    /// `revocations` and `users` are not compared.
    SkipsTheWitness,
    /// The members and keys of a deleted room stay.
    KeepsOrphans,
    /// A removed member loses the newest key only.
    RemovesOneKey,
    /// `rooms_of` scans all members.
    ScansAllMembers,
    /// A file of a newer version is opened.
    OpensWhatIsNewer,
    /// Replaced files go unnoticed.
    TrustsTheName,
    /// `close` leaves the reading connections open.
    KeepsReaders,
}

thread_local! {
    /// The defect of the store that runs on this thread. A call's functions run on one thread from beginning to end.
    static HERE: Cell<Mutation<SqliteDefect>> = const { Cell::new(Mutation::NONE) };
}

/// Sets the defect of the store that runs on this thread.
#[inline]
pub(super) fn work_for(mutation: Mutation<SqliteDefect>) {
    if cfg!(feature = "testing") {
        HERE.set(mutation);
    }
}

/// Whether the store that runs on this thread has this defect.
#[inline]
pub(super) fn is(defect: SqliteDefect) -> bool {
    cfg!(feature = "testing") && HERE.get().is(defect)
}
