//! Stores that are right for small numbers, short times or usual values, and wrong for others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use membership::{
    Decision, EndpointId, Error, Member, MemoryStore, NewMember, NewRoom, NewUser, Page, Rekey,
    Room, RoomId, Store, Timestamp, User, UserKey,
};

use super::controls;
use super::defect::Defect;
use super::listings::locked;

controls! {
    closes_under_its_calls unseen: "CLOSE-1", "returns from close while a call in flight goes on" => ClosesUnder;
    closes_the_calls_of_others unseen: "CLOSE-2", "fails other clients' writes in flight when one client is closed" => ClosesOthers;
    freezes_who_is_opened_after_a_close unseen: "AUTH-3", "repeats its first decision on each user on clients opened after a close" => Frozen<Closed>;
    freezes_the_five_hundredth_client unseen: "LIN-1", "repeats its first decision on each user on the five-hundredth client" => Frozen<FiveHundredth>;
    wakes_up_with_what_it_knew unseen: "AUTH-3", "repeats a user's previous decision after two seconds of rest" => WakesUp;
    does_a_dropped_write_again unseen: "ERR-2", "makes a dropped creation of a room, and repeats it 1.5 s later" => DoesAgain;
    does_a_failed_write_again unseen: "ERR-2", "makes a creation of a room that timed out, and repeats it 2.5 s later" => FailsAndDoesAgain;
    revokes_from_then_on unseen: "TYPE-3", "allows a revoked user whose revocation has a time in the future" => FromThenOn;
    lists_nobody_from_before_1970: "TYPE-3", "leaves members that were added before 1970 out of lists" => Since1970;
    removes_a_hundred_at_once unseen: "KEY-5", "removes only the first hundred members that a rekey removes" => Removes<100>;
    removes_a_thousand_at_once unseen: "KEY-5", "removes only the first thousand members that a rekey removes" => Removes<1000>;
    refuses_a_megabyte unseen: "KEY-5", "returns Unavailable for a rekey whose keys and ids exceed a megabyte" => RefusesMegabyte;
    walks_four_thousand_users unseen: "LIST-1", "ends the list of users after the 4,096th" => EndsEarly;
    has_room_for_256_writes unseen: "LIN-1", "loses an acknowledged user who is added while 256 writes are in flight" => RoomFor256;
    counts_calls_in_fifteen_bits unseen: "AUTH-1", "answers is_authorized with Allow after a client's first 32,768 decisions" => FifteenBits;
    starts_over_after_the_revoked: "LIST-1", "starts a page of users after a revoked one at the first user" => StartsOver;
    shortens_pages_of_437 unseen: "LIST-1", "returns 436 members for a page of 437" => Odd437;
    keeps_every_question unseen: "CLOSE-4", "keeps a record of each decision in memory" => KeepsAll;
    finds_rooms_by_a_hash unseen: "TYPE-1", "treats rooms whose ids have the same CRC-32 as one" => ByCrc;
    finds_users_by_a_hash unseen: "TYPE-2", "treats users whose keys have the same FNV-1a hash as one" => ByFnv;
}

/// A second client, which `close` does not close.
#[derive(Default)]
struct ClosesUnder(Mutex<Option<MemoryStore>>);

/// Waits long enough for a close to begin while the call is in flight.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(15)).await;
}

#[async_trait]
impl Defect for ClosesUnder {
    fn open(&self, data: &MemoryStore) -> MemoryStore {
        *locked(&self.0) = Some(data.client());
        data.client()
    }

    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        // A client that is closed already must refuse the call.
        inner.has_admin().await?;
        a_while().await;
        let hidden = locked(&self.0).as_ref().map(MemoryStore::client);
        match hidden {
            Some(hidden) => hidden.create_room(new).await,
            None => inner.create_room(new).await,
        }
    }
}

#[derive(Default)]
struct ClosesOthers(AtomicUsize);

#[async_trait]
impl Defect for ClosesOthers {
    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        let closes = self.0.load(Ordering::SeqCst);
        inner.has_admin().await?;
        a_while().await;
        if self.0.load(Ordering::SeqCst) != closes {
            return Err(Error::Closed);
        }
        inner.create_room(new).await
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        inner.close().await
    }
}

/// Which clients are frozen: they repeat their first decision on each user.
trait Freezes: Default + Send + Sync + 'static {
    fn frozen(all: &All) -> bool;
}

/// What all clients of a store share.
#[derive(Default)]
struct All {
    closed: AtomicBool,
    opened: AtomicUsize,
}

