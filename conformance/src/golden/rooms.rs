use membership::{Epoch, NewMember, NewRoom};

use super::calls::{add, all_of, create, delete, latest, member, members, remove, room, rooms_of};
use super::{calls, scenarios};
use crate::make::{self, at, encrypted, endpoint, joins, joins_at, plain, sealed};
use crate::model::Op;

scenarios!(an_unencrypted_room, a_room_made_again, odd_ids, exact_values);

fn an_unencrypted_room() -> Vec<Op> {
    vec![
        create(plain("lobby", "ann")),
        room("lobby"),
        add("lobby", joins("bob")),
        add("lobby", joins("cat")),
        member("lobby", "ann"),
        member("lobby", "bob"),
        members("lobby"),
        rooms_of("bob"),
        latest("lobby", "bob"),
        calls::key("lobby", "bob", 0),
        add("lobby", joins("bob")),
        create(plain("lobby", "bob")),
        remove("lobby", "bob"),
        member("lobby", "bob"),
        room("lobby"),
        members("lobby"),
        rooms_of("bob"),
        add("lobby", joins("bob")),
        members("lobby"),
        delete("lobby"),
        room("lobby"),
        rooms_of("ann"),
        rooms_of("cat"),
        delete("lobby"),
    ]
}

fn a_room_made_again() -> Vec<Op> {
    let mut steps = vec![
        create(encrypted("ops", "ann")),
        add("ops", joins_at("bob", 1)),
        calls::rekey("ops", make::rekey(1, [], ["ann", "bob"])),
        remove("ops", "bob"),
        delete("ops"),
        create(encrypted("ops", "cat")),
        room("ops"),
        members("ops"),
    ];
    for who in ["ann", "bob", "cat"] {
        steps.extend(all_of("ops", who, 2));
    }
    steps.extend([
        add("ops", joins_at("ann", 2)),
        add("ops", joins_at("ann", 1)),
        members("ops"),
        delete("ops"),
        create(plain("ops", "bob")),
        room("ops"),
        members("ops"),
    ]);
    for who in ["ann", "bob", "cat"] {
        steps.extend(all_of("ops", who, 2));
    }
    steps
}

/// Ids that a file system, a query or a protocol could misread.
const ODD: &[&str] = &[
    "Ops",
    "ops",
    " ops",
    "ops ",
    "é",
    "e\u{301}",
    ".",
    "..",
    "a.b.*.>",
    "a/b",
    "%61",
    "a'b\"c;--",
    "🦀",
    "null",
    "\u{a0}",
    "\\",
    "$KV",
    "=",
    "_",
];

fn odd_ids() -> Vec<Op> {
    let long = "x".repeat(128);
    let ids: Vec<&str> = ODD.iter().copied().chain([long.as_str()]).collect();
    let mut steps = Vec::new();
    for id in &ids {
        steps.push(create(encrypted(id, id)));
    }
    for id in &ids {
        steps.extend([room(id), members(id), rooms_of(id), latest(id, id)]);
    }
    for id in ["Ops", "é", "."] {
        steps.push(delete(id));
    }
    for id in ids {
        steps.push(room(id));
    }
    steps
}

fn exact_values() -> Vec<Op> {
    let bytes = |len: usize| sealed((0..=255).cycle().take(len).collect::<Vec<u8>>());
    let (ann, bob, cat) = (endpoint("ann"), endpoint("bob"), endpoint("cat"));
    let times = [i64::MIN, -1, 0, 1_700_000_000_123, i64::MAX];
    let mut steps: Vec<_> = times
        .iter()
        .enumerate()
        .map(|(n, time)| {
            create(NewRoom::unencrypted(make::room(&format!("at {n}")), ann.clone(), at(*time)))
        })
        .collect();
    steps.extend((0..times.len()).map(|n| room(&format!("at {n}"))));
    let room_id = make::room("sealed");
    steps.extend([
        create(NewRoom::encrypted(room_id, ann, at(-1), bytes(1))),
        add("sealed", NewMember::sealed(bob, at(i64::MIN), Epoch::FIRST, bytes(1025))),
        add("sealed", NewMember::sealed(cat, at(i64::MAX), Epoch::FIRST, bytes(4096))),
        members("sealed"),
        latest("sealed", "ann"),
        latest("sealed", "bob"),
        latest("sealed", "cat"),
    ]);
    steps
}
