use std::cell::Cell;

use crate::mutation::Mutation;

/// What can be wrong with a SQLite store that a test opens so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
#[allow(unreachable_pub, reason = "public with the feature `testing` alone")]
pub enum SqliteDefect {
    /// Callers are answered before the commit that holds their writes.
    AnswersBeforeCommit,
    /// A write that is refused takes its neighbours in the transaction with it, who are told that
    /// theirs were done.
    LosesNeighbours,
    /// A rekey commits its removals and half of its keys before it writes the rest.
    CommitsHalfARekey,
    /// The statements of one read each see a state of their own.
    ReadsStateByState,
    /// A write takes its lock only once it writes.
    LocksLate,
    /// Writes wait for a lock without an end.
    WaitsForEver,
    /// Checksums are not looked at.
    SkipsChecksums,
    /// That `revocations` and `users` agree is not looked at.
    SkipsTheWitness,
    /// Members and keys do not go with their room.
    KeepsOrphans,
    /// Who is removed loses the newest key only.
    RemovesOneKey,
    /// `rooms_of` goes through all members there are.
    ScansAllMembers,
    /// A file of a newer version is opened as if it were of this one.
    OpensWhatIsNewer,
    /// What the names of its files mean is not looked at while they are open.
    TrustsTheName,
    /// `close` leaves the connections that read open.
    KeepsReaders,
}

thread_local! {
    /// The defect of the store that works on this thread: what a call does is plain functions
    /// over a connection, and each runs on one thread from its beginning to its end.
    static HERE: Cell<Mutation<SqliteDefect>> = const { Cell::new(Mutation::NONE) };
}

/// From now on this thread works for a store with this defect.
#[inline]
pub(super) fn work_for(mutation: Mutation<SqliteDefect>) {
    if cfg!(feature = "testing") {
        HERE.set(mutation);
    }
}

/// Whether the store that works on this thread has this defect.
#[inline]
pub(super) fn is(defect: SqliteDefect) -> bool {
    cfg!(feature = "testing") && HERE.get().is(defect)
}
