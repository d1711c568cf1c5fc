use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::decision::{self, Standing};
use crate::jetstream::calls::Calls;
use crate::jetstream::config::{JetStreamConfig, ReadMode, check_replicas};
use crate::jetstream::counters::Counters;
use crate::jetstream::defect::JetStreamDefect;
use crate::jetstream::gateway::backoff::Pause;
use crate::jetstream::gateway::barrier::{Barriers, Sender};
use crate::jetstream::gateway::bucket_client::BucketClient;
use crate::jetstream::gateway::exchange::Servers;
#[cfg(feature = "testing")]
use crate::jetstream::gateway::fuse::Fused;
use crate::jetstream::gateway::nats::NatsServers;
use crate::jetstream::gateway::resize::{self, BucketProgress};
use crate::jetstream::gateway::settings_watch::SettingsWatch;
use crate::jetstream::gateway::tries::Gateway;
use crate::jetstream::gateway::{provision, server_version};
use crate::jetstream::room::add::MOST_MEMBERS;
use crate::jetstream::room::room_client::RoomClient;
use crate::jetstream::stored::bucket::{Bucket, PerBucket};
use crate::jetstream::user::copy_proof::{CopyProof, renew, users_barrier};
use crate::jetstream::user::user_client::UserClient;
use crate::jetstream::user::users_copy::UsersCopy;
use crate::mutation::Mutation;
use crate::trace::{Span, span};
use crate::{
    Decision, EndpointId, Epoch, Error, Member, NewMember, NewRoom, NewUser, Page, Rekey, Room,
    RoomId, SealedKey, Store, Timestamp, User, UserKey,
};

/// How many times `op_timeout` a long call may take (clause TIME-1).
pub(super) const LONG: u32 = 10;

/// A [`Store`] on one to five NATS servers with JetStream: linearizable, and fail closed.
///
/// The store needs nats-server 2.12.1 or later. Acknowledged writes survive the loss of a minority of the servers. Such
/// writes survive power cuts only if the servers run with `sync_interval: always`. By default JetStream syncs to disk
/// every two minutes. A write that one server then loses in a power cut is gone for good if another server that had it
/// is lost later.
///
/// Background tasks run in the tokio runtime in which [`open`](Self::open) was called. These tasks end with
/// [`close`](Store::close), or when the store is dropped.
pub struct JetStreamStore {
    pub(super) buckets: Arc<BucketClient>,
    pub(super) rooms: Arc<RoomClient>,
    users: UserClient,
    calls: Calls,
    op_timeout: Duration,
    pub(super) freshness: Freshness,
    counters: Counters,
    #[cfg(feature = "testing")]
    pub(super) fused: Arc<Fused>,
}

/// How a decision proves that the copy of the users is fresh enough.
pub(super) enum Freshness {
    /// By a barrier sent after the call began.
    Proved,
    /// By a barrier sent less than this long ago.
    Recent { bound: Duration, proof: Arc<CopyProof>, renewal: AbortHandle },
}

impl JetStreamStore {
    /// The most members of a room. An addition beyond them is [`RoomFull`](crate::Conflict::RoomFull) (clause MEM-1).
    pub const MAX_MEMBERS: u64 = MOST_MEMBERS;

    /// Connects to the servers, makes the five buckets if they are absent, and checks buckets that exist. Takes at most
    /// ten times `op_timeout`.
    ///
    /// # Errors
    ///
    /// - [`Invalid`](Error::Invalid) for a setting outside its limits, a server before 2.12.1, more replicas than
    ///   servers, and a bucket whose settings would break the contract.
    /// - [`Corrupt`](Error::Corrupt) for buckets of another format or another program.
    /// - [`Unavailable`](Error::Unavailable) if no server answers, or if the server refuses the credentials or has no
    ///   JetStream.
    pub async fn open(config: JetStreamConfig) -> Result<Self, Error> {
        let span = span!("open", servers = config.shown_servers(), prefix = config.prefix);
        span.call(Box::pin(Self::start(config, Mutation::NONE))).await
    }

    pub(super) async fn start(
        config: JetStreamConfig,
        mutation: Mutation<JetStreamDefect>,
    ) -> Result<Self, Error> {
        config.check()?;
        let begun = Instant::now();
        let (connected, deadline) = (begun + config.op_timeout, begun + config.op_timeout * LONG);
        let servers = Arc::new(NatsServers::connect(&config, mutation, connected).await?);
        server_version::check_version(&servers.server_version())?;
        servers.greet(connected).await?;
        Self::open_on(servers, config, mutation, deadline).await
    }