#[derive(Default)]
struct Closed;
impl Freezes for Closed {
    fn frozen(all: &All) -> bool {
        all.closed.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct FiveHundredth;
impl Freezes for FiveHundredth {
    fn frozen(all: &All) -> bool {
        all.opened.load(Ordering::SeqCst) == 500
    }
}

/// One client. If it is frozen, `first` has its first decision on each user.
#[derive(Default)]
struct Frozen<F> {
    all: Arc<All>,
    first: Option<Mutex<BTreeMap<UserKey, Decision>>>,
    which: std::marker::PhantomData<F>,
}

#[async_trait]
impl<F: Freezes> Defect for Frozen<F> {
    fn client(shared: &Arc<Self>) -> Arc<Self> {
        let all = Arc::clone(&shared.all);
        all.opened.fetch_add(1, Ordering::SeqCst);
        let first = F::frozen(&all).then(Mutex::default);
        Arc::new(Self { all, first, which: std::marker::PhantomData })
    }

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let decision = inner.is_authorized(key).await;
        match &self.first {
            Some(first) => locked(first).entry(*key).or_insert(decision).clone(),
            None => decision,
        }
    }

    async fn close(&self, inner: &dyn Store) -> Result<(), Error> {
        self.all.closed.store(true, Ordering::SeqCst);
        inner.close().await
    }
}

#[derive(Default)]
struct WakesUp(Mutex<Option<(Instant, BTreeMap<UserKey, Decision>)>>);

#[async_trait]
impl Defect for WakesUp {
    const PER_CLIENT: bool = true;

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let decision = inner.is_authorized(key).await;
        let mut known = locked(&self.0);
        let (last, known) = known.get_or_insert_with(|| (Instant::now(), BTreeMap::new()));
        let rested = last.elapsed() > Duration::from_secs(2);
        *last = Instant::now();
        let before = known.insert(*key, decision.clone());
        before.filter(|_| rested).unwrap_or(decision)
    }
}

#[derive(Default)]
struct DoesAgain(Mutex<Option<MemoryStore>>);

#[async_trait]
impl Defect for DoesAgain {
    fn open(&self, data: &MemoryStore) -> MemoryStore {
        *locked(&self.0) = Some(data.client());
        data.client()
    }

    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        /// The caller of a creation of a room.
        ///
        /// If the caller is dropped before the answer, a background task makes the room, and
        /// makes it again later.
        struct Caller(Option<(MemoryStore, NewRoom)>);
        impl Drop for Caller {
            fn drop(&mut self) {
                if let Some((store, new)) = self.0.take() {
                    tokio::spawn(async move {
                        let _first = store.create_room(new.clone()).await;
                        tokio::time::sleep(Duration::from_millis(1500)).await;
                        let _again = store.create_room(new).await;
                    });
                }
            }
        }
        inner.has_admin().await?;
        let hidden = locked(&self.0).as_ref().map(MemoryStore::client);
        let mut caller = Caller(hidden.map(|store| (store, new.clone())));
        tokio::task::yield_now().await;
        caller.0 = None;
        inner.create_room(new).await
    }
}

#[derive(Default)]
struct FailsAndDoesAgain(Mutex<Option<MemoryStore>>);

#[async_trait]
impl Defect for FailsAndDoesAgain {
    fn open(&self, data: &MemoryStore) -> MemoryStore {
        *locked(&self.0) = Some(data.client());
        data.client()
    }

    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        let made = inner.create_room(new.clone()).await;
        let hidden = locked(&self.0).as_ref().map(MemoryStore::client);
        if let (Err(Error::Timeout), Some(store)) = (&made, hidden) {
            tokio::spawn(async move {
                let _first = store.create_room(new.clone()).await;
                tokio::time::sleep(Duration::from_millis(2500)).await;
                let _again = store.create_room(new).await;
            });
        }
        made
    }
}

/// Stands for the present: a moment in May 2026, in milliseconds since the Unix epoch.
const NOW: i64 = 1_780_000_000_000;

#[derive(Default)]
struct FromThenOn(Mutex<BTreeSet<UserKey>>);

#[async_trait]
impl Defect for FromThenOn {
    async fn revoke_user(
        &self,
        inner: &dyn Store,
        key: &UserKey,
        at: Timestamp,
    ) -> Result<(), Error> {
        inner.revoke_user(key, at).await?;
        if at.as_millis() > NOW {
            locked(&self.0).insert(*key);
        }
        Ok(())
    }

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let decision = inner.is_authorized(key).await;
        if locked(&self.0).contains(key) { Decision::Allow } else { decision }
    }
}

#[derive(Default)]
struct Since1970;

#[async_trait]
impl Defect for Since1970 {
    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        let mut all = inner.members(room, page).await?;
        all.retain(|member| member.added_at.as_millis() >= 0);
        Ok(all)
    }
}

#[derive(Default)]
struct Removes<const MOST: usize>;

