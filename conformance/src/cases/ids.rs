//! Ids are opaque: none of them is special, and no two of them are the same.

mod odd;

use std::collections::BTreeSet;
use std::sync::Arc;

use membership::{
    Ciphertext, Epoch, Member, NewMember, NewRoom, Page, Rekey, Role, Room, SealedKey, Store,
};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, encrypted, endpoint, epoch, joins, joins_at, no_key, no_member, no_room, page, plain, room,
    sealed,
};
use crate::observe::Scope;
use crate::together::together;
use crate::verdict::{Verdict, fails, same};

declare! { "ids";
    each_names_a_room_of_its_own: "TYPE-1" "ROOM-3" "LIST-1";
    each_names_an_endpoint_of_its_own: "TYPE-1" "KEY-2" "LIST-1";
    each_goes_through_every_call: "TYPE-1" "KEY-2" "LIST-4";
    each_is_missed_by_its_own_name: "TYPE-1" "ERR-1";
    each_room_deleted_takes_no_other_with_it: "TYPE-1" "ROOM-4";
    each_member_removed_takes_no_other_with_it: "TYPE-1" "MEM-3" "KEY-9";
    a_room_and_an_endpoint_may_have_the_same: "TYPE-1";
    a_pair_that_joins_to_the_same_text_is_another_pair: "TYPE-1" "KEY-2";
    one_that_is_the_beginning_of_another_is_another: "TYPE-1" "ROOM-4" "MEM-3";
    those_that_differ_only_in_case_are_different: "TYPE-1";
    composed_and_decomposed_letters_are_different: "TYPE-1";
    spaces_around_one_are_part_of_it: "TYPE-1";
    a_wildcard_matches_only_itself: "TYPE-1" "ERR-1";
    random_ones_of_special_characters_stay_apart: "TYPE-1" "LIST-1";
}

/// A sealed key no other number has.
fn numbered(number: usize) -> Ciphertext {
    sealed(number.to_be_bytes())
}

