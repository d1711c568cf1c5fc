//! Values come back exactly as they were given, and illegal values cannot be built.

use membership::{
    Ciphertext, Conflict, EndpointId, Epoch, Error, Label, NewMember, NewRoom, NewUser, Page,
    Rekey, RoomId, Store, User, UserKey,
};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, encrypted, endpoint, epoch, joins_at, label, page, rekey, revoked, room, sealed,
    stale, user, user_exists, user_key,
};
use crate::observe::Scope;
use crate::together::together;
use crate::verdict::{Failure, Verdict, fails, holds, same};

declare! { "types";
    timestamps_come_back_exactly: "TYPE-3";
    the_time_of_a_revocation_comes_back_exactly: "TYPE-3";
    labels_of_0_to_256_bytes_come_back_exactly: "USER-2";
    sealed_keys_of_any_bytes_come_back_exactly: "KEY-2";
    two_spellings_of_a_key_are_one_user: "TYPE-2" "USER-2";
    keys_that_differ_in_one_bit_are_two_users: "TYPE-2";
    an_illegal_id_cannot_be_built: "TYPE-4" "TYPE-1";
    an_illegal_user_key_cannot_be_built: "TYPE-4" "TYPE-2";
    an_illegal_value_cannot_be_built: "TYPE-4" "TYPE-6";
    a_rekey_that_contradicts_itself_cannot_be_built: "TYPE-4" "KEY-5";
    no_debug_text_shows_a_sealed_key: "TYPE-5";
    a_rekey_at_the_last_epoch_is_refused: "TYPE-6" "ERR-2", needs Epochs;
    the_last_epoch_is_reached_by_a_rekey: "TYPE-6" "KEY-4", needs Epochs;
    epochs_past_32_bits_are_exact: "TYPE-6" "KEY-3", needs Epochs;
}

const MOMENTS: [i64; 9] =
    [i64::MIN, i64::MIN + 1, -1, 0, 1, 1_700_000_000_000, 1 << 53, (1 << 53) + 1, i64::MAX];

async fn timestamps_come_back_exactly(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(encrypted("all", "ann")).await?;
    for (n, when) in (1..).zip(MOMENTS.map(at)) {
        let new = NewRoom::unencrypted(room(&format!("r{n}")), endpoint("ann"), when);
        same(store.create_room(new.clone()).await?.created_at, when)?;
        same(store.room(&new.id).await?.created_at, when)?;
        same(store.member(&new.id, &endpoint("ann")).await?.added_at, when)?;

        let who = endpoint(&format!("e{n}"));
        let key = sealed([1]);
        let new = NewMember::sealed(who.clone(), when, Epoch::FIRST, key);
        same(store.add_member(&room("all"), new).await?.added_at, when)?;
        same(store.member(&room("all"), &who).await?.added_at, when)?;

        let new = NewUser { added_at: when, ..user(user_key(n)) };
        same(store.add_user(new).await?.added_at, when)?;
        same(store.user(&user_key(n)).await?.added_at, when)?;
    }
    let listed = store.rooms_of(&endpoint("ann"), page(Some(room("all")), 1000)).await?;
    same(listed.iter().map(|room| room.created_at).collect::<Vec<_>>(), MOMENTS.map(at).to_vec())?;
    let listed = store.members(&room("all"), page(Some(endpoint("ann")), 1000)).await?;
    same(
        listed.iter().map(|member| member.added_at).collect::<Vec<_>>(),
        MOMENTS.map(at).to_vec(),
    )?;
    let listed = store.users(Page::first()).await?;
    same(listed.iter().map(|user| user.added_at).collect::<Vec<_>>(), MOMENTS.map(at).to_vec())
}

async fn the_time_of_a_revocation_comes_back_exactly(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut expected = Vec::new();
    for (n, when) in (1..).zip(MOMENTS.map(at)) {
        let added = store.add_user(user(user_key(n))).await?;
        store.revoke_user(&added.key, when).await?;
        let after = revoked(&added, when);
        same(store.user(&added.key).await?, after.clone())?;
        expected.push(after);
    }
    same(store.users(Page::first()).await?, expected)
}

