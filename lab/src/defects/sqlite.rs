//! SQLite stores with a defect in their own code, which only tests can switch on.

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
        sqlite_answers_before_commit: "LIN-1", "answers a write before the commit that holds it" => AnswersBeforeCommit;
        sqlite_loses_neighbours: "LIN-1", "undoes acknowledged writes when another in their transaction is refused" => LosesNeighbours;
        sqlite_commits_half_a_rekey: "KEY-5", "commits a rekey's removals and half of its keys before the rest" => CommitsHalfARekey;
        sqlite_killed_in_half_a_rekey: "DUR-2", "leaves half of a rekey after a crash" => CommitsHalfARekey;
        sqlite_reads_state_by_state: "LIST-2", "reads without a transaction, so that each statement sees a state of its own" => ReadsStateByState;
        sqlite_locks_late: "LIN-1", "begins writes with BEGIN instead of BEGIN IMMEDIATE" => LocksLate;
        sqlite_waits_for_ever: "TIME-1", "lets a write wait a thousand times as long as its deadline allows" => WaitsForEver;
        sqlite_skips_checksums: "ERR-3", "ignores the checksums of records" => SkipsChecksums;
        sqlite_skips_the_witness: "AUTH-3", "trusts a stale row of a user who was revoked since" => SkipsTheWitness;
        sqlite_keeps_orphans: "ROOM-4", "keeps the members and keys of a deleted room" => KeepsOrphans;
        sqlite_removes_one_key: "MEM-3", "removes only a removed member's newest key" => RemovesOneKey;
        sqlite_scans_all_members: "LIST-5", "scans the members of all rooms in rooms_of" => ScansAllMembers;
        sqlite_opens_what_is_newer: "DUR-3", "opens a file of a newer version as if it were of this one" => OpensWhatIsNewer;
        sqlite_keeps_readers: "CLOSE-1", "leaves the reading connections open after close" => KeepsReaders;
    }
}
