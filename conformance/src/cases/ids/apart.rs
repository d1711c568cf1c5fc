//! Different ids that a careless store takes for the same.

use std::collections::BTreeSet;

use membership::{Epoch, NewMember, NewRoom, Page, Role, Room, Store};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::{members_for, moment, numbered, rooms_for};
use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, encrypted, endpoint, joins, joins_at, no_key, no_member, no_room, page, plain, room,
};
use crate::observe::Scope;
use crate::verdict::{Verdict, fails, same};

declare! { "ids";
    a_room_and_an_endpoint_may_have_the_same_id: "TYPE-1";
    pairs_of_ids_that_concatenate_to_the_same_text_stay_apart: "TYPE-1" "KEY-2";
    an_id_that_is_a_prefix_of_another_stays_apart: "TYPE-1" "ROOM-4" "MEM-3";
    ids_that_differ_only_in_case_are_different: "TYPE-1";
    ids_of_composed_and_decomposed_letters_are_different: "TYPE-1";
    spaces_around_an_id_are_part_of_it: "TYPE-1";
    an_id_that_looks_like_a_wildcard_matches_only_itself: "TYPE-1" "ERR-1";
    random_ids_of_special_characters_stay_apart: "TYPE-1" "LIST-1";
}

async fn a_room_and_an_endpoint_may_have_the_same_id(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let r = store.create_room(encrypted("x", "x")).await?;
    same(store.rooms_of(&endpoint("x"), Page::first()).await?, vec![r.clone()])?;
    same(store.member(&room("x"), &endpoint("x")).await?.role, Role::Owner)?;
    store.create_room(encrypted("y", "x")).await?;
    store.add_member(&room("y"), joins_at("y", 1)).await?;
    Scope::new(&["x", "y"], &["x", "y"]).observe(&store).await?;
    store.delete_room(&room("y")).await?;
    same(store.room(&room("x")).await?, r)?;
    Scope::new(&["x", "y"], &["x", "y"]).observe(&store).await?;
    Ok(())
}

/// Room "a" with endpoint "b.c" is not room "a.b" with endpoint "c", for any separator.
async fn pairs_of_ids_that_concatenate_to_the_same_text_stay_apart(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    for between in
        [".", "/", ":", "|", "_", "-", ",", " ", "#", "=", "%", "%2E", "\\", "'", "\u{1f980}"]
    {
        let cut = |at: usize| {
            let parts = ["a", "b", "c", "d", "1"];
            {
                let (id, who) = parts.split_at(at);
                (id.join(between), who.join(between))
            }
        };
        let pairs: Vec<_> = (1..5).map(cut).collect();
        for (id, _) in &pairs {
            store.create_room(encrypted(id, "owner")).await?;
        }
        // Each room has only its own endpoint as a member. Every other pair must be `NotFound`.
        for (number, (id, who)) in pairs.iter().enumerate() {
            let new =
                NewMember::sealed(endpoint(who), moment(number), Epoch::FIRST, numbered(number));
            store.add_member(&room(id), new).await?;
        }
        for (number, (id, _)) in pairs.iter().enumerate() {
            for (other, (_, who)) in pairs.iter().enumerate() {
                let (r, e) = (room(id), endpoint(who));
                if number == other {
                    same(store.member(&r, &e).await?.added_at, moment(number))?;
                    let key = store.key(&r, &e, Epoch::FIRST).await?;
                    same(key.ciphertext, numbered(number))?;
                    let rooms = store.rooms_of(&e, Page::first()).await?;
                    same(rooms.iter().map(|room| &room.id).collect::<Vec<_>>(), vec![&r])?;
                } else {
                    fails(store.member(&r, &e).await, &no_member(id, who))?;
                    fails(store.key(&r, &e, Epoch::FIRST).await, &no_key(id, who, 1))?;
                }
            }
        }
        for (id, _) in &pairs {
            store.delete_room(&room(id)).await?;
        }
    }
    Ok(())
}