async fn labels_of_0_to_256_bytes_come_back_exactly(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let labels = [
        "",
        " ",
        "\0",
        "a\0b",
        "\n\r\t\u{1b}",
        "  padded  ",
        "NULL",
        "'; DROP TABLE users; --",
        "\"\\\u{7f}\u{85}",
        "e\u{301}",
        "\u{e9}",
        "\u{feff}bom",
        "👩‍👩‍👧‍👦",
        "\u{202e}right to left",
        "\u{10ffff}\u{fffd}\u{fffe}",
        "{\"json\":null}",
        "0",
        "1e9",
    ];
    let long = ["x".repeat(255), "x".repeat(256), "\0".repeat(256), "🦀".repeat(64)];
    let all = labels.into_iter().chain(long.iter().map(String::as_str));
    let mut expected = Vec::new();
    for (n, text) in (1..).zip(all) {
        let new = NewUser { label: label(text), ..user(user_key(n)) };
        same(store.add_user(new.clone()).await?, new.user())?;
        same(store.user(&new.key).await?.label.as_str().to_owned(), text.to_owned())?;
        expected.push(new.user());
    }
    same(store.users(Page::first()).await?, expected)
}

/// Each key is stored in all three ways: by creating a room, by adding a member and by a rekey.
async fn sealed_keys_of_any_bytes_come_back_exactly(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let keys: Vec<_> = (0..=u8::MAX)
        .step_by(51)
        .map(|byte| vec![byte])
        .chain([every_byte.clone(), every_byte.repeat(16), vec![0; 4096], vec![0xff; 4095]])
        .chain([b"null".to_vec(), b"'".to_vec(), vec![0; 2], vec![0xc3, 0x28]])
        .map(sealed)
        .collect();
    let (ann, bob) = (endpoint("ann"), endpoint("bob"));
    for (n, key) in keys.iter().enumerate() {
        let id = room(&format!("r{n}"));
        let new = NewRoom::encrypted(id.clone(), ann.clone(), at(1), key.clone());
        store.create_room(new).await?;
        let new = NewMember::sealed(bob.clone(), at(1), Epoch::FIRST, key.clone());
        store.add_member(&id, new).await?;
        let other = sealed([1, 2, 3]);
        let to_all = [(ann.clone(), key.clone()), (bob.clone(), other.clone())];
        store.rekey(&id, Rekey::new(Epoch::FIRST, [], to_all)?).await?;
        for (who, number, key) in
            [(&ann, 1, key), (&bob, 1, key), (&ann, 2, key), (&bob, 2, &other)]
        {
            same(&store.key(&id, who, epoch(number)).await?.ciphertext, key)?;
        }
        same(&store.latest_key(&id, &ann).await?.ciphertext, key)?;
    }
    Ok(())
}

async fn two_spellings_of_a_key_are_one_user(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let lower = "ef4e44524b72e440f96dae7bba237c6666a40701cb1365a42244f84e7a67dab1";
    let upper = lower.to_uppercase();
    let mixed = lower.replace('e', "E");
    let nkey = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let spellings = [lower, &upper, &mixed, nkey];
    store.bootstrap_admin(admin(user_key(1))).await?;
    let scope = Scope::new(&[], &[]).with_users(&[user_key(1), lower.parse()?]);
    let added = store.add_user(admin(upper.parse()?)).await?;
    same(added.key.to_string(), lower.to_owned())?;
    for spelling in spellings {
        let key: UserKey = spelling.parse()?;
        same(store.user(&key).await?, added.clone())?;
        holds(store.is_authorized(&key).await.is_allowed(), "Allow", &spelling)?;
        holds(store.is_admin(&key).await.is_allowed(), "Allow", &spelling)?;
        let again = store.add_user(user(key));
        scope.refuses(&store, again, &user_exists(key)).await?;
        same(store.users(page(Some(key), 10)).await?, Vec::<User>::new())?;
    }
    store.revoke_user(&nkey.parse()?, at(5)).await?;
    for spelling in spellings {
        let key: UserKey = spelling.parse()?;
        same(store.user(&key).await?, revoked(&added, at(5)))?;
        holds(!store.is_authorized(&key).await.is_allowed(), "Deny", &spelling)?;
    }
    same(store.users(Page::first()).await?.len(), 2)
}

async fn keys_that_differ_in_one_bit_are_two_users(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let base = *user_key(0x55).as_bytes();
    let mut keys: Vec<_> = (0..256_usize)
        .map(|bit| {
            let mut bytes = base;
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte ^= u8::from(at == bit / 8) << (bit % 8);
            }
            UserKey::from_bytes(bytes)
        })
        .chain([user_key(0x55), user_key(0), user_key(0xff)])
        .collect();
    let adding = keys.iter().map(|key| {
        let (store, new) =
            (store.unrecorded(), NewUser { label: label(&key.to_nkey()), ..user(*key) });
        async move { Ok(store.add_user(new).await?) }
    });
    together(adding).await?;
    store.revoke_user(&user_key(0x55), at(5)).await?;
    keys.sort_unstable();
    let listed = store.users(Page::first()).await?;
    same(listed.iter().map(|user| user.key).collect::<Vec<_>>(), keys)?;
    for user in listed {
        same(user.label.as_str().to_owned(), user.key.to_nkey())?;
        same(user.revoked, user.key == user_key(0x55))?;
        same(store.is_authorized(&user.key).await.is_allowed(), !user.revoked)?;
    }
    Ok(())
}

