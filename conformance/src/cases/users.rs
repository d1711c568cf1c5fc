//! Adding, reading, listing and revoking users.

use membership::{Conflict, Decision, DenyReason, NewUser, Page, Store, User, UserKey};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    admin, at, label, no_user, page, revoked, user, user_exists, user_key, user_number,
};
use crate::observe::Scope;
use crate::verdict::{Verdict, fails, same};

declare! { "users";
    an_added_user_is_read_back: "USER-2" "USER-5";
    a_missing_user_is_not_found: "ERR-1" "USER-3";
    users_are_listed_in_byte_order_with_revoked_ones_marked: "USER-5" "LIST-1";
    a_known_key_is_refused_and_its_record_untouched: "USER-2" "ERR-2";
    a_known_key_is_refused_in_every_spelling: "USER-2" "TYPE-2";
    every_spelling_of_a_key_finds_the_same_user: "TYPE-2" "USER-5";
    a_label_comes_back_exactly: "USER-2" "USER-5";
    a_users_times_come_back_exactly: "TYPE-3" "USER-5";
    a_revocation_marks_the_user_and_touches_no_other: "USER-3";
    revoking_twice_keeps_the_first_time: "USER-3";
    revoking_by_another_spelling_revokes_the_same_user: "USER-3" "TYPE-2";
    revoking_an_unknown_user_is_not_found: "USER-3" "ERR-1";
    no_method_brings_a_revoked_user_back: "USER-3";
    the_last_active_admin_cannot_be_revoked: "USER-4" "ERR-2";
    a_revoked_admin_does_not_count_as_an_active_one: "USER-4";
    an_admin_can_be_revoked_once_there_is_another: "USER-4";
    without_any_admin_a_user_can_be_revoked: "USER-3" "USER-4";
    a_revoked_admin_can_be_revoked_again_while_one_admin_is_left: "USER-3" "USER-4";
    timestamps_do_not_decide_whether_a_user_is_authorized: "TYPE-3" "AUTH-1" "USER-3";
    timestamps_do_not_decide_whether_a_user_is_an_admin: "TYPE-3" "AUTH-5" "USER-4";
}

/// The first and the last timestamp, and some between, as the years 1 and 2200.
pub(super) const MOMENTS: [i64; 8] =
    [i64::MIN, -62_135_596_800_000, -1, 0, 1, 7_258_118_400_000, i64::MAX - 1, i64::MAX];

const ANN: UserKey = UserKey::from_bytes([0xa1; 32]);
const BOB: UserKey = UserKey::from_bytes([0xb0; 32]);
const EVE: UserKey = UserKey::from_bytes([0xee; 32]);

fn everyone() -> Scope {
    Scope::new(&[], &[]).with_users(&[ANN, BOB, EVE])
}

/// The spellings of one key that TYPE-2 allows.
pub(super) fn spellings(key: UserKey) -> [String; 4] {
    let lower = key.to_string();
    let mixed = lower.char_indices().map(|(at, c)| match at % 2 {
        0 => c.to_ascii_uppercase(),
        _ => c,
    });
    [lower.clone(), lower.to_uppercase(), mixed.collect(), key.to_nkey()]
}

async fn an_added_user_is_read_back(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for new in [user(ANN), admin(BOB)] {
        let added = store.add_user(new.clone()).await?;
        same(&added, &new.user())?;
        same(store.user(&new.key).await?, added)?;
    }
    Ok(())
}

async fn a_missing_user_is_not_found(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    fails(store.user(&ANN).await, &no_user(ANN))?;
    same(store.users(Page::first()).await?, vec![])?;
    store.add_user(user(BOB)).await?;
    fails(store.user(&ANN).await, &no_user(ANN))
}

async fn users_are_listed_in_byte_order_with_revoked_ones_marked(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    // Orders by signed byte, by locale or by nkey differ from this one.
    let keys = [0x00, 0x0a, 0x7f, 0x80, 0xa0, 0xff].map(user_key);
    let mut expected = Vec::new();
    for key in keys.into_iter().rev() {
        expected.insert(0, store.add_user(user(key)).await?);
    }
    for (position, when) in [(1, at(50)), (4, at(40))] {
        let Some(listed) = expected.get_mut(position) else { continue };
        store.revoke_user(&listed.key, when).await?;
        *listed = revoked(listed, when);
    }
    same(store.users(Page::first()).await?, expected.clone())?;
    let after_third = page(Some(user_key(0x7f)), 2);
    same(store.users(after_third).await?, expected.drain(3..5).collect())
}

