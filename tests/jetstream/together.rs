//! Concurrent calls: which of them win, and what other clients see meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use membership::{
    Ciphertext, Conflict, EndpointId, Epoch, Error, JetStreamStore, Label, Member, NewMember,
    NewRoom, NewUser, Page, Rekey, RoomId, Store, Timestamp, UserKey,
};
use tokio::task::JoinSet;

use crate::rng::Rng;
use crate::server::Server;

fn at() -> Timestamp {
    Timestamp::from_millis(1)
}

fn cipher(text: &str) -> Ciphertext {
    Ciphertext::new(text).unwrap()
}

fn who(n: usize) -> EndpointId {
    format!("endpoint {n}").parse().unwrap()
}

pub(crate) async fn make_room(store: &dyn Store, room: &RoomId, members: usize) {
    let new = NewRoom::encrypted(room.clone(), who(0), at(), cipher("0 at 1"));
    store.create_room(new).await.unwrap();
    for n in 1..members {
        let new = NewMember::sealed(who(n), at(), Epoch::FIRST, cipher(&format!("{n} at 1")));
        store.add_member(room, new).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_rekeys_one_wins_with_all_its_keys() {
    let server = Server::start().await;
    let mut stores: Vec<Arc<JetStreamStore>> = Vec::new();
    for _ in 0..3 {
        stores.push(Arc::new(server.open("r-").await));
    }
    let room: RoomId = "ops".parse().unwrap();
    make_room(&*stores[0], &room, 5).await;
    for from in 1..12 {
        let mut tasks = JoinSet::new();
        for n in 0..16 {
            let (store, room) = (Arc::clone(&stores[n % 3]), room.clone());
            tasks.spawn(async move {
                let keys = (0..5).map(|e| (who(e), cipher(&format!("{n}: {e} at {}", from + 1))));
                let rekey = Rekey::new(Epoch::new(from).unwrap(), [], keys).unwrap();
                (n, store.rekey(&room, rekey).await)
            });
        }
        let mut winner = None;
        while let Some(done) = tasks.join_next().await {
            match done.unwrap() {
                (n, Ok(room)) => {
                    assert_eq!(room.epoch.get(), from + 1);
                    assert_eq!(winner.replace(n), None, "two winners");
                }
                (_, error) => {
                    let current = Epoch::new(from + 1).unwrap();
                    assert_eq!(error, Err(Error::StaleEpoch { current }));
                }
            }
        }
        let winner = winner.expect("nobody won");
        for e in 0..5 {
            let key = stores[1].latest_key(&room, &who(e)).await.unwrap();
            assert_eq!(key.ciphertext, cipher(&format!("{winner}: {e} at {}", from + 1)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_only_whole_states() {
    let server = Server::start().await;
    let mut rng = Rng::new("whole states");
    let done = Arc::new(AtomicBool::new(false));
    let room: RoomId = "ops".parse().unwrap();
    let other: RoomId = "other".parse().unwrap();
    let store = Arc::new(server.open("w-").await);
    make_room(&*store, &room, 3).await;
    store.create_room(NewRoom::unencrypted(other.clone(), who(1), at())).await.unwrap();
    let mut writers = JoinSet::new();
    for _ in 0..3 {
        let (store, room, mut rng) = (server.open("w-").await, room.clone(), rng.fork());
        writers.spawn(async move {
            for _ in 0..150 {
                change(&store, &room, &mut rng).await;
            }
        });
    }
    let mut readers = JoinSet::new();
    for n in 0..3 {
        let (store, done) = (server.open("w-").await, Arc::clone(&done));
        let room = room.clone();
        readers.spawn(async move {
            let mut seen = 0;
            while !done.load(Ordering::SeqCst) {
                look(&store, &room).await;
                seen += 1;
            }
            println!("reader {n} looked {seen} times");
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
}

/// Makes a random change, and accepts only errors that a race explains.
async fn change(store: &JetStreamStore, room: &RoomId, rng: &mut Rng) {
    let n = 1 + rng.below(5);
    let outcome = match rng.below(8) {
        0..=2 => {
            let epoch = match store.room(room).await {
                Ok(room) => room.epoch,
                Err(_) => return,
            };
            let new = NewMember::sealed(who(n), at(), epoch, cipher("new"));
            store.add_member(room, new).await.map(drop)
        }
        3 | 4 => store.remove_member(room, &who(n)).await,
        5 if rng.below(4) == 0 => store.delete_room(room).await,
        5 => {
            let new = NewRoom::encrypted(room.clone(), who(0), at(), cipher("0"));
            store.create_room(new).await.map(drop)
        }
        _ => {
            let (Ok(now), Ok(members)) =
                (store.room(room).await, store.members(room, Page::first()).await)
            else {
                return;
            };
            let (remove, keep): (Vec<_>, Vec<_>) =
                members.into_iter().map(|member| member.endpoint).partition(|e| *e == who(n));
            let keys = keep.into_iter().map(|e| (e, cipher("rekeyed")));
            let rekey = Rekey::new(now.epoch, remove, keys).unwrap();
            store.rekey(room, rekey).await.map(drop)
        }
    };
    match outcome {
        Ok(())
        | Err(
            Error::NotFound(_)
            | Error::AlreadyExists(_)
            | Error::StaleEpoch { .. }
            | Error::Conflict(Conflict::KeysMismatch { .. }),
        ) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Checks laws that hold in every state.
async fn look(store: &JetStreamStore, room: &RoomId) {
    // LIST-2, MEM-4: a room has one owner, whose id is the first one here.
    match store.members(room, Page::first()).await {
        Ok(members) => {
            assert_eq!(members[0].endpoint, who(0));
            let all: BTreeSet<_> = members.iter().map(|member| &member.endpoint).collect();
            assert_eq!(all.len(), members.len());
        }
        Err(Error::NotFound(_)) => {}
        Err(error) => panic!("{error}"),
    }
    // LIST-4: an endpoint that never leaves a room is always in it.
    let rooms = store.rooms_of(&who(1), Page::first()).await.unwrap();
    assert!(rooms.iter().any(|room| room.id.as_str() == "other"), "{rooms:?}");
    // KEY-1: the owner has a key as long as there is a room.
    match store.latest_key(room, &who(0)).await {
        Ok(_) => {}
        Err(Error::NotFound(record)) => {
            let no_room = format!("{record}").starts_with("room");
            assert!(no_room, "the owner has no key: {record}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_admins_who_revoke_each_other_one_stays() {
    let server = Server::start().await;
    let stores = [server.open("a-").await, server.open("a-").await];
    let user = |n: u8| NewUser {
        key: UserKey::from_bytes([n; 32]),
        label: Label::new("admin").unwrap(),
        admin: true,
        added_at: at(),
    };
    let (a, b) =
        tokio::join!(stores[0].bootstrap_admin(user(0)), stores[1].bootstrap_admin(user(255)));
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let mut last = if a.is_ok() { 0 } else { 255 };
    for n in 1..60 {
        stores[0].add_user(user(n)).await.unwrap();
        let (old, new) = (UserKey::from_bytes([last; 32]), UserKey::from_bytes([n; 32]));
        let (a, b) =
            tokio::join!(stores[0].revoke_user(&old, at()), stores[1].revoke_user(&new, at()));
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        assert!(stores[n as usize % 2].has_admin().await.unwrap());
        if a.is_ok() {
            last = n;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_seen_by_the_next_read_of_another_client() {
    let server = Server::start().await;
    let (a, b) = (server.open("n-").await, server.open("n-").await);
    let room: RoomId = "ops".parse().unwrap();
    make_room(&a, &room, 1).await;
    for n in 1..300_usize {
        let new = NewMember::sealed(who(n), at(), Epoch::FIRST, cipher("x"));
        a.add_member(&room, new).await.unwrap();
        assert!(b.member(&room, &who(n)).await.is_ok());
        assert_eq!(b.rooms_of(&who(n), Page::first()).await.unwrap().len(), 1);
        let key = UserKey::from_bytes([u8::try_from(n % 250).unwrap(); 32]);
        if n < 250 {
            let label = Label::new("u").unwrap();
            let user = NewUser { key, label, admin: n == 1, added_at: at() };
            b.add_user(user).await.unwrap();
            assert!(a.is_authorized(&key).await.is_allowed());
            if n > 1 {
                a.revoke_user(&key, at()).await.unwrap();
                assert!(!b.is_authorized(&key).await.is_allowed());
            }
        }
        a.remove_member(&room, &who(n)).await.unwrap();
        assert!(b.latest_key(&room, &who(n)).await.is_err());
        assert_eq!(b.rooms_of(&who(n), Page::first()).await.unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_calls_leave_whole_states() {
    let server = Server::start().await;
    let mut rng = Rng::new("dropped");
    let store = server.open("d-").await;
    let room: RoomId = "ops".parse().unwrap();
    make_room(&store, &room, 3).await;
    for _ in 0..400 {
        let micros = rng.below(3000) as u64;
        let change = change(&store, &room, &mut rng);
        let _ = tokio::time::timeout(Duration::from_micros(micros), change).await;
        look_alone(&store, &room).await;
    }
}

/// Checks the room after a call was dropped. That call may take effect between two reads (LIN-1).
/// If so, the members have changed between the reads, too.
async fn look_alone(store: &JetStreamStore, room: &RoomId) {
    let mut members = members(store, room).await;
    while let Err(torn) = agree_with(&members, store, room).await {
        let now = self::members(store, room).await;
        assert_ne!(now, members, "{torn}");
        members = now;
    }
}

/// The members of a room; none if there is no such room.
async fn members(store: &JetStreamStore, room: &RoomId) -> Vec<Member> {
    match store.members(room, Page::first()).await {
        Ok(members) => members,
        Err(Error::NotFound(_)) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// Checks that each of these members has its key and its index entry.
async fn agree_with(
    members: &[Member],
    store: &JetStreamStore,
    room: &RoomId,
) -> Result<(), String> {
    for member in members {
        match store.latest_key(room, &member.endpoint).await {
            Ok(_) => {}
            Err(Error::NotFound(missing)) => return Err(format!("no {missing} for {member:?}")),
            Err(error) => panic!("{error}"),
        }
        let rooms = store.rooms_of(&member.endpoint, Page::first()).await.unwrap();
        if rooms.len() != 1 {
            return Err(format!("{rooms:?} of {member:?}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rooms_are_listed_rekeyed_and_emptied() {
    let server = Server::start().await;
    let store = Arc::new(server.open("l-").await);
    let room: RoomId = "big".parse().unwrap();
    make_room(&*store, &room, 1).await;
    let all = 2500;
    for n in 1..all {
        let new = NewMember::sealed(who(n), at(), Epoch::FIRST, cipher("x"));
        store.add_member(&room, new).await.unwrap();
    }
    let mut expected: Vec<EndpointId> = (0..all).map(who).collect();
    expected.sort();
    let mut walked = Vec::new();
    loop {
        let page = walked.last().cloned().map_or_else(Page::first, Page::after_id);
        let members = store.members(&room, page).await.unwrap();
        if members.is_empty() {
            break;
        }
        walked.extend(members.into_iter().map(|member| member.endpoint));
    }
    assert_eq!(walked, expected);
    // There are more removals than one batch holds.
    let (keep, remove) = expected.split_at(3);
    let (keep, remove) = (keep.to_vec(), remove.to_vec());
    let keys = keep.iter().map(|e| (e.clone(), cipher("2")));
    let rekey = Rekey::new(Epoch::FIRST, remove.clone(), keys).unwrap();
    assert_eq!(store.rekey(&room, rekey).await.unwrap().epoch.get(), 2);
    let left = store.members(&room, Page::first()).await.unwrap();
    assert_eq!(left.into_iter().map(|m| m.endpoint).collect::<Vec<_>>(), keep);
    for e in &remove[..20] {
        assert!(matches!(store.key(&room, e, Epoch::FIRST).await, Err(Error::NotFound(_))));
        assert!(store.rooms_of(e, Page::first()).await.unwrap().is_empty());
    }
    let back = NewMember::sealed(remove[0].clone(), at(), Epoch::new(2).unwrap(), cipher("back"));
    store.add_member(&room, back).await.unwrap();
    assert_eq!(store.latest_key(&room, &remove[0]).await.unwrap().ciphertext, cipher("back"));
    store.close().await.unwrap();
}