    /// Opens a client of these servers before the deadline.
    pub(super) async fn open_on(
        servers: Arc<dyn Servers>,
        config: JetStreamConfig,
        mutation: Mutation<JetStreamDefect>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        #[cfg(feature = "testing")]
        let fused = Arc::new(Fused::new(servers));
        #[cfg(feature = "testing")]
        let servers: Arc<dyn Servers> = Arc::<Fused>::clone(&fused);
        let counters = Counters::default();
        let proof = Arc::new(CopyProof::new(servers.clock(), mutation));
        let gateway =
            Arc::new(Gateway::new(servers, config.op_timeout, counters.clone(), mutation)?);
        let (prefix, replicas) = (&config.prefix, config.replicas);
        let provisioned =
            provision::all(&gateway, prefix, replicas, config.must_exist, deadline).await;
        let id = provisioned.map_err(|error| gateway.explain(error))?;

        let users = Arc::new(UsersCopy::of(id));
        let sink = Arc::<UsersCopy>::clone(&users);
        // The filter matches keys of one token, which are all keys but those of barriers.
        users.set_kick(gateway.feed(Bucket::Users, "*", sink));
        let watch = SettingsWatch::begin(&gateway, config.prefix.clone());
        let barriers = PerBucket::new(|bucket| {
            let send = match bucket {
                Bucket::Users => {
                    users_barrier(Arc::clone(&gateway), Arc::clone(&users), Arc::clone(&proof))
                }
                _ => barrier(&gateway, bucket),
            };
            Barriers::new(bucket, send, config.op_timeout, counters.clone(), mutation)
        });
        let op_timeout = config.op_timeout;
        let copy = Arc::clone(&users);
        let is_ours = Box::new(move || copy.is_ours());
        let buckets = BucketClient::new(gateway, barriers, watch, is_ours, mutation);
        let buckets = Arc::new(buckets);
        let freshness = match config.read_mode {
            ReadMode::Linearizable => Freshness::Proved,
            ReadMode::BoundedStaleness { bound } => {
                let renewal = renew(Arc::clone(&buckets), Arc::clone(&users), bound);
                let renewal = tokio::spawn(renewal).abort_handle();
                Freshness::Recent { bound, proof, renewal }
            }
        };
        let store = Self {
            rooms: Arc::new(RoomClient::new(Arc::clone(&buckets), op_timeout)),
            users: UserClient::new(Arc::clone(&buckets), users, op_timeout),
            buckets,
            calls: Calls::default(),
            op_timeout,
            freshness,
            counters,
            #[cfg(feature = "testing")]
            fused,
        };
        // The copy of users must be complete before the first call. Each barrier has only a call's deadline, and a
        // cluster may need longer to begin the feed, so failed barriers are repeated.
        let mut pause = Pause::new(deadline);
        let barrier =
            async || match timeout_at(deadline, store.buckets.barrier(Bucket::Users)).await {
                Ok(passed) => passed,
                Err(_) => Err(Error::Timeout),
            };
        while let Err(error) = barrier().await {
            pause.after(store.buckets.gateway.explain(error)).await?;
        }
        Ok(store)
    }

    /// Changes the number of servers that keep each bucket to `replicas`. Returns once all of them have all data; the
    /// store goes on working meanwhile. Reports every step to `progress`. Takes at most ten times `op_timeout`, and may
    /// be called again after an error.
    ///
    /// Errors: `Invalid` for a number outside 1 to 5 or above that of the servers.
    pub async fn set_replicas(
        &self,
        replicas: u8,
        progress: impl Fn(&[BucketProgress]) + Send + Sync,
    ) -> Result<(), Error> {
        self.calls.check()?;
        check_replicas(replicas)?;
        let gateway = &self.buckets.gateway;
        self.long(span!("set_replicas", replicas), async |deadline| {
            resize::set_replicas(gateway, replicas, &progress, deadline).await
        })
        .await
    }

