//! Looking up sealed keys by room, endpoint and epoch.

use membership::{Epoch, NewMember, NewRoom, Rekey, SealedKey, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, encrypted, endpoint, epoch, no_key, no_room, rekey, room, sealed, sealed_key,
};
use crate::scene::{advance, crew, open_crew};
use crate::verdict::{Verdict, fails, same};

declare! { "keys";
    a_sealed_key_comes_back_byte_for_byte: "KEY-2" "KEY-3";
    each_room_endpoint_and_epoch_has_its_own_key: "KEY-2";
    a_key_is_found_under_no_other_room_endpoint_or_epoch: "KEY-2" "ERR-1";
    ids_that_concatenate_to_the_same_text_share_no_keys: "KEY-2" "TYPE-1";
    members_may_have_equal_ciphertexts: "KEY-2";
    the_latest_key_is_that_of_the_current_epoch: "KEY-3";
    the_owner_has_a_key_from_the_first_epoch_on: "KEY-1" "ROOM-1";
    keys_of_a_missing_room_are_not_found: "ERR-1";
    a_stranger_has_no_key_at_any_epoch: "KEY-1" "ERR-1";
    an_unencrypted_room_has_no_keys: "KEY-10";
    keys_stored_through_one_client_are_read_through_another: "LIN-1" "KEY-2", needs Clients;
}

async fn a_sealed_key_comes_back_byte_for_byte(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let every_byte: Vec<u8> = (0..=255).collect();
    let nasty: [&[u8]; 6] = [b"\0", &[0xff; 4096], &every_byte, b"a\0b", b"'; --", b"\xf0\x9f"];
    for (number, bytes) in nasty.into_iter().enumerate() {
        let (room, ann, bob) = (room(&format!("r{number}")), endpoint("ann"), endpoint("bob"));
        let key = sealed(bytes);
        store
            .create_room(NewRoom::encrypted(room.clone(), ann.clone(), at(1), key.clone()))
            .await?;
        let joins = NewMember::sealed(bob.clone(), at(2), Epoch::FIRST, key.clone());
        store.add_member(&room, joins).await?;
        let both = [(ann.clone(), key.clone()), (bob.clone(), key.clone())];
        store.rekey(&room, Rekey::new(Epoch::FIRST, [], both)?).await?;
        for (endpoint, epoch) in
            [(&ann, Epoch::FIRST), (&bob, Epoch::FIRST), (&ann, epoch(2)), (&bob, epoch(2))]
        {
            let (room, endpoint, ciphertext) = (room.clone(), endpoint.clone(), key.clone());
            let stored = SealedKey { room, epoch, endpoint, ciphertext };
            same(store.key(&stored.room, &stored.endpoint, epoch).await?, stored)?;
        }
        same(store.latest_key(&room, &ann).await?.ciphertext, key)?;
    }
    Ok(())
}

async fn each_room_endpoint_and_epoch_has_its_own_key(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let (rooms, who) = (["r", "s"], ["ann", "bob", "cid"]);
    // `key_of` would give an endpoint the same key in both rooms, so that a store could mix them up
    // unnoticed.
    let key = |id: &str, who: &str, epoch: u64| sealed(format!("{id}/{who}/{epoch}"));
    for id in rooms {
        let owner_key = key(id, "ann", 1);
        store.create_room(NewRoom::encrypted(room(id), endpoint("ann"), at(1), owner_key)).await?;
        for other in &who[1..] {
            let new = NewMember::sealed(endpoint(other), at(2), Epoch::FIRST, key(id, other, 1));
            store.add_member(&room(id), new).await?;
        }
    }
    for from in 1..3 {
        for id in rooms {
            let keys = who.map(|who| (endpoint(who), key(id, who, from + 1)));
            store.rekey(&room(id), Rekey::new(epoch(from), [], keys)?).await?;
        }
    }
    for id in rooms {
        for who in who {
            for number in 1..=3 {
                let found = store.key(&room(id), &endpoint(who), epoch(number)).await?;
                let (room, endpoint, epoch) = (room(id), endpoint(who), epoch(number));
                let ciphertext = key(id, who, number);
                same(found, SealedKey { room, epoch, endpoint, ciphertext })?;
            }
        }
    }
    Ok(())
}

async fn a_key_is_found_under_no_other_room_endpoint_or_epoch(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann"]).await?;
    crew(&store, "s", &["bob"]).await?;
    advance(&store, "s", &["bob"], 1, 3).await?;
    for (id, who) in [("r", "bob"), ("s", "ann"), ("r", "Ann"), ("r", "an"), ("r", "ann ")] {
        let (room, endpoint) = (room(id), endpoint(who));
        fails(store.latest_key(&room, &endpoint).await, &no_key(id, who, None))?;
        for number in [0, 1, 2, 3, Epoch::MAX.get()] {
            let found = store.key(&room, &endpoint, epoch(number)).await;
            fails(found, &no_key(id, who, number))?;
        }
    }
    for number in [0, 2, 3, 10, 11, 1 << 32, (1 << 32) + 1, Epoch::MAX.get()] {
        let found = store.key(&room("r"), &endpoint("ann"), epoch(number)).await;
        fails(found, &no_key("r", "ann", number))?;
    }
    same(store.key(&room("r"), &endpoint("ann"), epoch(1)).await?, sealed_key("r", "ann", 1))
}

