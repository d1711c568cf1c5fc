use membership::NewUser;

use super::calls::{bootstrap, enroll, revoke, standing, users};
use super::scenarios;
use crate::make::{admin, at, label, user, user_key};
use crate::model::Op;

scenarios!(users_come_and_go, admins);

fn users_come_and_go() -> Vec<Op> {
    let (ann, bob) = (user_key(0xa1), user_key(0xb0));
    let odd = NewUser { label: label("Ann \"O'Neil\"\n🦀 "), added_at: at(-5), ..user(ann) };
    let mut steps = vec![enroll(odd), enroll(NewUser { label: label(""), ..user(bob) })];
    steps.extend(standing(ann));
    steps.extend(standing(bob));
    steps.extend([
        enroll(NewUser { label: label("again"), ..user(ann) }),
        enroll(admin(ann)),
        revoke(ann, i64::MIN),
    ]);
    steps.extend(standing(ann));
    steps.extend([revoke(ann, 7), enroll(user(ann)), enroll(admin(ann)), Op::HasAdmin]);
    steps.extend(standing(ann));
    steps.extend(standing(bob));
    steps.push(users(None, 1000));
    steps
}

fn admins() -> Vec<Op> {
    let [ann, bob, cat] = [0xa1, 0xb0, 0xc4].map(user_key);
    let mut steps = vec![Op::HasAdmin, bootstrap(user(ann)), Op::HasAdmin];
    steps.extend(standing(ann));
    steps.extend([
        bootstrap(user(bob)),
        bootstrap(user(ann)),
        revoke(ann, 3),
        enroll(admin(bob)),
        enroll(user(cat)),
        revoke(ann, 4),
        Op::HasAdmin,
    ]);
    steps.extend(standing(ann));
    steps.extend(standing(bob));
    steps.extend(standing(cat));
    steps.extend([
        revoke(bob, 5),
        revoke(ann, 6),
        bootstrap(user(user_key(0xd0))),
        bootstrap(user(ann)),
        revoke(cat, 7),
        revoke(bob, 8),
        Op::HasAdmin,
        users(None, 1000),
    ]);
    steps.extend(standing(bob));
    steps
}