/// `built` must be `Invalid` for this field, with a message that contains `names`.
#[track_caller]
fn refused<T>(built: Result<T, Error>, field: &str, names: &str) -> Verdict {
    let expected = format!("Invalid of {field}, naming {names:?}");
    match built {
        Err(Error::Invalid(problem))
            if problem.field() == field && problem.to_string().contains(names) =>
        {
            Ok(())
        }
        Err(error) => Err(Failure::new(expected, crate::show::Show::show(&error))),
        Ok(_) => Err(Failure::new(expected, "it was built")),
    }
}

async fn an_illegal_id_cannot_be_built(_: Cx) -> Verdict {
    let long = "x".repeat(129);
    let long_by_bytes = "é".repeat(65);
    let mut table = vec![
        (String::new(), "0 bytes".to_owned()),
        (long, "129 bytes".to_owned()),
        (long_by_bytes, "130 bytes".to_owned()),
        ("x".repeat(1 << 20), "1048576 bytes".to_owned()),
    ];
    for control in (0..0x20).chain(0x7f..0xa0) {
        let c = char::from(control);
        let named = format!("U+{control:04X}");
        table.extend(
            [c.to_string(), format!("a{c}"), format!("{c}a")].map(|id| (id, named.clone())),
        );
    }
    for (id, names) in &table {
        refused(RoomId::new(id), "room id", names)?;
        refused(id.parse::<RoomId>(), "room id", names)?;
        refused(EndpointId::new(id), "endpoint id", names)?;
        refused(id.parse::<EndpointId>(), "endpoint id", names)?;
    }
    Ok(())
}

async fn an_illegal_user_key_cannot_be_built(_: Cx) -> Verdict {
    let nkey = user_key(7).to_nkey();
    let table = [
        (String::new(), "0 bytes"),
        ("ab".repeat(31), "62 bytes"),
        ("ab".repeat(33), "66 bytes"),
        (format!(" {}", "ab".repeat(32)), "65 bytes"),
        (format!("0x{}", "ab".repeat(31)), "'x'"),
        (format!("{}g", "0".repeat(63)), "'g'"),
        (format!("{} ", "0".repeat(63)), "' '"),
        (format!("{}é", "0".repeat(62)), "'é'"),
        (nkey.to_lowercase(), "'u'"),
        (nkey.replacen('U', "A", 1), "U"),
        (nkey.replacen('U', "S", 1), "U"),
        (format!("{nkey}="), "57 bytes"),
        (swap_last_two_different(&nkey), "checksum"),
    ];
    for (text, names) in table {
        refused(text.parse::<UserKey>(), "user key", names)?;
    }
    Ok(())
}

/// Swaps two characters, as a typing error does: the checksum must notice it.
fn swap_last_two_different(text: &str) -> String {
    let mut chars: Vec<_> = text.chars().collect();
    let at = chars.windows(2).rposition(|pair| matches!(pair, [a, b] if a != b));
    if let Some(at) = at {
        chars.swap(at, at + 1);
    }
    chars.into_iter().collect()
}

async fn an_illegal_value_cannot_be_built(_: Cx) -> Verdict {
    refused(Label::new("x".repeat(257)), "label", "257 bytes")?;
    refused(Label::new("é".repeat(129)), "label", "258 bytes")?;
    refused(Ciphertext::new([]), "ciphertext", "0 bytes")?;
    refused(Ciphertext::new(vec![1; 4097]), "ciphertext", "4097 bytes")?;
    for number in [1 << 53, u64::MAX] {
        refused(Epoch::new(number), "epoch", &number.to_string())?;
    }
    for limit in [0, 1001, 65_536, 65_537, usize::MAX] {
        refused(Page::<RoomId>::new(None, limit), "page limit", &limit.to_string())?;
        refused(Page::new(Some(endpoint("a")), limit), "page limit", &limit.to_string())?;
        refused(Page::new(Some(user_key(1)), limit), "page limit", &limit.to_string())?;
    }
    Ok(())
}

async fn a_rekey_that_contradicts_itself_cannot_be_built(_: Cx) -> Verdict {
    let (ann, bob) = (|| (endpoint("ann"), sealed([1])), || (endpoint("bob"), sealed([2])));
    let both = Rekey::new(Epoch::FIRST, [endpoint("bob")], [ann(), bob()]);
    refused(both, "rekey", "\"bob\"")?;
    refused(Rekey::new(Epoch::FIRST, [], [ann(), bob(), ann()]), "rekey", "\"ann\"")
}