async fn a_known_key_is_refused_and_its_record_untouched(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(user(ANN)).await?;
    store.add_user(admin(BOB)).await?;
    store.add_user(user(EVE)).await?;
    store.revoke_user(&EVE, at(5)).await?;
    for key in [ANN, BOB, EVE] {
        for again in [user(key), admin(key), NewUser { added_at: at(77), ..user(key) }] {
            everyone().refuses(&store, store.add_user(again), &user_exists(key)).await?;
        }
    }
    Ok(())
}

async fn a_known_key_is_refused_in_every_spelling(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(user(ANN)).await?;
    for text in spellings(ANN) {
        let again = admin(text.parse()?);
        everyone().refuses(&store, store.add_user(again), &user_exists(ANN)).await?;
    }
    Ok(())
}

async fn every_spelling_of_a_key_finds_the_same_user(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for added_as in spellings(ANN) {
        let added = match store.add_user(user(added_as.parse()?)).await {
            Ok(added) => added,
            // The first spelling has added the user.
            Err(_) => store.user(&ANN).await?,
        };
        for asked_as in spellings(ANN) {
            same(&store.user(&asked_as.parse()?).await?, &added)?;
        }
        same(store.users(Page::first()).await?, vec![added])?;
    }
    Ok(())
}

async fn a_label_comes_back_exactly(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let (longest, widest) = ("x".repeat(256), "🦀".repeat(64));
    let labels = [
        "",
        " ",
        "  two  ",
        "a\0b",
        "\n",
        "'; DROP TABLE users; --",
        "%s",
        "\u{e9}",
        "e\u{301}",
        "\u{feff}bom",
        "Ann",
        "ann",
        &longest,
        &widest,
    ];
    for (number, text) in (1..).zip(labels) {
        let new = NewUser { label: label(text), ..user(user_key(number)) };
        let added = store.add_user(new.clone()).await?;
        same(&added, &new.user())?;
        same(store.user(&new.key).await?, added)?;
    }
    let listed = store.users(Page::first()).await?;
    same(listed.iter().map(|user| user.label.as_str()).collect::<Vec<_>>(), labels.to_vec())
}

async fn a_users_times_come_back_exactly(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let times = [i64::MIN, -1, 0, 1, 1_700_000_000_001, (1 << 53) + 1, i64::MAX];
    for (number, millis) in (1..).zip(times) {
        let key = user_key(number);
        let added = store.add_user(NewUser { added_at: at(millis), ..user(key) }).await?;
        same(added.added_at, at(millis))?;
        // A revocation may be dated before the addition: a store does not judge timestamps.
        store.revoke_user(&key, at(millis.wrapping_neg())).await?;
        let expected = revoked(&added, at(millis.wrapping_neg()));
        same(store.user(&key).await?, expected)?;
    }
    Ok(())
}

async fn a_revocation_marks_the_user_and_touches_no_other(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ann = store.add_user(user(ANN)).await?;
    let bob = store.add_user(admin(BOB)).await?;
    let eve = store.add_user(user(EVE)).await?;
    store.revoke_user(&EVE, at(9)).await?;
    let eve = revoked(&eve, at(9));
    same(store.user(&EVE).await?, eve.clone())?;
    same(store.users(Page::first()).await?, vec![ann, bob, eve])
}

async fn revoking_twice_keeps_the_first_time(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ann = store.add_user(user(ANN)).await?;
    store.revoke_user(&ANN, at(9)).await?;
    for again in [at(9), at(10), at(8), at(i64::MAX)] {
        store.revoke_user(&ANN, again).await?;
        same(store.user(&ANN).await?, revoked(&ann, at(9)))?;
    }
    Ok(())
}

async fn revoking_by_another_spelling_revokes_the_same_user(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for (byte, spelling) in [(0xa1, 0), (0xa2, 1), (0xa3, 2), (0xa4, 3)] {
        let key = user_key(byte);
        let added = store.add_user(user(key)).await?;
        let texts = spellings(key);
        let text = texts.get(spelling).map_or("", String::as_str);
        store.revoke_user(&text.parse()?, at(3)).await?;
        same(store.user(&key).await?, revoked(&added, at(3)))?;
    }
    Ok(())
}

async fn revoking_an_unknown_user_is_not_found(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    everyone().refuses(&store, store.revoke_user(&EVE, at(1)), &no_user(EVE)).await?;
    store.add_user(admin(ANN)).await?;
    everyone().refuses(&store, store.revoke_user(&EVE, at(1)), &no_user(EVE)).await
}