/// A store that finds a room's records by a prefix of their keys would change other rooms, too.
async fn an_id_that_is_a_prefix_of_another_stays_apart(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ids = ["a", "aa", "aaa", "a.", "a.a", "a/", "a/a", "a\u{10ffff}", "a "];
    for id in ids {
        store.create_room(encrypted(id, "o")).await?;
        for who in ids {
            store.add_member(&room(id), joins_at(who, 1)).await?;
        }
    }
    let rest = |but: &str| ids.into_iter().filter(|id| *id != but).collect::<Vec<_>>();
    // Only the endpoint "a" leaves, and only the room "aa".
    let r = room("aa");
    store.rekey(&r, crate::make::rekey(1, ["a"], rest("a").into_iter().chain(["o"]))).await?;
    for id in ids {
        let listed = store.members(&room(id), Page::first()).await?;
        let listed: BTreeSet<_> = listed.iter().map(|m| m.endpoint.as_str().to_owned()).collect();
        let all = if id == "aa" { rest("a") } else { ids.to_vec() };
        let expected: BTreeSet<_> = all.into_iter().chain(["o"]).map(str::to_owned).collect();
        same(listed.into_iter().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>())?;
    }
    store.delete_room(&room("a")).await?;
    Scope::new(&ids, &["a", "aa", "a.", "a\u{10ffff}"]).observe(&store).await?;
    for id in rest("a") {
        let expected = if id == "aa" { 9 } else { 10 };
        same(store.members(&room(id), Page::first()).await?.len(), expected)?;
    }
    Ok(())
}

/// Rooms and members with these ids must stay apart in every read while they come and go.
async fn stay_apart(cx: &Cx, ids: &[&str]) -> Verdict {
    let store = cx.open().await?;
    let first = ids.first().copied().unwrap_or_default();
    // Only the first id exists so far. The others must be `NotFound`.
    store.create_room(encrypted(first, "owner")).await?;
    store.add_member(&room(first), joins_at(first, 1)).await?;
    for id in ids.iter().copied().filter(|id| *id != first) {
        fails(store.room(&room(id)).await, &no_room(id))?;
        fails(store.member(&room(first), &endpoint(id)).await, &no_member(first, id))?;
        same(store.rooms_of(&endpoint(id), Page::first()).await?, vec![])?;
    }
    for (number, id) in ids.iter().enumerate().skip(1) {
        let new = NewRoom::unencrypted(room(id), endpoint("owner"), moment(number));
        same(store.create_room(new.clone()).await?, new.room())?;
        store.add_member(&room(id), joins(id)).await?;
        let new = NewMember::sealed(endpoint(id), at(3), Epoch::FIRST, numbered(number));
        store.add_member(&room(first), new).await?;
    }
    Scope::new(ids, ids).observe(&store).await?;
    for (number, id) in ids.iter().enumerate().skip(1) {
        same(store.room(&room(id)).await?.created_at, moment(number))?;
        let key = store.latest_key(&room(first), &endpoint(id)).await?;
        same(key.ciphertext, numbered(number))?;
    }
    // The first id goes, as a member and then as a room. The others must stay.
    store.remove_member(&room(first), &endpoint(first)).await?;
    same(store.members(&room(first), Page::first()).await?.len(), ids.len())?;
    store.delete_room(&room(first)).await?;
    for id in ids.iter().skip(1) {
        let rooms = store.rooms_of(&endpoint(id), Page::first()).await?;
        let rooms: Vec<_> = rooms.into_iter().map(|room| room.id).collect();
        same(rooms, vec![room(id)])?;
    }
    Ok(())
}

async fn ids_that_differ_only_in_case_are_different(cx: Cx) -> Verdict {
    let ids = ["ops", "Ops", "OPS", "oPs", "straße", "STRASSE", "strasse", "İ", "i̇", "I", "i", "ı"];
    stay_apart(&cx, &ids).await
}