    /// The counts of events in this client.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) async fn call<T>(
        &self,
        span: Span,
        call: impl AsyncFnOnce(Instant) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.call_within(self.op_timeout, span, call).await
    }

    pub(super) async fn long<T>(
        &self,
        span: Span,
        call: impl AsyncFnOnce(Instant) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.call_within(self.op_timeout * LONG, span, call).await
    }

    async fn call_within<T>(
        &self,
        limit: Duration,
        span: Span,
        call: impl AsyncFnOnce(Instant) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let call = async {
            let answer = self.calls.call(limit, call).await;
            answer.map_err(|error| self.buckets.gateway.explain(error))
        };
        span.call(call).await
    }

    async fn standing(&self, key: &UserKey) -> Result<Option<Standing>, Error> {
        match &self.freshness {
            Freshness::Proved => {
                let standing = self.calls.quick(self.users.standing(key)).await;
                standing.map_err(|error| self.buckets.gateway.explain(error))
            }
            Freshness::Recent { bound, proof, .. } => {
                self.calls.check()?;
                self.buckets.fit(Bucket::Users)?;
                if self.buckets.is(JetStreamDefect::TrustsItsMemory) {
                    return self.users.copy.unproved().look()?.standing(key);
                }
                let late = || self.buckets.gateway.explain(Error::Timeout);
                let reached = proof.within(*bound).ok_or_else(late)?;
                self.users.copy.since(reached).look()?.standing(key)
            }
        }
    }
}

fn barrier(gateway: &Arc<Gateway>, bucket: Bucket) -> Sender {
    let gateway = Arc::clone(gateway);
    Box::new(move |deadline| {
        let gateway = Arc::clone(&gateway);
        Box::pin(async move { gateway.pass(bucket, deadline).await })
    })
}

impl Drop for JetStreamStore {
    fn drop(&mut self) {
        if let Freshness::Recent { renewal, .. } = &self.freshness {
            renewal.abort();
        }
        self.rooms.background.abandon();
    }
}