fn moment(number: usize) -> membership::Timestamp {
    at(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Makes a room for each id, all of them owned by `owner`, told apart by their time; every second
/// one encrypted. Returns them in byte order.
async fn rooms_for(store: &Arc<dyn Store>, ids: &[String], owner: &str) -> Verdict<Vec<Room>> {
    let news = ids.iter().enumerate().map(|(number, id)| {
        let (id, owner, when) = (room(id), endpoint(owner), moment(number));
        match number % 2 {
            0 => NewRoom::encrypted(id, owner, when, numbered(number)),
            _ => NewRoom::unencrypted(id, owner, when),
        }
    });
    let creating = news.map(|new| {
        let (store, expected) = (Arc::clone(store), new.room());
        async move {
            same(&store.create_room(new).await?, &expected)?;
            Ok(expected)
        }
    });
    let mut rooms = together(creating).await?;
    rooms.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(rooms)
}

/// Adds each id to the encrypted room `id`, told apart by its time and key.
async fn members_for(store: &Arc<dyn Store>, id: &str, ids: &[String]) -> Verdict<Vec<Member>> {
    let adding = ids.iter().enumerate().map(|(number, who)| {
        let (store, r, who) = (Arc::clone(store), room(id), endpoint(who));
        async move {
            let new = NewMember::sealed(who, moment(number), Epoch::FIRST, numbered(number));
            Ok(store.add_member(&r, new).await?)
        }
    });
    let mut members = together(adding).await?;
    for (number, (member, who)) in members.iter().zip(ids).enumerate() {
        let (r, who, added_at) = (room(id), endpoint(who), moment(number));
        let (role, joined_epoch) = (Role::Member, Epoch::FIRST);
        same(member, &Member { room: r, endpoint: who, role, joined_epoch, added_at })?;
    }
    members.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    Ok(members)
}

async fn each_names_a_room_of_its_own(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let ids = odd::all();
    let rooms = rooms_for(&store, &ids, "owner").await?;
    for expected in &rooms {
        same(&store.room(&expected.id).await?, expected)?;
        let members = store.members(&expected.id, Page::first()).await?;
        let member = (&expected.id, &endpoint("owner"));
        same(members.iter().map(|m| (&m.room, &m.endpoint)).collect::<Vec<_>>(), vec![member])?;
    }
    same(store.rooms_of(&endpoint("owner"), Page::first()).await?, rooms)?;
    for (number, id) in ids.iter().enumerate().step_by(2) {
        let key = store.latest_key(&room(id), &endpoint("owner")).await?;
        same(key.ciphertext, numbered(number))?;
    }
    Ok(())
}

async fn each_names_an_endpoint_of_its_own(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let r = store.create_room(encrypted("r", "!")).await?;
    let ids = odd::all();
    let members = members_for(&store, "r", &ids).await?;
    for expected in &members {
        same(&store.member(&r.id, &expected.endpoint).await?, expected)?;
        same(store.rooms_of(&expected.endpoint, Page::first()).await?, vec![r.clone()])?;
    }
    let (before, after): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| member.endpoint < endpoint("!"));
    let listed = store.members(&r.id, Page::first()).await?;
    same(listed.iter().take(before.len()).cloned().collect::<Vec<_>>(), before)?;
    same(store.members(&r.id, Page::after_id(endpoint("!"))).await?, after)?;
    for (number, id) in ids.iter().enumerate() {
        let (room, endpoint) = (r.id.clone(), endpoint(id));
        let ciphertext = numbered(number);
        let expected = SealedKey { room, epoch: Epoch::FIRST, endpoint, ciphertext };
        same(&store.key(&r.id, &expected.endpoint, Epoch::FIRST).await?, &expected)?;
        same(store.latest_key(&r.id, &expected.endpoint).await?, expected)?;
    }
    Ok(())
}

/// The whole life of a room with an odd id and a member with the same one.
async fn live(store: Arc<dyn Store>, id: String) -> Verdict {
    let (r, who, owner) = (room(&id), endpoint(&id), endpoint("the owner"));
    let (second, third) = (sealed("2"), sealed("3"));
    let new = NewRoom::encrypted(r.clone(), owner.clone(), at(0), sealed("0"));
    let created = store.create_room(new).await?;
    let new = NewMember::sealed(who.clone(), at(1), Epoch::FIRST, sealed("1"));
    let member = store.add_member(&r, new).await?;
    same(&store.member(&r, &who).await?, &member)?;
    let keys = [(owner.clone(), second.clone()), (who.clone(), third.clone())];
    let rekeyed = store.rekey(&r, Rekey::new(Epoch::FIRST, [], keys)?).await?;
    same(&rekeyed, &Room { epoch: epoch(2), ..created })?;
    same(store.room(&r).await?, rekeyed.clone())?;
    same(store.key(&r, &who, Epoch::FIRST).await?.ciphertext, sealed("1"))?;
    same(store.latest_key(&r, &who).await?.ciphertext, third)?;
    same(store.latest_key(&r, &owner).await?.ciphertext, second.clone())?;
    same(store.rooms_of(&who, Page::first()).await?, vec![rekeyed])?;
    same(store.rooms_of(&who, Page::after_id(r.clone())).await?, vec![])?;
    let after = store.members(&r, Page::after_id(who.clone())).await?;
    same(after.iter().any(|m| m.endpoint <= who), false)?;
    store.remove_member(&r, &who).await?;
    fails(store.member(&r, &who).await, &no_member(&id, &id))?;
    fails(store.key(&r, &who, Epoch::FIRST).await, &no_key(&id, &id, 1))?;
    fails(store.latest_key(&r, &who).await, &no_key(&id, &id, None))?;
    same(store.rooms_of(&who, Page::first()).await?, vec![])?;
    let new = NewMember::sealed(who.clone(), at(1), epoch(2), sealed("4"));
    store.add_member(&r, new).await?;
    let rekey = Rekey::new(epoch(2), [who.clone()], [(owner.clone(), second)])?;
    store.rekey(&r, rekey).await?;
    fails(store.member(&r, &who).await, &no_member(&id, &id))?;
    store.delete_room(&r).await?;
    fails(store.room(&r).await, &no_room(&id))?;
    fails(store.latest_key(&r, &owner).await, &no_room(&id))
}

async fn each_goes_through_every_call(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    together(odd::all().into_iter().map(|id| live(Arc::clone(&store), id))).await?;
    same(store.rooms_of(&endpoint("the owner"), Page::first()).await?, vec![])
}

async fn each_is_missed_by_its_own_name(cx: Cx) -> Verdict {
    let client = cx.open().await?;
    client.create_room(encrypted("here", "ann")).await?;
    let (store, here) = (client.unrecorded(), room("here"));
    for id in odd::all() {
        let (r, who) = (room(&id), endpoint(&id));
        fails(store.room(&r).await, &no_room(&id))?;
        fails(store.members(&r, Page::first()).await, &no_room(&id))?;
        fails(store.member(&r, &who).await, &no_room(&id))?;
        fails(store.member(&here, &who).await, &no_member("here", &id))?;
        fails(store.latest_key(&r, &who).await, &no_room(&id))?;
        fails(store.latest_key(&here, &who).await, &no_key("here", &id, None))?;
        fails(store.key(&here, &who, Epoch::FIRST).await, &no_key("here", &id, 1))?;
        fails(store.remove_member(&here, &who).await, &no_member("here", &id))?;
        fails(store.delete_room(&r).await, &no_room(&id))?;
        same(store.rooms_of(&who, Page::first()).await?, vec![])?;
    }
    same(client.members(&here, Page::first()).await?.len(), 1)
}

async fn each_room_deleted_takes_no_other_with_it(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let mut ids = odd::all();
    let mut left = rooms_for(&store, &ids, "owner").await?;
    ids.shuffle(&mut cx.rng(0));
    for id in &ids {
        let id = room(id);
        store.delete_room(&id).await?;
        left.retain(|room| room.id != id);
        same(&store.rooms_of(&endpoint("owner"), Page::first()).await?, &left)?;
    }
    Ok(())
}

async fn each_member_removed_takes_no_other_with_it(cx: Cx) -> Verdict {
    let store = cx.open().await?.unrecorded();
    let r = store.create_room(encrypted("r", "\u{10ffff}~ the last")).await?.id;
    let mut ids = odd::all();
    let mut left = members_for(&store, "r", &ids).await?;
    let mut keys: Vec<_> =
        ids.iter().enumerate().map(|(number, id)| (endpoint(id), numbered(number))).collect();
    let mut shuffled: Vec<_> = ids.drain(..).map(|id| endpoint(&id)).collect();
    shuffled.shuffle(&mut cx.rng(0));
    for (round, who) in shuffled.iter().enumerate() {
        store.remove_member(&r, who).await?;
        left.retain(|member| member.endpoint != *who);
        keys.retain(|(endpoint, _)| endpoint != who);
        let mut listed = store.members(&r, Page::first()).await?;
        listed.pop();
        same(&listed, &left)?;
        same(store.rooms_of(who, Page::first()).await?, vec![])?;
        if round % 16 == 0 {
            for (endpoint, key) in &keys {
                same(&store.key(&r, endpoint, Epoch::FIRST).await?.ciphertext, key)?;
            }
        }
    }
    Ok(())
}

async fn a_room_and_an_endpoint_may_have_the_same(cx: Cx) -> Verdict {
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

/// (room "a", endpoint "b.c") is not (room "a.b", endpoint "c"), whatever stands for the dot.
async fn a_pair_that_joins_to_the_same_text_is_another_pair(cx: Cx) -> Verdict {
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
        // Each room has one of the endpoints alone; every other pair must be missed.
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

/// A store that finds what belongs to a room by the beginning of a key takes too much.
async fn one_that_is_the_beginning_of_another_is_another(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ids = ["a", "aa", "aaa", "a.", "a.a", "a/", "a/a", "a\u{10ffff}", "a "];
    for id in ids {
        store.create_room(encrypted(id, "o")).await?;
        for who in ids {
            store.add_member(&room(id), joins_at(who, 1)).await?;
        }
    }
    let rest = |but: &str| ids.into_iter().filter(|id| *id != but).collect::<Vec<_>>();
    // Of the endpoint "a" the rooms change; of all others nothing does.
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

/// Rooms and members by these names are kept apart, through every view, while they come and go.
async fn stay_apart(cx: &Cx, ids: &[&str]) -> Verdict {
    let store = cx.open().await?;
    let first = ids.first().copied().unwrap_or_default();
    // None of the others is there because the first one is.
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
    // The first one goes, as a member and then as a room, alone.
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

async fn those_that_differ_only_in_case_are_different(cx: Cx) -> Verdict {
    let ids = ["ops", "Ops", "OPS", "oPs", "straße", "STRASSE", "strasse", "İ", "i̇", "I", "i", "ı"];
    stay_apart(&cx, &ids).await
}

async fn composed_and_decomposed_letters_are_different(cx: Cx) -> Verdict {
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

async fn spaces_around_one_are_part_of_it(cx: Cx) -> Verdict {
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

async fn a_wildcard_matches_only_itself(cx: Cx) -> Verdict {
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
        // And where there is such a room, it is that one and no other that goes.
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

async fn random_ones_of_special_characters_stay_apart(cx: Cx) -> Verdict {
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