async fn no_method_brings_a_revoked_user_back(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.add_user(user(ANN)).await?;
    store.revoke_user(&ANN, at(3)).await?;
    // While there is no admin, `bootstrap_admin` works, but must not bring the user back either.
    let refused = user_exists(ANN);
    everyone().refuses(&store, store.bootstrap_admin(admin(ANN)), &refused).await?;
    store.add_user(admin(BOB)).await?;
    store.add_user(admin(EVE)).await?;
    store.revoke_user(&EVE, at(4)).await?;
    let exists = Conflict::AdminExists.into();
    for key in [ANN, EVE] {
        everyone().refuses(&store, store.add_user(user(key)), &user_exists(key)).await?;
        everyone().refuses(&store, store.add_user(admin(key)), &user_exists(key)).await?;
        everyone().refuses(&store, store.bootstrap_admin(admin(key)), &exists).await?;
        let before = everyone().observe(&store).await?;
        store.revoke_user(&key, at(99)).await?;
        everyone().observe(&store).await?.unchanged_since(&before)?;
    }
    Ok(())
}

async fn the_last_active_admin_cannot_be_revoked(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ANN)).await?;
    store.add_user(user(BOB)).await?;
    let last = Conflict::LastAdmin.into();
    for when in [at(0), at(1)] {
        everyone().refuses(&store, store.revoke_user(&ANN, when), &last).await?;
    }
    same(store.is_admin(&ANN).await.is_allowed(), true)
}

async fn a_revoked_admin_does_not_count_as_an_active_one(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ANN)).await?;
    store.add_user(admin(BOB)).await?;
    store.revoke_user(&ANN, at(3)).await?;
    let last = Conflict::LastAdmin.into();
    everyone().refuses(&store, store.revoke_user(&BOB, at(4)), &last).await
}

async fn an_admin_can_be_revoked_once_there_is_another(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let ann = store.bootstrap_admin(admin(ANN)).await?;
    fails(store.revoke_user(&ANN, at(3)).await, &Conflict::LastAdmin.into())?;
    let bob = store.add_user(admin(BOB)).await?;
    store.revoke_user(&ANN, at(4)).await?;
    let after: Vec<User> = store.users(Page::first()).await?;
    same(after, vec![revoked(&ann, at(4)), bob])
}

async fn without_any_admin_a_user_can_be_revoked(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let eve = store.add_user(user(EVE)).await?;
    store.revoke_user(&EVE, at(3)).await?;
    same(store.user(&EVE).await?, revoked(&eve, at(3)))
}

async fn a_revoked_admin_can_be_revoked_again_while_one_admin_is_left(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ANN)).await?;
    store.add_user(admin(BOB)).await?;
    store.revoke_user(&BOB, at(3)).await?;
    let before = everyone().observe(&store).await?;
    // ANN is the last active admin. Revoking BOB again changes nothing, so it is allowed.
    store.revoke_user(&BOB, at(4)).await?;
    everyone().observe(&store).await?.unchanged_since(&before)
}

/// The users are added and revoked with every pair of timestamps, which must decide nothing.
async fn timestamps_do_not_decide_whether_a_user_is_authorized(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let mut number = 0;
    for added in MOMENTS {
        for gone in MOMENTS {
            number += 1;
            let new = NewUser { added_at: at(added), ..user(user_number(number)) };
            store.add_user(new.clone()).await?;
            same(store.is_authorized(&new.key).await, Decision::Allow)?;
            store.revoke_user(&new.key, at(gone)).await?;
            let denied = Decision::Deny(DenyReason::Revoked);
            same(store.is_authorized(&new.key).await, denied)?;
            same(store.user(&new.key).await?, revoked(&new.user(), at(gone)))?;
        }
    }
    same(store.users(Page::first()).await?.len(), MOMENTS.len() * MOMENTS.len())
}

async fn timestamps_do_not_decide_whether_a_user_is_an_admin(cx: Cx) -> Verdict {
    for when in MOMENTS {
        let cx = cx.another().await?;
        let store = cx.open().await?;
        let new = |key| NewUser { added_at: at(when), ..admin(key) };
        store.bootstrap_admin(new(ANN)).await?;
        same(store.has_admin().await?, true)?;
        same(store.is_admin(&ANN).await, Decision::Allow)?;
        fails(store.revoke_user(&ANN, at(when)).await, &Conflict::LastAdmin.into())?;
        store.add_user(new(BOB)).await?;
        store.revoke_user(&ANN, at(when)).await?;
        same(store.is_admin(&ANN).await, Decision::Deny(DenyReason::Revoked))?;
        same(store.is_admin(&BOB).await, Decision::Allow)?;
        fails(store.revoke_user(&BOB, at(when)).await, &Conflict::LastAdmin.into())?;
        same(store.has_admin().await?, true)?;
        cx.close_all().await;
    }
    Ok(())
}
