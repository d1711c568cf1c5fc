//! The calls of a room's whole life: writes that succeed, writes that are refused, and a second
//! room under the same id.

use crate::make::{at, encrypted, endpoint, joins, joins_at, plain, rekey, room};
use crate::model::Op;

/// The life of an encrypted room, and that of a second one under the same id.
pub(super) fn encrypted_life(id: &str) -> Vec<Op> {
    let create = |owner| Op::CreateRoom(encrypted(id, owner));
    let add = |who, epoch| Op::AddMember(room(id), joins_at(who, epoch));
    let remove = |who| Op::RemoveMember(room(id), endpoint(who));
    let rekeys = |from, remove: &[&'static str], keys: &[&'static str]| {
        let (remove, keys) = (remove.iter().copied(), keys.iter().copied());
        Op::Rekey(room(id), rekey(from, remove, keys))
    };
    vec![
        // The room does not exist yet.
        add("bob", 1),
        rekeys(1, &[], &["ann"]),
        Op::DeleteRoom(room(id)),
        create("ann"),
        create("bob"),
        // bob joins, then cid, whose first three tries are refused.
        add("bob", 1),
        add("bob", 1),
        add("ann", 1),
        Op::AddMember(room(id), joins("cid")),
        add("cid", 2),
        add("cid", 0),
        add("cid", 1),
        // A rekey; afterwards a key for the former epoch is refused.
        rekeys(1, &[], &["ann", "bob"]),
        rekeys(1, &[], &["ann", "bob", "cid"]),
        rekeys(1, &[], &["ann", "bob", "cid"]),
        add("dee", 1),
        add("dee", 2),
        // bob is removed; the next rekey must have no key for him.
        remove("ann"),
        remove("eve"),
        remove("bob"),
        remove("bob"),
        rekeys(2, &[], &["ann", "bob", "cid", "dee"]),
        rekeys(2, &["bob"], &["ann", "cid", "dee"]),
        rekeys(2, &["ann"], &["cid", "dee"]),
        rekeys(2, &[], &["ann", "cid", "dee"]),
        // bob returns, and a rekey removes cid.
        add("bob", 3),
        rekeys(3, &["cid"], &["ann", "bob", "dee"]),
        rekeys(3, &["cid"], &["ann", "bob"]),
        add("cid", 4),
        remove("dee"),
        rekeys(4, &["bob", "cid"], &["ann"]),
        // The room is deleted and its id used again.
        Op::DeleteRoom(room(id)),
        Op::DeleteRoom(room(id)),
        remove("bob"),
        rekeys(5, &[], &["ann"]),
        create("bob"),
        add("ann", 5),
        add("ann", 1),
        rekeys(5, &[], &["ann", "bob"]),
        rekeys(1, &[], &["ann", "bob"]),
        rekeys(2, &["ann"], &["bob"]),
        Op::DeleteRoom(room(id)),
    ]
}

/// The life of an unencrypted room, and that of a second one under the same id.
pub(super) fn unencrypted_life(id: &str) -> Vec<Op> {
    let create = |owner| Op::CreateRoom(plain(id, owner));
    let add = |who| Op::AddMember(room(id), joins(who));
    let remove = |who| Op::RemoveMember(room(id), endpoint(who));
    let mut later = joins("bob");
    later.added_at = at(i64::MIN);
    vec![
        add("bob"),
        remove("bob"),
        create("ann"),
        create("ann"),
        add("bob"),
        add("bob"),
        add("ann"),
        Op::AddMember(room(id), joins_at("cid", 0)),
        Op::AddMember(room(id), joins_at("cid", 1)),
        add("cid"),
        Op::Rekey(room(id), rekey(0, [], ["ann", "bob", "cid"])),
        Op::Rekey(room(id), rekey(1, ["bob"], ["ann", "cid"])),
        remove("ann"),
        remove("eve"),
        remove("bob"),
        remove("bob"),
        Op::AddMember(room(id), later),
        remove("cid"),
        Op::DeleteRoom(room(id)),
        Op::DeleteRoom(room(id)),
        add("bob"),
        create("bob"),
        add("ann"),
        remove("bob"),
        remove("ann"),
        Op::DeleteRoom(room(id)),
    ]
}
