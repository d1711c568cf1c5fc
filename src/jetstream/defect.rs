use std::time::Duration;

/// The defects that a test can give to a JetStream store.
///
/// `SingleCollect`, `CollectsWhatIsUnderWay`, `RepeatsInDoubt`, `IgnoresGaps`, `CountsFirst`,
/// `BelievesRefusedFirsts`, `KeepsCollectedKeys`, `RemovesHeads`, `EndsHeadsLater` and `IgnoresVersions`
/// show only at moments that are rare with real servers; simulated servers can bring them about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
#[allow(unreachable_pub, reason = "public with the feature `testing` alone")]
pub enum JetStreamDefect {
    /// Reads and decisions send no barrier.
    NoBarrier,
    /// Decisions send no barrier; other calls do.
    NoBarrierForUsers,
    /// The barrier is sent after the read.
    BarrierAfterTheRead,
    /// `members` is read behind a barrier of `rooms`.
    AnotherBucketsBarrier,
    /// A caller joins a barrier that is in flight.
    JoinsBarriersUnderWay,
    /// `rooms_of` does not look a second time.
    SingleCollect,
    /// A rekey names its keys before they are stored.
    CommitsBeforeTheKeys,
    /// A member is added before its index entry is stored.
    IndexesAfterTheCommit,
    /// All attempts at a rekey have the same id.
    IgnoresAttempts,
    /// All memberships of an endpoint in a room have the same id.
    ReusesMemberships,
    /// All rooms of an id have the same incarnation.
    ReusesIncarnations,
    /// The collection of an ended membership's keys has no upper sequence.
    CollectsWithoutAFence,
    /// The collection of index entries does not check whether an addition may still be made.
    CollectsWhatIsUnderWay,
    /// A change expects no revision.
    ExpectsNothing,
    /// `=admins` is stored without an expectation.
    CountsAdminsApart,
    /// A refused compare-and-set is believed, without a proved read.
    BelievesRefusals,
    /// A publish without an answer is repeated without a look for its outcome.
    RepeatsInDoubt,
    /// A gap in the feed's deliveries is ignored.
    IgnoresGaps,
    /// The endpoint's counter is stored before the index entry.
    CountsFirst,
    /// A refused first write counts as made by an earlier copy of it.
    BelievesRefusedFirsts,
    /// A rekey that lost to another change uses the keys it has stored, also if a membership ended since.
    KeepsCollectedKeys,
    /// The head of a deleted room is purged, without a tombstone.
    RemovesHeads,
    /// A deletion, and a call that finds a room deleted, answers before the tombstone is over the head.
    EndsHeadsLater,
    /// A state whose last sequence is at or past a barrier's counts as containing the barrier.
    BelievesSequences,
    /// The copy of users goes on after its anchor, whatever message stands there.
    GoesOnAnywhere,
    /// A user whom the copy of users lacks counts as unknown.
    BelievesGaps,
    /// The copy of users is fed by any server, leader or not.
    ListensAnywhere,
    /// The servers' version is checked at open only.
    IgnoresVersions,
    /// The bounded mode uses a clock that stands still while the machine is suspended.
    StopsItsClock,
    /// The bounded mode has no bound.
    TrustsItsMemory,
    /// A client does not leave a server that acknowledges nothing.
    StaysWhereItIs,
    /// `close` does not close the connection.
    KeepsTheConnection,
}

/// How long some defects leave a change half done, so that another client can see it.
pub(super) async fn half_done() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
