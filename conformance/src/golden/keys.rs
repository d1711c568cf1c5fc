use super::calls::{add, all_of, create, delete, latest, members, rekey, remove, room, rooms_of};
use super::{calls, scenarios};
use crate::make::{self, encrypted, joins_at};
use crate::model::Op;

scenarios!(an_encrypted_room, removal_and_return, refused_rekeys);

fn an_encrypted_room() -> Vec<Op> {
    let mut steps = vec![
        create(encrypted("ops", "ann")),
        add("ops", joins_at("bob", 1)),
        room("ops"),
        members("ops"),
        rekey("ops", make::rekey(1, [], ["ann", "bob"])),
        room("ops"),
        add("ops", joins_at("cat", 2)),
        rekey("ops", make::rekey(2, [], ["ann", "bob", "cat"])),
        room("ops"),
        members("ops"),
    ];
    for who in ["ann", "bob", "cat", "dan"] {
        steps.extend(all_of("ops", who, 3));
    }
    steps.extend([delete("ops"), room("ops"), latest("ops", "ann"), calls::key("ops", "ann", 1)]);
    steps
}

fn removal_and_return() -> Vec<Op> {
    let mut steps = vec![
        create(encrypted("ops", "ann")),
        add("ops", joins_at("bob", 1)),
        add("ops", joins_at("cat", 1)),
        remove("ops", "bob"),
        room("ops"),
        rooms_of("bob"),
        rekey("ops", make::rekey(1, [], ["ann", "bob", "cat"])),
        rekey("ops", make::rekey(1, [], ["ann", "cat"])),
        room("ops"),
        add("ops", joins_at("bob", 1)),
        add("ops", joins_at("bob", 2)),
        rekey("ops", make::rekey(2, ["cat"], ["ann", "bob"])),
        room("ops"),
        rooms_of("cat"),
        members("ops"),
    ];
    for who in ["ann", "bob", "cat"] {
        steps.extend(all_of("ops", who, 3));
    }
    steps.extend([
        add("ops", joins_at("cat", 3)),
        members("ops"),
        remove("ops", "cat"),
        add("ops", joins_at("cat", 3)),
        room("ops"),
    ]);
    steps.extend(all_of("ops", "cat", 3));
    steps
}

fn refused_rekeys() -> Vec<Op> {
    let guests: Vec<_> = (10..22).map(|number| format!("guest {number}")).collect();
    let mut steps = vec![create(encrypted("ops", "ann")), add("ops", joins_at("bob", 1))];
    steps.extend([
        rekey("none", make::rekey(1, [], ["ann"])),
        rekey("ops", make::rekey(0, [], ["ann", "bob"])),
        rekey("ops", make::rekey(2, ["dan"], ["ann"])),
        rekey("ops", make::rekey(1, ["dan"], ["ann"])),
        rekey("ops", make::rekey(1, ["ann"], ["bob"])),
        rekey("ops", make::rekey(1, ["ann", "dan"], ["bob"])),
        rekey("ops", make::rekey(1, [], ["ann"])),
        rekey("ops", make::rekey(1, [], ["bob"])),
        rekey("ops", make::rekey(1, ["bob"], [])),
        rekey("ops", make::rekey(1, [], ["ann", "bob", "dan"])),
        rekey("ops", make::rekey(1, ["bob"], ["ann", "dan"])),
        rekey("ops", make::rekey(1, [], guests.iter().map(String::as_str))),
        room("ops"),
        members("ops"),
    ]);
    steps.extend(guests.iter().map(|guest| add("ops", joins_at(guest, 1))));
    steps.extend([rekey("ops", make::rekey(1, [], ["ann", "bob"])), room("ops")]);
    for who in ["ann", "bob", "dan"] {
        steps.extend(all_of("ops", who, 1));
    }
    steps
}
