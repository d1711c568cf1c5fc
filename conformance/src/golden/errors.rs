use super::calls::{
    add, bootstrap, create, delete, enroll, key, latest, member, members, rekey, remove, revoke,
    room, rooms_of, standing,
};
use super::scenarios;
use crate::make::{self, admin, encrypted, joins, joins_at, plain, user, user_key};
use crate::model::Op;

scenarios!(missing_records, the_first_of_several_errors);

fn missing_records() -> Vec<Op> {
    let in_room = |id: &str, who: &str| {
        vec![
            member(id, who),
            remove(id, who),
            latest(id, who),
            key(id, who, 0),
            key(id, who, 1),
            key(id, who, 2),
        ]
    };
    let mut steps = vec![
        room("none"),
        members("none"),
        delete("none"),
        rooms_of("nobody"),
        add("none", joins("bob")),
        add("none", joins_at("bob", 1)),
        rekey("none", make::rekey(1, [], ["bob"])),
        revoke(user_key(1), 5),
        Op::HasAdmin,
        create(encrypted("ops", "ann")),
        create(plain("lobby", "ann")),
    ];
    for id in ["none", "ops", "lobby"] {
        steps.extend(in_room(id, "bob"));
    }
    steps.extend([key("ops", "ann", 0), key("ops", "ann", 2)]);
    steps.extend(standing(user_key(1)));
    steps
}

fn the_first_of_several_errors() -> Vec<Op> {
    vec![
        create(encrypted("ops", "ann")),
        create(plain("lobby", "ann")),
        add("ops", joins_at("bob", 1)),
        rekey("ops", make::rekey(1, [], ["ann", "bob"])),
        add("lobby", joins("bob")),
        // A missing room is reported before a key that does not fit it.
        add("none", joins_at("ann", 9)),
        remove("none", "ann"),
        rekey("none", make::rekey(9, ["ann"], ["bob"])),
        // The wrong kind of room is reported before an existing member and before a wrong epoch.
        add("ops", joins("bob")),
        add("ops", joins("ann")),
        add("lobby", joins_at("bob", 9)),
        rekey("lobby", make::rekey(9, ["ann", "dan"], [])),
        rekey("lobby", make::rekey(0, [], ["ann", "bob"])),
        // An existing member is reported before a stale epoch.
        add("ops", joins_at("bob", 1)),
        add("ops", joins_at("bob", 2)),
        add("ops", joins_at("cat", 1)),
        add("ops", joins_at("cat", 3)),
        // A stale epoch is reported before a missing member, a missing member before the removal of
        // the owner, and that before wrong keys.
        rekey("ops", make::rekey(1, ["ann", "dan"], [])),
        rekey("ops", make::rekey(2, ["ann", "dan"], [])),
        rekey("ops", make::rekey(2, ["eve", "dan"], [])),
        rekey("ops", make::rekey(2, ["ann"], [])),
        rekey("ops", make::rekey(2, [], [])),
        remove("ops", "ann"),
        remove("lobby", "ann"),
        // An earlier admin is reported before a known key.
        enroll(user(user_key(1))),
        bootstrap(admin(user_key(1))),
        bootstrap(admin(user_key(2))),
        bootstrap(admin(user_key(1))),
        bootstrap(admin(user_key(2))),
        bootstrap(admin(user_key(3))),
        // The refused calls have changed nothing.
        room("ops"),
        members("ops"),
        room("lobby"),
        members("lobby"),
        rooms_of("ann"),
        rooms_of("bob"),
        rooms_of("cat"),
        latest("ops", "bob"),
        Op::Users(membership::Page::first()),
    ]
}
