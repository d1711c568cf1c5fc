//! The JetStream store's own code, broken behind a seam that only tests have: on one server where
//! that shows it, on three where it is about replicas.

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
        jetstream_no_barrier_for_users: "AUTH-3", "decides from its copy of the users without a barrier" => NoBarrierForUsers;
        jetstream_trusts_its_memory: "AUTH-4", "goes on deciding from memory past the bound" => TrustsItsMemory;
        jetstream_stops_its_clock: "TIME-3", "keeps its bound by a clock that stands still in suspension" => StopsItsClock;
        jetstream_goes_on_anywhere: "PAST-1", "its copy of the users goes on behind where it stood, whatever stands there" => GoesOnAnywhere, by "past::a_decision_after_a_rewind_follows_the_present_data";
        jetstream_commits_before_the_keys: "KEY-5", "a rekey names its keys before they are written" => CommitsBeforeTheKeys;
        jetstream_indexes_after_the_commit: "LIST-4", "a member is added before the index has it" => IndexesAfterTheCommit, by "concurrency::who_is_a_member_is_in_the_index_from_then_on";
        jetstream_ignores_attempts: "KEY-7", "rekeys that race write their keys under the same names" => IgnoresAttempts;
        jetstream_expects_nothing: "KEY-7", "makes a change whatever happened since it was planned" => ExpectsNothing;
        jetstream_reuses_memberships: "LIST-4", "a member that comes back has the membership's former id" => ReusesMemberships;
        jetstream_collects_without_a_fence: "MEM-5", "what collects a former membership's keys takes a later one's along" => CollectsWithoutAFence;
        jetstream_reuses_incarnations: "ROOM-5", "a room made again has the former one's incarnation" => ReusesIncarnations;
        jetstream_counts_admins_apart: "USER-4", "writes the count of admins whatever happened since it was read" => CountsAdminsApart;
        jetstream_keeps_the_connection: "CLOSE-1", "close does not let go of the connection" => KeepsTheConnection;
    };
    let on_three = switched! { |name, defect| three.broken(name, defect);
        jetstream_no_barrier: "LIN-1", "reads and decides without a barrier" => NoBarrier, by "partitions::a_cut_off_server_returns_no_stale_records";
        jetstream_joins_barriers_under_way: "LIN-1", "who needs a barrier joins one that was sent before" => JoinsBarriersUnderWay, by "in_step::a_slow_server_gives_no_stale_decision";
        jetstream_barrier_after_the_read: "LIN-1", "sends the barrier after the read" => BarrierAfterTheRead, by "partitions::a_cut_off_server_returns_no_stale_records";
        jetstream_another_buckets_barrier: "LIN-1", "reads members behind a barrier of rooms" => AnotherBucketsBarrier, by "partitions::a_cut_off_server_returns_no_stale_records";
        jetstream_believes_refusals: "LIN-1", "believes a refused compare-and-set" => BelievesRefusals, by "partitions::a_cut_off_server_refuses_no_write_for_a_stale_reason";
        jetstream_stays_where_it_is: "FAULT-1", "never leaves a server that says nothing" => StaysWhereItIs, by "failover::every_call_works_again_when_one_server_is_lost";
    };
    [on_one, on_three].concat()
}