async fn ids_that_concatenate_to_the_same_text_share_no_keys(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for separator in [".", "/", ":", "_", "-", "|", " ", "=", ",", "\u{1f511}"] {
        let (short, long) = (format!("a{separator}"), format!("a{separator}b{separator}c"));
        let halves = [
            ("a".to_owned() + separator, format!("b{separator}c")),
            ("a".to_owned() + separator + "b", format!("{separator}c")),
            ("a".to_owned() + separator + "b" + separator, "c".to_owned()),
            (long, short),
        ];
        for (id, owner) in &halves {
            let key = sealed(format!("{id} {owner}"));
            let new = NewRoom::encrypted(room(id), endpoint(owner), at(1), key);
            store.create_room(new).await?;
        }
        for (id, _) in &halves {
            for (of, owner) in &halves {
                let found = store.key(&room(id), &endpoint(owner), Epoch::FIRST).await;
                if id == of {
                    same(found?.ciphertext, sealed(format!("{id} {owner}")))?;
                } else {
                    fails(found, &no_key(id, owner, 1))?;
                }
            }
        }
    }
    Ok(())
}

async fn members_may_have_equal_ciphertexts(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let (r, ann, bob, key) = (room("r"), endpoint("ann"), endpoint("bob"), sealed("same"));
    store.create_room(NewRoom::encrypted(r.clone(), ann.clone(), at(1), key.clone())).await?;
    let new = NewMember::sealed(bob.clone(), at(2), Epoch::FIRST, key.clone());
    store.add_member(&r, new).await?;
    let both = [(ann.clone(), key.clone()), (bob.clone(), key.clone())];
    store.rekey(&r, Rekey::new(Epoch::FIRST, [], both)?).await?;
    for who in [&ann, &bob] {
        for number in [1, 2] {
            same(store.key(&r, who, epoch(number)).await?.ciphertext, key.clone())?;
        }
    }
    Ok(())
}

async fn the_latest_key_is_that_of_the_current_epoch(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob"]).await?;
    for number in 1..=12 {
        for who in ["ann", "bob"] {
            let latest = store.latest_key(&room("r"), &endpoint(who)).await?;
            same(latest, sealed_key("r", who, number))?;
        }
        store.rekey(&room("r"), rekey(number, [], ["ann", "bob"])).await?;
    }
    Ok(())
}

async fn the_owner_has_a_key_from_the_first_epoch_on(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(encrypted("r", "ann")).await?;
    let (r, ann) = (room("r"), endpoint("ann"));
    same(store.key(&r, &ann, Epoch::FIRST).await?, sealed_key("r", "ann", 1))?;
    same(store.latest_key(&r, &ann).await?, sealed_key("r", "ann", 1))
}

async fn keys_of_a_missing_room_are_not_found(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann"]).await?;
    let (none, ann) = (room("none"), endpoint("ann"));
    fails(store.key(&none, &ann, Epoch::FIRST).await, &no_room("none"))?;
    fails(store.latest_key(&none, &ann).await, &no_room("none"))
}

async fn a_stranger_has_no_key_at_any_epoch(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    crew(&store, "r", &["ann", "bob"]).await?;
    advance(&store, "r", &["ann", "bob"], 1, 4).await?;
    for number in 0..=5 {
        let found = store.key(&room("r"), &endpoint("eve"), epoch(number)).await;
        fails(found, &no_key("r", "eve", number))?;
    }
    let latest = store.latest_key(&room("r"), &endpoint("eve")).await;
    fails(latest, &no_key("r", "eve", None))
}

async fn an_unencrypted_room_has_no_keys(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    open_crew(&store, "p", &["ann", "bob"]).await?;
    for who in ["ann", "bob", "eve"] {
        for number in [0, 1, 2, Epoch::MAX.get()] {
            let found = store.key(&room("p"), &endpoint(who), epoch(number)).await;
            fails(found, &no_key("p", who, number))?;
        }
        let latest = store.latest_key(&room("p"), &endpoint(who)).await;
        fails(latest, &no_key("p", who, None))?;
    }
    Ok(())
}

async fn keys_stored_through_one_client_are_read_through_another(cx: Cx) -> Verdict {
    let (one, two) = (cx.open().await?, cx.open().await?);
    crew(&one, "r", &["ann", "bob"]).await?;
    for from in 1..6 {
        // The clients change roles in each round.
        let (writer, reader) = if from % 2 == 0 { (&one, &two) } else { (&two, &one) };
        writer.rekey(&room("r"), rekey(from, [], ["ann", "bob"])).await?;
        for who in ["ann", "bob"] {
            let latest = reader.latest_key(&room("r"), &endpoint(who)).await?;
            same(latest, sealed_key("r", who, from + 1))?;
            let former = reader.key(&room("r"), &endpoint(who), epoch(from)).await?;
            same(former, sealed_key("r", who, from))?;
        }
    }
    Ok(())
}
