use super::calls::{
    add, bootstrap, create, delete, enroll, members_page, remove, revoke, rooms_of, rooms_page,
    users,
};
use super::scenarios;
use crate::make::{admin, encrypted, joins, joins_at, plain, user, user_key};
use crate::model::Op;

scenarios!(pages_of_members, pages_of_rooms, pages_of_users);

/// Ids in byte order, which differs from the order of a dictionary.
const IDS: [&str; 7] = ["B", "a", "aa", "b", "z", "é", "🦀"];

fn pages_of_members() -> Vec<Op> {
    let mut steps = vec![create(plain("ops", "z"))];
    steps.extend(IDS.iter().rev().filter(|id| **id != "z").map(|id| add("ops", joins(id))));
    for limit in [1, 2, 3, 6, 7, 8, 1000] {
        steps.push(members_page("ops", None, limit));
    }
    for after in ["A", "B", "a", "a ", "b", "zzz", "é", "🦀", "🦀🦀"] {
        steps.extend([members_page("ops", Some(after), 2), members_page("ops", Some(after), 1000)]);
    }
    steps.push(remove("ops", "b"));
    steps.extend([members_page("ops", Some("b"), 2), members_page("ops", None, 1000)]);
    steps
}

fn pages_of_rooms() -> Vec<Op> {
    let mut steps = Vec::new();
    steps.extend(IDS.iter().rev().map(|id| create(encrypted(id, "ann"))));
    steps.extend(["B", "é", "aa"].map(|id| add(id, joins_at("bob", 1))));
    for limit in [1, 2, 3, 6, 7, 8, 1000] {
        steps.push(rooms_page("ann", None, limit));
    }
    for after in ["A", "B", "a", "a ", "b", "zzz", "é", "🦀", "🦀🦀"] {
        steps.extend([rooms_page("ann", Some(after), 2), rooms_page("bob", Some(after), 2)]);
    }
    steps.extend([
        remove("é", "bob"),
        delete("B"),
        rooms_of("bob"),
        rooms_of("ann"),
        rooms_of("dan"),
    ]);
    steps
}

fn pages_of_users() -> Vec<Op> {
    let mut steps = vec![users(None, 1000), bootstrap(admin(user_key(0x80)))];
    steps.extend([0xff, 0x00, 0x7f, 0x20].map(|byte| enroll(user(user_key(byte)))));
    steps.push(revoke(user_key(0x20), 9));
    for limit in [1, 2, 4, 5, 6, 1000] {
        steps.push(users(None, limit));
    }
    for after in [0x00, 0x01, 0x20, 0x7f, 0x80, 0xff] {
        steps.extend([users(Some(user_key(after)), 1), users(Some(user_key(after)), 1000)]);
    }
    steps
}