impl fmt::Debug for JetStreamStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.calls.is_closed();
        f.debug_struct("JetStreamStore").field("closed", &closed).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for JetStreamStore {
    async fn create_room(&self, new: NewRoom) -> Result<Room, Error> {
        self.call(span!("create_room", room = new.id), async |deadline| {
            self.rooms.create_room(new, deadline).await
        })
        .await
    }

    async fn room(&self, room: &RoomId) -> Result<Room, Error> {
        self.call(span!("room", room), async |deadline| self.rooms.room(room, deadline).await).await
    }

    async fn rooms_of(
        &self,
        endpoint: &EndpointId,
        page: Page<RoomId>,
    ) -> Result<Vec<Room>, Error> {
        self.call(span!("rooms_of", endpoint), async |deadline| {
            self.rooms.rooms_of(endpoint, &page, deadline).await
        })
        .await
    }

    async fn delete_room(&self, room: &RoomId) -> Result<(), Error> {
        self.long(span!("delete_room", room), async |deadline| {
            self.rooms.delete_room(room, deadline).await
        })
        .await
    }

    async fn add_member(&self, room: &RoomId, new: NewMember) -> Result<Member, Error> {
        self.call(span!("add_member", room, endpoint = new.endpoint), async |_| {
            self.rooms.add_member(room, new).await
        })
        .await
    }

    async fn member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<Member, Error> {
        self.call(span!("member", room, endpoint), async |deadline| {
            self.rooms.member(room, endpoint, deadline).await
        })
        .await
    }

    async fn members(&self, room: &RoomId, page: Page<EndpointId>) -> Result<Vec<Member>, Error> {
        self.call(span!("members", room), async |deadline| {
            self.rooms.members(room, &page, deadline).await
        })
        .await
    }

    async fn remove_member(&self, room: &RoomId, endpoint: &EndpointId) -> Result<(), Error> {
        self.call(span!("remove_member", room, endpoint), async |deadline| {
            self.rooms.remove_member(room, endpoint, deadline).await
        })
        .await
    }

    async fn rekey(&self, room: &RoomId, rekey: Rekey) -> Result<Room, Error> {
        self.long(span!("rekey", room, from = rekey.from()), async |deadline| {
            self.rooms.rekey(room, &rekey, deadline).await
        })
        .await
    }

    async fn key(
        &self,
        room: &RoomId,
        endpoint: &EndpointId,
        epoch: Epoch,
    ) -> Result<SealedKey, Error> {
        self.call(span!("key", room, endpoint, epoch), async |deadline| {
            self.rooms.key(room, endpoint, Some(epoch), deadline).await
        })
        .await
    }

    async fn latest_key(&self, room: &RoomId, endpoint: &EndpointId) -> Result<SealedKey, Error> {
        self.call(span!("latest_key", room, endpoint), async |deadline| {
            self.rooms.key(room, endpoint, None, deadline).await
        })
        .await
    }

    async fn bootstrap_admin(&self, new: NewUser) -> Result<User, Error> {
        self.call(span!("bootstrap_admin", user = new.key), async |deadline| {
            self.users.bootstrap_admin(new, deadline).await
        })
        .await
    }

    async fn add_user(&self, new: NewUser) -> Result<User, Error> {
        self.call(span!("add_user", user = new.key), async |deadline| {
            self.users.add_user(new, deadline).await
        })
        .await
    }

    async fn user(&self, key: &UserKey) -> Result<User, Error> {
        self.call(span!("user", user = key), async |_| self.users.user(key).await).await
    }

    async fn users(&self, page: Page<UserKey>) -> Result<Vec<User>, Error> {
        self.call(span!("users"), async |_| self.users.users(&page).await).await
    }

    async fn revoke_user(&self, key: &UserKey, at: Timestamp) -> Result<(), Error> {
        self.call(span!("revoke_user", user = key), async |deadline| {
            self.users.revoke_user(key, at, deadline).await
        })
        .await
    }

    async fn is_authorized(&self, key: &UserKey) -> Decision {
        let decision = async { decision::authorized(self.standing(key).await) };
        span!("is_authorized", user = key).call(decision).await
    }

    async fn is_admin(&self, key: &UserKey) -> Decision {
        let decision = async { decision::admin(self.standing(key).await) };
        span!("is_admin", user = key).call(decision).await
    }

    async fn has_admin(&self) -> Result<bool, Error> {
        self.call(span!("has_admin"), async |_| self.users.has_admin().await).await
    }

    async fn close(&self) -> Result<(), Error> {
        let close = async {
            let deadline = Instant::now() + self.op_timeout;
            self.calls.close(deadline).await;
            if let Freshness::Recent { renewal, .. } = &self.freshness {
                renewal.abort();
            }
            self.rooms.background.finish(deadline).await;
            self.buckets.end_barriers();
            if !self.buckets.is(JetStreamDefect::KeepsTheConnection) {
                self.buckets.gateway.shut(deadline).await;
            }
            Ok(())
        };
        span!("close").call(close).await
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::jetstream::gateway::exchange::Put;
    use crate::jetstream::room::commit::PlannedChange;
    use crate::jetstream::room::view::View;
    use crate::jetstream::{Blow, Simulation, Weather};
    use crate::{Ciphertext, Conflict, Label, Record};

    const AT: Timestamp = Timestamp::from_millis(1);

    async fn client(simulation: &Simulation) -> JetStreamStore {
        let config = JetStreamConfig::new(["nats://simulated"]);
        simulation.open("client", 0, false, config).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_is_renewed_as_long_as_the_store_lives() {
        let bound = Duration::from_millis(400);
        let read_mode = ReadMode::BoundedStaleness { bound };
        let config = JetStreamConfig { read_mode, ..JetStreamConfig::new(["nats://simulated"]) };
        let simulation = Simulation::new(1, 1, Weather::CALM);
        let store = simulation.open("client", 0, false, config).await.unwrap();
        let key = UserKey::from_bytes([1; 32]);
        let label = Label::new("ann").unwrap();
        store.add_user(NewUser { key, label, admin: false, added_at: AT }).await.unwrap();
        for _ in 0..100 {
            tokio::time::sleep(bound / 10).await;
            assert_eq!(store.is_authorized(&key).await, Decision::Allow);
        }
        let buckets = Arc::downgrade(&store.buckets);
        drop(store);
        tokio::time::sleep(bound).await;
        assert!(buckets.upgrade().is_none(), "somebody goes on without the store");
    }

    fn endpoint(name: &str) -> EndpointId {
        EndpointId::new(name).unwrap()
    }

    fn member(name: &str) -> NewMember {
        NewMember::unsealed(endpoint(name), AT)
    }

    fn sealed() -> Ciphertext {
        Ciphertext::new("sealed").unwrap()
    }

    fn sealed_member(name: &str, epoch: Epoch) -> NewMember {
        NewMember::sealed(endpoint(name), AT, epoch, sealed())
    }

    fn encrypted(room: &RoomId) -> NewRoom {
        NewRoom::encrypted(room.clone(), endpoint("ann"), AT, sealed())
    }

    async fn make_room(store: &JetStreamStore, name: &str) -> RoomId {
        let room = RoomId::new(name).unwrap();
        let new = NewRoom::unencrypted(room.clone(), endpoint("ann"), AT);
        store.create_room(new).await.unwrap();
        room
    }

    #[tokio::test(start_paused = true)]
    async fn whose_task_is_ended_hears_of_it_and_the_next_has_a_task_of_its_own() {
        let store = client(&Simulation::new(1, 1, Weather::CALM)).await;
        let room = make_room(&store, "r").await;
        let add = async |name| {
            let minute = Duration::from_mins(1);
            tokio::time::timeout(minute, store.rooms.add_member(&room, member(name))).await.unwrap()
        };
        store.hold_after(0);
        let (ended, ()) = tokio::join!(add("bob"), async {
            store.held().await;
            store.rooms.background.abandon();
        });
        assert_eq!(ended, Err(Error::Timeout));
        store.let_go();
        assert!(add("cat").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_who_add_the_same_at_once_one_is_told_that_it_is_there() {
        let store = client(&Simulation::new(1, 1, Weather::CALM)).await;
        let room = make_room(&store, "r").await;
        let add = async |name| store.add_member(&room, member(name)).await;
        store.hold_after(0);
        let (bob, eve, again, ()) = tokio::join!(add("bob"), add("eve"), add("eve"), async {
            store.held().await;
            store.let_go();
        });
        assert!(bob.is_ok() && eve.is_ok(), "{bob:?}, {eve:?}");
        let there = Record::Member { room: room.clone(), endpoint: endpoint("eve") };
        assert_eq!(again, Err(Error::AlreadyExists(there)));
        assert_eq!(store.members(&room, Page::first()).await.unwrap().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_room_takes_no_more_members_and_works_otherwise() {
        let store = client(&Simulation::new(1, 1, Weather::CALM)).await;
        let room = make_room(&store, "r").await;
        let deadline = Instant::now() + Duration::from_mins(1);
        let view = View::read(&store.buckets, &room, |_| Vec::new(), deadline).await.unwrap();
        let mut head = view.head.next("w");
        head.count = JetStreamStore::MAX_MEMBERS - 1;
        let change = PlannedChange { view: &view, head, puts: Vec::new() };
        assert!(change.commit(&store.buckets, deadline).await.unwrap());
        let add = async |name| store.add_member(&room, member(name)).await;
        let (bob, eve) = tokio::join!(add("bob"), add("eve"));
        let full = Error::from(Conflict::RoomFull { most: 100_000 });
        assert_eq!([bob.is_ok(), eve.is_ok()].iter().filter(|added| **added).count(), 1);
        assert!([bob, eve].contains(&Err(full.clone())));
        assert_eq!(add("cat").await, Err(full));
        let there = [store.member(&room, &endpoint("bob")).await, add("bob").await];
        assert!(there[0].is_ok() && matches!(there[1], Err(Error::AlreadyExists(_))), "{there:?}");
        store.remove_member(&room, &endpoint("bob")).await.unwrap();
        assert!(add("cat").await.is_ok());
    }

    /// The client's consumer outlives the cut. After the cut it delivers what the bucket has then, without a gap in its
    /// counts.
    #[tokio::test(start_paused = true)]
    async fn a_revocation_that_vanished_before_it_was_delivered_denies() {
        let simulation = Simulation::new(1, 3, Weather::CALM);
        let config =
            || JetStreamConfig { replicas: 3, ..JetStreamConfig::new(["nats://simulated"]) };
        drop(simulation.open("first", 1, false, config()).await.unwrap());
        simulation.lead(1, "users");
        let near = simulation.open("near", 1, false, config()).await.unwrap();
        let far = simulation.open("far", 0, false, config()).await.unwrap();
        let key = UserKey::from_bytes([1; 32]);
        let label = Label::new("ann").unwrap();
        near.add_user(NewUser { key, label, admin: false, added_at: AT }).await.unwrap();
        for _ in 0..2 {
            assert_eq!(far.is_authorized(&key).await, Decision::Allow);
        }
        simulation.strike(Blow::Isolate(0));
        near.revoke_user(&key, AT).await.unwrap();
        simulation.strike(Blow::Expire);
        simulation.strike(Blow::Join);
        for _ in 0..10 {
            let decision = far.is_authorized(&key).await;
            assert!(matches!(decision, Decision::Deny(_)), "{decision:?}");
        }
    }

    /// If the index names a room that the endpoint left, the rooms of a page are looked up in several rounds, at
    /// several moments.
    #[tokio::test(start_paused = true)]
    async fn a_page_of_rooms_is_of_one_moment_however_often_it_asks() {
        for exchanges in 0.. {
            let simulation = Simulation::new(1, 1, Weather::CALM);
            let (writer, reader) = (client(&simulation).await, client(&simulation).await);
            for name in ["a", "left", "z"] {
                let room = RoomId::new(name).unwrap();
                writer.create_room(encrypted(&room)).await.unwrap();
                for name in ["bob", "eve"] {
                    writer.add_member(&room, sealed_member(name, Epoch::FIRST)).await.unwrap();
                }
            }
            let remove = async |client: &JetStreamStore, room, name| {
                let room = RoomId::new(room).unwrap();
                client.remove_member(&room, &endpoint(name)).await.unwrap();
            };
            let leaver = client(&simulation).await;
            remove(&leaver, "left", "eve").await;
            // The client is dropped before it collects the index entry.
            drop(leaver);

            reader.hold_after(exchanges);
            let two = Page::new(None, 2).unwrap();
            let eve = endpoint("eve");
            let mut listing = std::pin::pin!(reader.rooms_of(&eve, two));
            tokio::select! {
                biased;
                listed = &mut listing => {
                    assert_eq!(listed.unwrap().len(), 2);
                    break;
                }
                () = reader.held() => {}
            }
            remove(&writer, "a", "bob").await;
            remove(&writer, "z", "bob").await;
            reader.let_go();
            let due = listing.await.unwrap().into_iter().map(|room| room.rekey_due);
            let due: Vec<_> = due.collect();
            assert!(due.len() == 2 && due != [false, true], "{exchanges}: {due:?}");
        }
    }

    /// The test stops the reader after each number of exchanges, and once more after each further number. While the
    /// reader is stopped the first time, the endpoint joins the rooms x and y. The second time, either x changes, or the
    /// endpoint joins v and leaves x.
    #[rstest::rstest]
    #[tokio::test(start_paused = true)]
    async fn a_listing_beside_joins_is_of_one_moment(#[values(false, true)] leaves: bool) {
        let states: &[&str] =
            if leaves { &["w", "wx", "wxy", "vwxy", "vwy"] } else { &["w", "wx", "wxy"] };
        let mut seen = std::collections::BTreeSet::new();
        let eve = endpoint("eve");
        'first: for first in 0.. {
            for second in 0.. {
                let simulation = Simulation::new(1, 1, Weather::CALM);
                let (writer, reader) = (client(&simulation).await, client(&simulation).await);
                for name in ["v", "w", "x", "y"] {
                    make_room(&writer, name).await;
                }
                let join = async |room, name| {
                    let room = RoomId::new(room).unwrap();
                    writer.add_member(&room, member(name)).await.unwrap();
                };
                join("w", "eve").await;
                reader.hold_after(first);
                let mut listing = std::pin::pin!(reader.rooms_of(&eve, Page::first()));
                tokio::select! {
                    biased;
                    _ = &mut listing => break 'first,
                    () = reader.held() => {}
                }
                join("x", "eve").await;
                join("y", "eve").await;
                reader.let_go();
                reader.hold_after(second);
                let listed = tokio::select! {
                    biased;
                    listed = &mut listing => Some(listed),
                    () = reader.held() => None,
                };
                let is_over = listed.is_some();
                let listed = match listed {
                    Some(listed) => listed,
                    None => {
                        if leaves {
                            join("v", "eve").await;
                            let x = RoomId::new("x").unwrap();
                            writer.remove_member(&x, &eve).await.unwrap();
                            // The index entry is collected in the background.
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        } else {
                            join("x", "bob").await;
                        }
                        reader.let_go();
                        listing.await
                    }
                };
                let listed: String = listed.unwrap().iter().map(|room| room.id.as_str()).collect();
                assert!(states.contains(&&*listed), "{listed}, held at {first} and {second}");
                seen.insert(listed);
                if is_over {
                    break;
                }
            }
        }
        assert!(seen.len() > 1, "only {seen:?}");
    }

    #[derive(Clone, Copy, Debug)]
    enum Race {
        Create,
        Add,
        Rekey,
    }

    impl Race {
        async fn run(self, store: &JetStreamStore) -> Result<(), Error> {
            let room = RoomId::new("r").unwrap();
            match self {
                Self::Create => store.create_room(encrypted(&room)).await.map(drop),
                Self::Add => {
                    store.add_member(&room, sealed_member("bob", Epoch::FIRST)).await.map(drop)
                }
                Self::Rekey => {
                    let rekey = Rekey::new(Epoch::FIRST, [], [(endpoint("ann"), sealed())]);
                    store.rekey(&room, rekey.unwrap()).await.map(drop)
                }
            }
        }

        /// Makes new servers and a client of them, and makes the room that the race needs.
        async fn begin(self) -> (Simulation, JetStreamStore) {
            let simulation = Simulation::new(1, 1, Weather::CALM);
            let store = client(&simulation).await;
            if !matches!(self, Self::Create) {
                Self::Create.run(&store).await.unwrap();
            }
            (simulation, store)
        }
    }

    /// Counts the records of rooms in each bucket.
    async fn records(store: &JetStreamStore) -> Vec<usize> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut counts = Vec::new();
        for bucket in [Bucket::Rooms, Bucket::Members, Bucket::RoomsByMember, Bucket::RoomKeys] {
            let all = store.buckets.read_few(bucket, &[">".to_owned()], deadline).await.unwrap();
            let counts_rooms = |key: &str| !key.starts_with('=') && !key.ends_with(".=n");
            let records = all.entries.iter().filter(|entry| counts_rooms(&entry.key));
            counts.push(records.filter(|entry| !entry.removal).count());
        }
        counts
    }

    #[rstest::rstest]
    #[tokio::test(start_paused = true)]
    async fn who_loses_a_race_leaves_nothing_of_what_it_began(
        #[values(Race::Create, Race::Add, Race::Rekey)] race: Race,
    ) {
        // The background tasks of a dropped client end with it, so only the loser itself can clean up.
        let (simulation, alone) = race.begin().await;
        race.run(&alone).await.unwrap();
        drop(alone);
        let expected = records(&client(&simulation).await).await;
        let mut races = 0;
        for exchanges in 0.. {
            let (simulation, loser) = race.begin().await;
            loser.hold_after(exchanges);
            {
                let mut lost = std::pin::pin!(race.run(&loser));
                tokio::select! {
                    biased;
                    done = &mut lost => {
                        done.unwrap();
                        assert!(races > 2, "only {races} races in {exchanges} exchanges");
                        break;
                    }
                    () = loser.held() => {}
                }
                let winner = client(&simulation).await;
                let won = race.run(&winner).await;
                drop(winner);
                loser.let_go();
                if won.is_err() {
                    // The loser was held after its commit, so it has won.
                    lost.await.unwrap();
                    continue;
                }
                let error = lost.await.unwrap_err();
                let refused = matches!(error, Error::AlreadyExists(_) | Error::StaleEpoch { .. });
                assert!(refused, "{race:?}, {exchanges}: {error}");
            }
            loser.close().await.unwrap();
            let left = records(&client(&simulation).await).await;
            assert_eq!(left, expected, "{race:?} lost after {exchanges} exchanges");
            races += 1;
        }
    }

    #[rstest::rstest]
    #[tokio::test(start_paused = true)]
    async fn what_a_removal_left_is_collected_by_the_next_change(
        #[values("add", "remove", "rekey")] next: &str,
    ) {
        let left = async |crashes: bool| {
            let (simulation, store) = Race::Add.begin().await;
            let room = RoomId::new("r").unwrap();
            for name in ["bob", "cat"] {
                store.add_member(&room, sealed_member(name, Epoch::FIRST)).await.unwrap();
            }
            let leaver = client(&simulation).await;
            leaver.remove_member(&room, &endpoint("bob")).await.unwrap();
            if !crashes {
                leaver.close().await.unwrap();
            }
            drop(leaver);
            match next {
                "add" => {
                    store.add_member(&room, sealed_member("dan", Epoch::FIRST)).await.map(drop)
                }
                "remove" => store.remove_member(&room, &endpoint("cat")).await,
                _ => {
                    let keys = ["ann", "cat"].map(|name| (endpoint(name), sealed()));
                    let rekey = Rekey::new(Epoch::FIRST, [], keys).unwrap();
                    store.rekey(&room, rekey).await.map(drop)
                }
            }
            .unwrap();
            store.close().await.unwrap();
            records(&client(&simulation).await).await
        };
        assert_eq!(left(true).await, left(false).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_keys_of_a_rekey_that_crashed_are_collected_however_many_epochs_later() {
        // Returns the records that are left, and the records after the crash if there was one.
        let left = async |crashes_after: Option<u32>| {
            let (simulation, store) = Race::Rekey.begin().await;
            let mut crashed_with = None;
            if let Some(exchanges) = crashes_after {
                let crashed = client(&simulation).await;
                crashed.stop_after(exchanges, false);
                Race::Rekey.run(&crashed).await.err()?;
                crashed_with = Some(records(&store).await);
            }
            // Three clients make one epoch each. Only the last one is closed, which waits until its garbage collection
            // has ended.
            for epoch in 1..4 {
                let maker = client(&simulation).await;
                let keys = [(endpoint("ann"), sealed())];
                let rekey = Rekey::new(Epoch::new(epoch).unwrap(), [], keys).unwrap();
                maker.rekey(&RoomId::new("r").unwrap(), rekey).await.unwrap();
                if epoch == 3 {
                    maker.close().await.unwrap();
                }
            }
            Some((records(&store).await, crashed_with))
        };
        let (expected, _) = left(None).await.unwrap();
        let mut keys_left = 0;
        for exchanges in 0.. {
            let Some((now, crashed)) = left(Some(exchanges)).await else { break };
            assert_eq!(now, expected, "{exchanges}");
            keys_left = keys_left.max(crashed.unwrap()[3]);
        }
        assert_eq!(
            keys_left, 3,
            "the key there was, the one of a lost attempt, and what tells of that"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_collects_what_a_deletion_left() {
        let (simulation, store) = Race::Add.begin().await;
        Race::Add.run(&store).await.unwrap();
        store.close().await.unwrap();
        let deleter = client(&simulation).await;
        deleter.delete_room(&RoomId::new("r").unwrap()).await.unwrap();
        drop(deleter);
        let reader = client(&simulation).await;
        assert_eq!(records(&reader).await, [0, 2, 2, 2]);
        assert_eq!(reader.rooms_of(&endpoint("bob"), Page::first()).await, Ok(vec![]));
        reader.close().await.unwrap();
        assert_eq!(records(&client(&simulation).await).await, [0, 0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_expects_nothing_is_sent_until_it_is_acknowledged() {
        let simulation = Simulation::new(1, 1, Weather::CALM);
        let store = client(&simulation).await;
        let weather = Weather { lost_requests: 300, lost_answers: 300, ..Weather::CALM };
        simulation.strike(Blow::Weather(weather));
        let puts: Vec<_> = (0..100).map(|n| Put::new(format!("k.{n}"), Bytes::new())).collect();
        let deadline = Instant::now() + Duration::from_mins(1);
        let stored =
            store.buckets.gateway.publish_all(Bucket::RoomKeys, puts, deadline).await.unwrap();
        assert_eq!(stored.len(), 100);
        simulation.strike(Blow::Weather(Weather::CALM));
        assert_eq!(records(&store).await, [0, 0, 0, 100]);
    }

    /// The head's count of tombstones decides when the roster is written under a new generation.
    #[tokio::test(start_paused = true)]
    async fn a_head_knows_how_many_memberships_have_ended() {
        let store = client(&Simulation::new(1, 1, Weather::CALM)).await;
        let room = RoomId::new("r").unwrap();
        store.create_room(encrypted(&room)).await.unwrap();
        let add = async |name, epoch| {
            store.add_member(&room, sealed_member(name, epoch)).await.unwrap();
        };
        let ended = async || {
            let deadline = Instant::now() + Duration::from_secs(1);
            View::read(&store.buckets, &room, |_| Vec::new(), deadline).await.unwrap().head.ended
        };
        for name in ["bob", "cat", "dan"] {
            add(name, Epoch::FIRST).await;
        }
        assert_eq!(ended().await, 0);
        store.remove_member(&room, &endpoint("bob")).await.unwrap();
        assert_eq!(ended().await, 1);
        let remove = [endpoint("cat"), endpoint("dan")];
        let rekey = Rekey::new(Epoch::FIRST, remove, [(endpoint("ann"), sealed())]).unwrap();
        let epoch = store.rekey(&room, rekey).await.unwrap().epoch;
        assert_eq!(ended().await, 3);
        add("bob", epoch).await;
        assert_eq!(ended().await, 2);
    }

    /// The index names a room that the endpoint left until the index entry is collected.
    #[tokio::test(start_paused = true)]
    async fn a_page_has_as_many_rooms_as_it_is_to_have_whatever_the_index_names() {
        for exchanges in 0.. {
            let simulation = Simulation::new(1, 1, Weather::CALM);
            let (leaver, reader) = (client(&simulation).await, client(&simulation).await);
            let mut rooms = Vec::new();
            for name in ["a", "b", "c", "d"] {
                let room = make_room(&leaver, name).await;
                leaver.add_member(&room, member("eve")).await.unwrap();
                rooms.push(room);
            }
            leaver.stop_after(exchanges, false);
            let left = leaver.remove_member(&rooms[0], &endpoint("eve")).await;
            let stopped = leaver.is_stopped();
            drop(leaver);
            let page = async |most| {
                let page = Page::new(None, most).unwrap();
                let rooms = reader.rooms_of(&endpoint("eve"), page).await.unwrap();
                rooms.into_iter().map(|room| room.id).collect::<Vec<_>>()
            };
            let (all, two) = (page(1000).await, page(2).await);
            assert!(all == rooms || all == rooms[1..], "{exchanges}: {all:?}");
            assert!(left.is_err() || all == rooms[1..], "{exchanges}: {all:?}");
            assert_eq!(two, all[..2], "{exchanges}");
            if !stopped {
                break;
            }
        }
    }
}
