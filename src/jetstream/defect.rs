use std::time::Duration;

/// What can be wrong with a JetStream store that a test opens so.
///
/// `SingleCollect`, `CollectsWhatIsUnderWay`, `RepeatsInDoubt`, `IgnoresGaps`, `CountsFirst`,
/// `BelievesRefusedFirsts`, `KeepsCollectedKeys`, `RemovesHeads`, `EndsHeadsLater` and `IgnoresVersions`
/// show only in moments that real servers seldom give: they are for servers that can be made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
#[allow(unreachable_pub, reason = "public with the feature `testing` alone")]
pub enum JetStreamDefect {
    /// Reads and decisions ask for no barrier.
    NoBarrier,
    /// Decisions ask for none, everything else does.
    NoBarrierForUsers,
    /// The barrier is sent after the read that it is for.
    BarrierAfterTheRead,
    /// What stands in `members` is read behind a barrier of `rooms`.
    AnotherBucketsBarrier,
    /// Who needs a barrier joins one that is under way already.
    JoinsBarriersUnderWay,
    /// `rooms_of` does not look a second time.
    SingleCollect,
    /// A rekey names its keys before they are written.
    CommitsBeforeTheKeys,
    /// A member is added before its entry is in the index.
    IndexesAfterTheCommit,
    /// All attempts at a rekey write their keys under the same names.
    IgnoresAttempts,
    /// All memberships of an endpoint in a room have the same id.
    ReusesMemberships,
    /// All rooms of an id have the same incarnation.
    ReusesIncarnations,
    /// Collecting what an ended membership left knows no sequence up to which.
    CollectsWithoutAFence,
    /// Collecting index entries does not ask whether their writer may be at work still.
    CollectsWhatIsUnderWay,
    /// A change is made whatever happened since it was planned.
    ExpectsNothing,
    /// The count of admins is written whatever happened to it since it was read.
    CountsAdminsApart,
    /// A refused compare-and-set is believed, without a proved read.
    BelievesRefusals,
    /// What was published without an answer is sent again without a look at what became of it.
    RepeatsInDoubt,
    /// A delivery of the feed that is not the next one is taken for it.
    IgnoresGaps,
    /// The counter of the index is stored before the entry it announces.
    CountsFirst,
    /// A first write that is refused is taken for one that an earlier copy of it made.
    BelievesRefusedFirsts,
    /// A rekey that comes back after losing to another change goes on with the keys it has written,
    /// whoever went meanwhile.
    KeepsCollectedKeys,
    /// The head of a deleted room is removed, without a marker that it is over.
    RemovesHeads,
    /// Who deletes a room, or finds it deleted, answers before its head says so.
    EndsHeadsLater,
    /// A state that reaches as far as a barrier is taken for one that holds it.
    BelievesSequences,
    /// The copy of the users goes on behind where it stood, whatever stands there now.
    GoesOnAnywhere,
    /// Whom the copy of the users lacks is taken for unknown.
    BelievesGaps,
    /// The copy of the users is fed by whichever server comes.
    ListensAnywhere,
    /// The version of the servers is looked at when the store is opened, and never again.
    IgnoresVersions,
    /// A bound is kept by a clock that stands still while the machine is suspended.
    StopsItsClock,
    /// A client that may answer from memory does so however long it has heard nothing.
    TrustsItsMemory,
    /// A server that says nothing is not left for another.
    StaysWhereItIs,
    /// `close` does not let go of the connection.
    KeepsTheConnection,
}

/// What a broken client leaves half done stays so for as long as a slow server takes, and somebody
/// has the time to see it.
pub(super) async fn half_done() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
