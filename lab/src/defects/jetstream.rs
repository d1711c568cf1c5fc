//! JetStream stores with a defect in their own code, which only tests can switch on.
//!
//! These stores run on one server; those whose defect is about replicas run on three.

use membership::JetStreamDefect::{
    AnotherBucketsBarrier, BarrierAfterTheRead, BelievesRefusals, CollectsWithoutAFence,
    CommitsBeforeTheKeys, CountsAdminsApart, ExpectsNothing, GoesOnAnywhere, IgnoresAttempts,
    IndexesAfterTheCommit, JoinsBarriersUnderWay, KeepsTheConnection, NoBarrier, NoBarrierForUsers,
    ReusesIncarnations, ReusesMemberships, StaysWhereItIs, StopsItsClock, TrustsItsMemory,
};

use membership_conformance::controls::Control;

use super::switched;
use crate::targets::JetStream;
use nats_cluster::Provision;

pub(super) fn controls() -> Vec<Control> {
    let [one, three, _] = JetStream::all(Provision::Auto);
    let on_one = switched! { |name, defect| one.broken(name, defect);
        jetstream_no_barrier_for_users: "AUTH-3", "decides from its copy of users without a barrier" => NoBarrierForUsers;
        jetstream_trusts_its_memory: "AUTH-4", "decides from memory past the staleness bound" => TrustsItsMemory;
        jetstream_stops_its_clock: "TIME-3", "measures the staleness bound with a clock that stands still in suspension" => StopsItsClock;
        jetstream_goes_on_anywhere: "PAST-1", "continues its copy of users without checking that the anchor is still there" => GoesOnAnywhere, by "past::a_decision_after_a_rewind_follows_the_present_data";
        jetstream_commits_before_the_keys: "KEY-5", "commits a rekey before its keys are stored" => CommitsBeforeTheKeys;
        jetstream_indexes_after_the_commit: "LIST-4", "adds a member before its index entry is stored" => IndexesAfterTheCommit, by "concurrency::rooms_of_lists_a_room_as_soon_as_its_new_member_is_seen";
        jetstream_ignores_attempts: "KEY-7", "stores the keys of racing rekeys under the same names" => IgnoresAttempts;
        jetstream_expects_nothing: "KEY-7", "commits a change without an expected revision" => ExpectsNothing;
        jetstream_reuses_memberships: "LIST-4", "gives a member that is added again the id of its former membership" => ReusesMemberships;
        jetstream_collects_without_a_fence: "MEM-5", "collects a later membership's keys together with a former one's" => CollectsWithoutAFence;
        jetstream_reuses_incarnations: "ROOM-5", "gives a room that is created again the incarnation of the deleted one" => ReusesIncarnations;
        jetstream_counts_admins_apart: "USER-4", "stores the count of admins without an expected revision" => CountsAdminsApart;
        jetstream_keeps_the_connection: "CLOSE-1", "keeps the connection open after close" => KeepsTheConnection;
    };
    let on_three = switched! { |name, defect| three.broken(name, defect);
        jetstream_no_barrier: "LIN-1", "reads and decides without a barrier" => NoBarrier, by "partitions::a_cut_off_server_returns_no_stale_records";
        jetstream_joins_barriers_under_way: "LIN-1", "lets a call join a barrier that was sent before the call began" => JoinsBarriersUnderWay, by "in_step::a_slow_server_gives_no_stale_decision";
        jetstream_barrier_after_the_read: "LIN-1", "sends the barrier after the read" => BarrierAfterTheRead, by "partitions::a_cut_off_server_returns_no_stale_records";
        jetstream_another_buckets_barrier: "LIN-1", "reads the bucket members behind a barrier of the bucket rooms" => AnotherBucketsBarrier, by "partitions::a_cut_off_server_returns_no_stale_records";
        jetstream_believes_refusals: "LIN-1", "believes a refused compare-and-set without a proved read" => BelievesRefusals, by "partitions::a_cut_off_server_refuses_no_write_for_a_stale_reason";
        jetstream_stays_where_it_is: "FAULT-1", "never leaves a server that acknowledges nothing" => StaysWhereItIs, by "failover::every_call_works_again_when_one_server_is_lost";
    };
    [on_one, on_three].concat()
}