async fn ids_of_composed_and_decomposed_letters_are_different(cx: Cx) -> Verdict {
    let ids = [
        "caf\u{e9}",
        "cafe\u{301}",
        "cafe",
        "\u{212b}",
        "\u{c5}",
        "A\u{30a}",
        "\u{1e69}",
        "s\u{323}\u{307}",
        "s\u{307}\u{323}",
        "\u{fb01}",
        "fi",
        "\u{ac00}",
        "\u{1100}\u{1161}",
    ];
    stay_apart(&cx, &ids).await
}

async fn spaces_around_an_id_are_part_of_it(cx: Cx) -> Verdict {
    let ids = [
        "a",
        " a",
        "a ",
        " a ",
        "  a",
        "\u{a0}a",
        "a\u{a0}",
        "\u{2003}a",
        "\u{feff}a",
        "a\u{feff}",
        "a\u{200b}",
        "a.",
        ".a",
        " ",
        "  ",
        "\u{a0}",
    ];
    stay_apart(&cx, &ids).await
}

async fn an_id_that_looks_like_a_wildcard_matches_only_itself(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for id in ["a", "ab", "a.b", "a.b.c", "_x", "b"] {
        store.create_room(plain(id, "ann")).await?;
        store.add_member(&room(id), joins(id)).await?;
    }
    let scope = Scope::new(&["a", "ab", "a.b"], &["a", "ab", "a.b", "ann"]);
    let before = scope.observe(&store).await?;
    for id in [
        "*", ">", "a.*", "a.>", "*.*", "%", "_", "a%", "a_", "?", "a?", "[ab]", "a*", ".*", "^a",
        "a|b",
    ] {
        let (r, who) = (room(id), endpoint(id));
        fails(store.room(&r).await, &no_room(id))?;
        fails(store.delete_room(&r).await, &no_room(id))?;
        fails(store.members(&r, Page::first()).await, &no_room(id))?;
        fails(store.member(&room("a"), &who).await, &no_member("a", id))?;
        fails(store.remove_member(&room("a"), &who).await, &no_member("a", id))?;
        same(store.rooms_of(&who, Page::first()).await?, vec![])?;
        // Deleting a room with such an id must delete no other room.
        store.create_room(plain(id, id)).await?;
        same(store.members(&r, Page::first()).await?.len(), 1)?;
        store.delete_room(&r).await?;
        scope.observe(&store).await?.unchanged_since(&before)?;
    }
    Ok(())
}

const SPECIAL: &[char] = &[
    '.', '.', '*', '>', '$', '/', '\\', '%', '_', '-', '=', '\'', '"', ';', ' ', '~', '+', ':',
    '2', 'e', 'E', 'a', 'A', '0', '\u{301}', '\u{e9}', '\u{200d}', '\u{ffff}', '🦀',
];

async fn random_ids_of_special_characters_stay_apart(cx: Cx) -> Verdict {
    let mut rng = cx.rng(0);
    let mut ids = BTreeSet::new();
    while ids.len() < 300 {
        let length = rng.random_range(1..=4);
        let picks = (0..length).filter_map(|_| SPECIAL.get(rng.random_range(0..SPECIAL.len())));
        ids.insert(picks.collect::<String>());
    }
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.shuffle(&mut rng);
    let store = cx.open().await?.unrecorded();
    let rooms = rooms_for(&store, &ids, "the owner").await?;
    store.create_room(encrypted("the room", "the owner")).await?;
    let members = members_for(&store, "the room", &ids).await?;
    same(
        store.rooms_of(&endpoint("the owner"), page(None, 1000)).await?,
        with_room(rooms, store.room(&room("the room")).await?),
    )?;
    let listed = store.members(&room("the room"), Page::first()).await?;
    let listed: Vec<_> = listed.into_iter().filter(|m| m.role == Role::Member).collect();
    same(listed, members)
}

fn with_room(mut rooms: Vec<Room>, other: Room) -> Vec<Room> {
    let place = rooms.partition_point(|room| room.id < other.id);
    rooms.insert(place, other);
    rooms
}
