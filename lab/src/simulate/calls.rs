//! Every kind of call, and the data on which the call is made.

use membership::{Error, JetStreamConfig, JetStreamStore, NewUser, Page, Simulation, Store};

use super::world::OP_TIMEOUT;
use membership_conformance::history::Recorder;
use membership_conformance::judge;
use membership_conformance::make::{
    admin, at, encrypted, endpoint, epoch, joins_at, plain, rekey, room, user, user_key,
};
use membership_conformance::model::{Model, Op};

/// How many servers there are.
pub(super) const SERVERS: usize = 3;
/// How many replicas each bucket has, unless a test needs another number.
pub(super) const REPLICAS: u8 = 3;

/// The data before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Three rooms, two admins and a user.
    ///
    /// The room `ops` is at epoch 2, with three members and a removed one; `other` is unencrypted,
    /// and `gone` deleted.
    Full,
    /// The same rooms as in the other variant, and no users.
    NoUsers,
}

/// A kind of call.
#[derive(Clone, Debug)]
pub struct Call {
    /// What the call does, in words.
    pub name: &'static str,
    pub(super) op: Op,
    pub(super) start: Start,
}

/// Every kind of write.
#[must_use]
pub fn writes() -> Vec<Call> {
    let full = |name, op| Call { name, op, start: Start::Full };
    let bare = |name, op| Call { name, op, start: Start::NoUsers };
    let ops = || room("ops");
    vec![
        full("create", Op::CreateRoom(encrypted("new", "bob"))),
        full("create, unencrypted", Op::CreateRoom(plain("new", "ann"))),
        full("create again", Op::CreateRoom(encrypted("gone", "cat"))),
        full("delete", Op::DeleteRoom(ops())),
        full("add", Op::AddMember(ops(), joins_at("eve", 2))),
        full("come back", Op::AddMember(ops(), joins_at("dan", 2))),
        full("remove", Op::RemoveMember(ops(), endpoint("bob"))),
        full("rekey", Op::Rekey(ops(), rekey(2, [], ["ann", "bob", "cat"]))),
        full("rekey and remove", Op::Rekey(ops(), rekey(2, ["bob"], ["ann", "cat"]))),
        full("add a user", Op::AddUser(user(user_key(9)))),
        full("add an admin", Op::AddUser(admin(user_key(9)))),
        full("revoke a user", Op::RevokeUser(user_key(3), at(5))),
        full("revoke an admin", Op::RevokeUser(user_key(1), at(5))),
        full("revoke the other admin", Op::RevokeUser(user_key(2), at(5))),
        bare("bootstrap", Op::BootstrapAdmin(admin(user_key(1)))),
        bare(
            "bootstrap another",
            Op::BootstrapAdmin(NewUser { added_at: at(9), ..admin(user_key(2)) }),
        ),
        bare("add a first admin", Op::AddUser(admin(user_key(1)))),
    ]
}

/// Every kind of read and of decision.
#[must_use]
pub(super) fn reads() -> Vec<Call> {
    let full = |name, op| Call { name, op, start: Start::Full };
    let (ops, bob) = (|| room("ops"), || endpoint("bob"));
    vec![
        full("room", Op::Room(ops())),
        full("members", Op::Members(ops(), Page::first())),
        full("member", Op::Member(ops(), bob())),
        full("latest key", Op::LatestKey(ops(), bob())),
        full("key", Op::Key(ops(), bob(), epoch(2))),
        full("rooms of", Op::RoomsOf(bob(), Page::first())),
        full("users", Op::Users(Page::first())),
        full("user", Op::User(user_key(2))),
        full("has admin", Op::HasAdmin),
        full("is authorized", Op::IsAuthorized(user_key(3))),
        full("is admin", Op::IsAdmin(user_key(2))),
    ]
}

/// The calls that store the data of `start`.
fn setup(start: Start) -> Vec<Op> {
    let ops = || room("ops");
    let mut all = vec![
        Op::CreateRoom(encrypted("ops", "ann")),
        Op::AddMember(ops(), joins_at("bob", 1)),
        Op::AddMember(ops(), joins_at("cat", 1)),
        Op::AddMember(ops(), joins_at("dan", 1)),
        Op::Rekey(ops(), rekey(1, ["dan"], ["ann", "bob", "cat"])),
        Op::CreateRoom(plain("other", "bob")),
        Op::CreateRoom(encrypted("gone", "bob")),
        Op::DeleteRoom(room("gone")),
    ];
    if start == Start::Full {
        all.extend([
            Op::BootstrapAdmin(admin(user_key(1))),
            Op::AddUser(admin(user_key(2))),
            Op::AddUser(user(user_key(3))),
        ]);
    }
    all
}

/// Stores the data of `start` in buckets with this many replicas, and returns their model.
pub(super) async fn begin(
    simulation: &Simulation,
    start: Start,
    replicas: u8,
) -> Result<Model, String> {
    let first = open(simulation, "first", replicas).await?;
    let mut model = Model::new();
    for op in setup(start) {
        let (expected, got) = (model.apply(&op), op.apply(&first).await);
        if got != expected {
            return Err(format!("{op:?} answers {got:?} before anything was disturbed"));
        }
    }
    first.close().await.map_err(|error| error.to_string())?;
    Ok(model)
}

/// Every read of the data, with keys up to epoch `epochs`.
pub(super) fn views(epochs: u64) -> Vec<Op> {
    let rooms = ["ops", "new", "gone"].map(room);
    let endpoints = ["ann", "bob", "cat", "dan", "eve"].map(endpoint);
    let users = [1, 2, 3, 9].map(user_key);
    judge::views(&rooms, &endpoints, &users, epochs)
}

/// The [`views`] without reads that others imply, for checks that run thousands of times.
///
/// Keys of single epochs are read in one room only, since no other gets past its first epoch.
pub(super) fn few_views(epochs: u64) -> Vec<Op> {
    let mut views = views(epochs);
    views.retain(|view| match view {
        Op::Member(..) | Op::User(_) | Op::IsAdmin(_) => false,
        Op::Key(of, ..) => *of == room("ops"),
        _ => true,
    });
    views
}

pub(super) async fn look(recorder: &Recorder, client: usize, store: &dyn Store, views: &[Op]) {
    for view in views {
        recorder.call(client, store, view.clone()).await;
    }
}

pub(super) async fn open(
    simulation: &Simulation,
    name: &str,
    replicas: u8,
) -> Result<JetStreamStore, String> {
    let config = JetStreamConfig {
        replicas,
        op_timeout: OP_TIMEOUT,
        ..JetStreamConfig::new(["nats://simulated"])
    };
    let opened: Result<_, Error> = simulation.open(name, 0, true, config).await;
    opened.map_err(|error| format!("{name} cannot open: {error}"))
}
