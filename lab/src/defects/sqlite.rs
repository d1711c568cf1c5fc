//! The SQLite store's own code, broken behind a seam that only tests have.

use membership::SqliteDefect::{
    AnswersBeforeCommit, CommitsHalfARekey, KeepsOrphans, KeepsReaders, LocksLate, LosesNeighbours,
    OpensWhatIsNewer, ReadsStateByState, RemovesOneKey, ScansAllMembers, SkipsChecksums,
    SkipsTheWitness, WaitsForEver,
};

use membership_conformance::controls::Control;

use super::switched;
use crate::targets::Sqlite;

pub(super) fn controls() -> Vec<Control> {
    switched! { Sqlite::broken;
        sqlite_answers_before_commit: "LIN-1", "answers before the commit that holds the write" => AnswersBeforeCommit;
        sqlite_loses_neighbours: "LIN-1", "a refused write undoes the others in its transaction, which are acknowledged" => LosesNeighbours;
        sqlite_commits_half_a_rekey: "KEY-5", "commits a rekey's removals and half of its keys before the rest" => CommitsHalfARekey;
        sqlite_killed_in_half_a_rekey: "DUR-2", "the same, seen after a crash" => CommitsHalfARekey;
        sqlite_reads_state_by_state: "LIST-2", "the statements of one read each see a state of their own" => ReadsStateByState;
        sqlite_locks_late: "LIN-1", "BEGIN, where it must be BEGIN IMMEDIATE" => LocksLate;
        sqlite_waits_for_ever: "TIME-1", "writes wait for a lock without an end" => WaitsForEver;
        sqlite_skips_checksums: "ERR-3", "believes records whatever their checksums say" => SkipsChecksums;
        sqlite_skips_the_witness: "AUTH-3", "believes an old row of a user who was revoked since" => SkipsTheWitness;
        sqlite_keeps_orphans: "ROOM-4", "members and keys do not go with their room" => KeepsOrphans;
        sqlite_removes_one_key: "MEM-3", "who is removed loses the newest key only" => RemovesOneKey;
        sqlite_scans_all_members: "LIST-5", "rooms_of goes through all members there are" => ScansAllMembers;
        sqlite_opens_what_is_newer: "DUR-3", "opens a file of a newer version as if it were of this one" => OpensWhatIsNewer;
        sqlite_keeps_readers: "CLOSE-1", "close leaves the connections that read open" => KeepsReaders;
    }
}
