use super::calls::{
    add, bootstrap, create, delete, enroll, key, latest, member, members, rekey, remove, revoke,
    room, rooms_of, users,
};
use super::{Scenario, Step};
use crate::make::{self, admin, encrypted, joins_at, user, user_key};
use crate::model::Op;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "two_clients_and_closing",
    transcript: include_str!("../../golden/two_clients_and_closing.txt"),
    steps: two_clients_and_closing,
}];

/// Every call but `close`, with arguments for which an open client would do something.
fn every_call() -> Vec<Op> {
    let ann = user_key(0xa1);
    vec![
        create(encrypted("new", "ann")),
        room("ops"),
        rooms_of("ann"),
        add("ops", joins_at("cat", 2)),
        member("ops", "ann"),
        members("ops"),
        rekey("ops", make::rekey(2, [], ["ann", "bob", "cat"])),
        remove("ops", "cat"),
        key("ops", "ann", 1),
        latest("ops", "ann"),
        delete("new"),
        bootstrap(admin(user_key(0xd0))),
        enroll(user(user_key(0xe0))),
        Op::User(ann),
        users(None, 1000),
        revoke(user_key(0xb0), 9),
        Op::IsAuthorized(ann),
        Op::IsAdmin(ann),
        Op::HasAdmin,
    ]
}

fn two_clients_and_closing() -> Vec<Step> {
    let by = |client: usize, op: Op| Step { client, op };
    let mut steps = vec![
        by(0, create(encrypted("ops", "ann"))),
        by(1, add("ops", joins_at("bob", 1))),
        by(1, room("ops")),
        by(0, rekey("ops", make::rekey(1, [], ["ann", "bob"]))),
        by(1, room("ops")),
        by(1, latest("ops", "bob")),
        by(1, rekey("ops", make::rekey(1, [], ["ann", "bob"]))),
        by(0, bootstrap(admin(user_key(0xa1)))),
        by(1, enroll(user(user_key(0xb0)))),
        by(0, Op::IsAuthorized(user_key(0xb0))),
        by(1, room("ops")),
        by(0, Op::Close),
    ];
    steps.extend(every_call().into_iter().map(|op| by(0, op)));
    steps.push(by(0, Op::Close));
    steps.extend(every_call().into_iter().map(|op| by(1, op)));
    steps.extend([by(1, Op::Close), by(1, room("ops")), by(1, Op::IsAuthorized(user_key(0xa1)))]);
    steps
}