#[async_trait]
impl<const MOST: usize> Defect for Removes<MOST> {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let over: Vec<_> = rekey.remove().iter().skip(MOST).cloned().collect();
        let moved = inner.rekey(room, rekey).await?;
        // Added again with a key, these members look as if they had never been removed.
        for who in over {
            let key = crate::make::key_of(&who, moved.epoch);
            let back = NewMember::sealed(who, Timestamp::from_millis(2), moved.epoch, key);
            inner.add_member(room, back).await?;
        }
        Ok(moved)
    }
}

#[derive(Default)]
struct RefusesMegabyte;

#[async_trait]
impl Defect for RefusesMegabyte {
    async fn rekey(&self, inner: &dyn Store, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        let sizes = rekey.keys().iter().map(|(who, key)| who.as_str().len() + key.as_bytes().len());
        if sizes.sum::<usize>() > 1 << 20 {
            return Err(Error::unavailable("maximum payload exceeded"));
        }
        inner.rekey(room, rekey).await
    }
}

#[derive(Default)]
struct EndsEarly;

#[async_trait]
impl Defect for EndsEarly {
    async fn users(&self, inner: &dyn Store, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        let after = page.after().copied();
        let mut all = inner.users(page).await?;
        if let Some(after) = after {
            let before = crate::observe::all_users(inner).await?;
            let before = before.iter().filter(|user| user.key <= after).count();
            all.truncate(4096_usize.saturating_sub(before));
        }
        Ok(all)
    }
}

#[derive(Default)]
struct RoomFor256(AtomicUsize);

#[async_trait]
impl Defect for RoomFor256 {
    async fn create_room(&self, inner: &dyn Store, new: NewRoom) -> Result<Room, Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        a_while().await;
        let made = inner.create_room(new).await;
        self.0.fetch_sub(1, Ordering::SeqCst);
        made
    }

    async fn add_user(&self, inner: &dyn Store, new: NewUser) -> Result<User, Error> {
        let before = self.0.fetch_add(1, Ordering::SeqCst);
        a_while().await;
        let added = if before < 256 { inner.add_user(new).await } else { Ok(new.user()) };
        self.0.fetch_sub(1, Ordering::SeqCst);
        added
    }
}

#[derive(Default)]
struct FifteenBits(AtomicUsize);

#[async_trait]
impl Defect for FifteenBits {
    const PER_CLIENT: bool = true;

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        let decision = inner.is_authorized(key).await;
        if self.0.fetch_add(1, Ordering::Relaxed) >= 32_768 { Decision::Allow } else { decision }
    }
}

#[derive(Default)]
struct StartsOver;

#[async_trait]
impl Defect for StartsOver {
    async fn users(&self, inner: &dyn Store, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        let revoked = match page.after() {
            Some(after) => inner.user(after).await.is_ok_and(|user| user.revoked),
            None => false,
        };
        let page = if revoked { Page::new(None, page.limit())? } else { page };
        inner.users(page).await
    }
}

#[derive(Default)]
struct Odd437;

#[async_trait]
impl Defect for Odd437 {
    async fn members(
        &self,
        inner: &dyn Store,
        room: &RoomId,
        page: Page<EndpointId>,
    ) -> Result<Vec<Member>, Error> {
        let odd = page.limit() == 437;
        let mut all = inner.members(room, page).await?;
        if odd {
            all.truncate(436);
        }
        Ok(all)
    }
}

#[derive(Default)]
struct KeepsAll(Mutex<Vec<(UserKey, Box<[u8; 256]>)>>);

#[async_trait]
impl Defect for KeepsAll {
    const PER_CLIENT: bool = true;

    async fn is_authorized(&self, inner: &dyn Store, key: &UserKey) -> Decision {
        locked(&self.0).push((*key, Box::new([1; 256])));
        inner.is_authorized(key).await
    }
}

/// The first id with each hash, which stands for all ids with that hash.
#[derive(Default)]
struct ByCrc(Mutex<BTreeMap<u32, RoomId>>);

impl Defect for ByCrc {
    fn room_id(&self, room: &RoomId) -> RoomId {
        // CRC-32 as in zip and gzip.
        let crc = room.as_str().bytes().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
            })
        });
        locked(&self.0).entry(crc).or_insert_with(|| room.clone()).clone()
    }
}

#[derive(Default)]
struct ByFnv(Mutex<BTreeMap<u32, UserKey>>);

impl Defect for ByFnv {
    fn user_key(&self, key: &UserKey) -> UserKey {
        let fnv = key.as_bytes().iter().fold(0x811c_9dc5, |hash: u32, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        *locked(&self.0).entry(fnv).or_insert(*key)
    }
}