async fn no_debug_text_shows_a_sealed_key(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let secret = sealed("QmVydGhh");
    let new = NewRoom::encrypted(room("r"), endpoint("ann"), at(1), secret.clone());
    let member = NewMember::sealed(endpoint("bob"), at(1), Epoch::FIRST, secret.clone());
    let rekey = Rekey::new(Epoch::FIRST, [], [(endpoint("ann"), secret.clone())])?;
    let requests = [format!("{new:?}"), format!("{member:?}"), format!("{rekey:?}")];
    store.create_room(new).await?;
    let key = store.latest_key(&room("r"), &endpoint("ann")).await?;
    let refused =
        store.rekey(&room("r"), Rekey::new(epoch(9), [], [(endpoint("x"), secret)])?).await;
    let answers = [format!("{key:?}"), format!("{:?}", key.ciphertext), format!("{refused:?}")];
    let bytes = format!("{:?}", key.ciphertext.as_bytes());
    let list = bytes.trim_matches(['[', ']']);
    for text in requests.into_iter().chain(answers) {
        let hidden = !text.contains("QmVydGhh") && !text.contains(list);
        holds(hidden, "no bytes of the key", &text)?;
    }
    holds(format!("{key:?}").contains('8'), "its length", &format!("{key:?}"))
}

/// A rekey of a room whose only member is ann. `from` may be the last epoch.
fn rekey_of_ann(from: Epoch) -> Result<Rekey, Error> {
    Rekey::new(from, [], [(endpoint("ann"), sealed("next"))])
}

async fn a_rekey_at_the_last_epoch_is_refused(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(encrypted("r", "ann")).await?;
    cx.instance().plant_epoch(&room("r"), Epoch::MAX).await?;
    let scope = Scope::new(&["r"], &["ann", "bob"]);
    let last = Error::Conflict(Conflict::LastEpoch);
    let (r, past, early) = (room("r"), rekey_of_ann(Epoch::MAX)?, rekey_of_ann(Epoch::FIRST)?);
    scope.refuses(&store, store.rekey(&r, past), &last).await?;
    scope.refuses(&store, store.rekey(&r, early), &stale(Epoch::MAX.get())).await?;
    // A room at the last epoch still takes other changes.
    store.add_member(&room("r"), joins_at("bob", Epoch::MAX.get())).await?;
    same(store.latest_key(&room("r"), &endpoint("bob")).await?.epoch, Epoch::MAX)?;
    store.remove_member(&room("r"), &endpoint("bob")).await?;
    same(store.room(&room("r")).await?.rekey_due, true)
}

async fn the_last_epoch_is_reached_by_a_rekey(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let created = store.create_room(encrypted("r", "ann")).await?;
    let before_last = epoch(Epoch::MAX.get() - 1);
    cx.instance().plant_epoch(&room("r"), before_last).await?;
    let after = store.rekey(&room("r"), rekey_of_ann(before_last)?).await?;
    same(&after, &membership::Room { epoch: Epoch::MAX, ..created })?;
    same(store.room(&room("r")).await?, after)?;
    let key = store.latest_key(&room("r"), &endpoint("ann")).await?;
    same((key.epoch, key.ciphertext), (Epoch::MAX, sealed("next")))
}

/// A store that keeps epochs in 32 bits, or in a float, confuses some of these.
async fn epochs_past_32_bits_are_exact(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.create_room(encrypted("r", "ann")).await?;
    for base in [1 << 31, 1 << 32, (1 << 32) + 5, 1 << 48, (1 << 53) - 4] {
        cx.instance().plant_epoch(&room("r"), epoch(base)).await?;
        same(store.room(&room("r")).await?.epoch, epoch(base))?;
        for wrong in [base - 1, base + 1, base & 0xffff_ffff, base & 0x7fff_ffff] {
            if wrong != base {
                let refused = store.rekey(&room("r"), rekey_of_ann(epoch(wrong))?).await;
                fails(refused, &stale(base))?;
            }
        }
        same(store.rekey(&room("r"), rekey(base, [], ["ann"])).await?.epoch, epoch(base + 1))?;
        let key = store.latest_key(&room("r"), &endpoint("ann")).await?;
        let by_epoch = store.key(&room("r"), &endpoint("ann"), epoch(base + 1)).await?;
        same(&key, &by_epoch)?;
        same(key, crate::make::sealed_key("r", "ann", base + 1))?;
        let before = store.key(&room("r"), &endpoint("ann"), epoch(base)).await?;
        same(before.epoch, epoch(base))?;
    }
    Ok(())
}
