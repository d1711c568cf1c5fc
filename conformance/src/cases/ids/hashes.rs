//! Ids that collide under a common 32-bit hash: a store that keeps hashes takes them for the same.

use membership::{Decision, DenyReason, NewRoom, Page, Store};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{
    at, endpoint, joins, member_of, no_member, no_room, plain, room, user, user_number,
};
use crate::verdict::{Verdict, fails, same};

declare! { "ids";
    ids_that_collide_under_a_common_hash_stay_apart: "TYPE-1" "ROOM-2" "MEM-2" "LIST-4";
    users_whose_keys_collide_under_a_common_hash_stay_apart: "TYPE-2" "AUTH-1" "USER-2";
}

/// A collision of each kind under one hash function.
///
/// The function's name, two ids that collide, the numbers of two users whose keys collide, and the
/// numbers of two users whose keys' canonical texts collide.
type Meeting = (&'static str, [&'static str; 2], [u64; 2], [u64; 2]);

/// Collisions that a search found, under each function with its usual start value.
const MEETINGS: [Meeting; 11] = [
    (
        "FNV-1",
        ["kb6e8a25", "i67snlp7"],
        [0x9_2621_044a, 0xbb_37c8_75f1],
        [0xe_bb47_0243, 0x44_fda4_5b18],
    ),
    (
        "FNV-1a",
        ["cav70mmz", "thnfcbwc"],
        [0x84_db84_011c, 0x96_5956_5edb],
        [0x26_7d2c_8f46, 0xad_7c47_ee48],
    ),
    (
        "CRC-32",
        ["mzmpzfgo", "xog2zhpp"],
        [0xb3_6eba_58f5, 0x7b_ecf0_e760],
        [0x51_7004_407d, 0x68_968c_5e76],
    ),
    (
        "CRC-32C",
        ["gigqk4m4", "1u9wqmov"],
        [0x1f_dadb_4d27, 0x24_5039_278e],
        [0x3b_2179_0e1f, 0x87_5a6a_f354],
    ),
    (
        "Adler-32",
        ["tzm58rqg", "jeamn6gj"],
        [0xe5_cdf3_e2b8, 0xf3_ddda_ace9],
        [0x30_3e2b_a67f, 0x1f_3753_a2be],
    ),
    (
        "times 31, as in Java",
        ["tipb4162", "xav2a1j5"],
        [0x2f_fa7b_bff9, 0x36_2099_def9],
        [0x27_6577_dcbe, 0xc_c160_875a],
    ),
    (
        "djb2",
        ["sva7fune", "rect6wik"],
        [0xf2_a095_6287, 0xf5_4031_81c9],
        [0xbf_a5b8_1d65, 0x19_736e_e497],
    ),
    (
        "djb2 with xor",
        ["9hxb5vhy", "msnp310k"],
        [0x90_6e39_ceff, 0x94_eb1f_3600],
        [0xf0_6114_d0fb, 0x10_b812_b934],
    ),
    (
        "sdbm",
        ["11xwzt5l", "7ecbjfls"],
        [0x5f_173b_9c66, 0x6e_10d4_1b36],
        [0xc_33d0_60a7, 0xed_cb33_67e5],
    ),
    (
        "MurmurHash3",
        ["vk1ombpl", "ucd2byvz"],
        [0x91_116e_62ae, 0xb9_5667_b2d1],
        [0xf5_8a9a_9578, 0xde_429d_ab89],
    ),
    (
        "xxHash32",
        ["imhgiki2", "wk3j9m8q"],
        [0xd2_b9e0_4b14, 0xf4_8ac0_77d5],
        [0xc2_cb92_af55, 0x9d_4d4a_8405],
    ),
];

async fn ids_that_collide_under_a_common_hash_stay_apart(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    for (_, [one, other], ..) in MEETINGS {
        store.create_room(plain(one, one)).await?;
        fails(store.room(&room(other)).await, &no_room(other))?;
        fails(store.member(&room(one), &endpoint(other)).await, &no_member(one, other))?;
        same(store.rooms_of(&endpoint(other), Page::first()).await?, vec![])?;
        let new = NewRoom::unencrypted(room(other), endpoint(other), at(7));
        same(store.create_room(new.clone()).await?, new.room())?;
        same(store.add_member(&room(one), joins(other)).await?, member_of(one, other, 0))?;
        same(store.room(&room(one)).await?, plain(one, one).room())?;
        same(store.room(&room(other)).await?, new.room())?;
        let listed = store.rooms_of(&endpoint(one), Page::first()).await?;
        same(listed, vec![plain(one, one).room()])?;
        same(store.members(&room(one), Page::first()).await?.len(), 2)?;
        store.remove_member(&room(one), &endpoint(other)).await?;
        store.delete_room(&room(one)).await?;
        same(store.room(&room(other)).await?, new.room())?;
        same(store.rooms_of(&endpoint(other), Page::first()).await?, vec![new.room()])?;
    }
    Ok(())
}

async fn users_whose_keys_collide_under_a_common_hash_stay_apart(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    let pairs = MEETINGS.iter().flat_map(|(_, _, bytes, text)| [bytes, text]);
    for [one, other] in pairs.map(|pair| pair.map(user_number)) {
        store.add_user(user(one)).await?;
        same(store.is_authorized(&other).await, Decision::Deny(DenyReason::Unknown))?;
        same(store.add_user(user(other)).await?, user(other).user())?;
        store.revoke_user(&one, at(3)).await?;
        same(store.is_authorized(&other).await, Decision::Allow)?;
        same(store.is_authorized(&one).await, Decision::Deny(DenyReason::Revoked))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes the simplest of the hash functions, to check their rows of the table. `None` for
    /// the other functions.
    fn hash(name: &str, bytes: &[u8]) -> Option<u32> {
        let times = |start: u32, factor: u32| {
            bytes
                .iter()
                .fold(start, |hash, byte| hash.wrapping_mul(factor).wrapping_add(u32::from(*byte)))
        };
        Some(match name {
            "FNV-1" => bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
                hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte)
            }),
            "FNV-1a" => bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
                (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
            }),
            "times 31, as in Java" => times(0, 31),
            "djb2" => times(5381, 33),
            "sdbm" => times(0, 65_599),
            _ => return None,
        })
    }

    #[test]
    fn they_meet() {
        let mut met = 0;
        for (name, ids, bytes, text) in MEETINGS {
            let keys = bytes.map(user_number).map(|key| key.as_bytes().to_vec());
            let texts = text.map(user_number).map(|key| key.to_string().into_bytes());
            for pair in [ids.map(|id| id.as_bytes().to_vec()), keys, texts] {
                let [one, other] = pair;
                assert_ne!(one, other);
                assert_eq!(hash(name, &one), hash(name, &other), "{name}");
                met += usize::from(hash(name, &one).is_some());
            }
        }
        assert_eq!(met, 15);
    }
}
