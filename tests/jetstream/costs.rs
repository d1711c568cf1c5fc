//! The costs of calls in `PROTOCOL.md`, counted on simulated servers. Every message takes the same
//! time there, so the time that a call takes is its number of rounds.

use std::time::Duration;

use membership::{
    Decision, Error, JetStreamConfig, JetStreamStore, Page, ReadMode, Simulation, Store, Weather,
};
use membership_conformance::make::{
    admin, at, encrypted, endpoint, epoch, joins_at, rekey, rekey_all, room, user, user_number,
};
use tokio::time::Instant;

/// How long a message and its answer take, in milliseconds.
const ROUND: u32 = 2;

/// Long enough for all background work that a call starts.
const REST: Duration = Duration::from_secs(5);

struct Counted {
    simulation: Simulation,
    store: JetStreamStore,
}

/// The cost of a call: its rounds, and the messages that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost(u32, usize);

impl Counted {
    async fn new(servers: u8, read_mode: ReadMode) -> Self {
        let simulation = Simulation::new(7, usize::from(servers), Weather::STEADY);
        simulation.keep_trace();
        let config = JetStreamConfig {
            replicas: servers,
            op_timeout: Duration::from_secs(5),
            read_mode,
            ..JetStreamConfig::new(["nats://simulated"])
        };
        let store = simulation.open("caller", 0, false, config).await.unwrap();
        store.bootstrap_admin(admin(user_number(0))).await.unwrap();
        Self { simulation, store }
    }

    /// The messages that the client has sent.
    fn sent(&self) -> usize {
        let trace = self.simulation.trace();
        // The client asks for the settings of its buckets in the background. These messages are not
        // counted.
        let requests =
            trace.lines().filter(|line| line.contains(" caller @") && !line.contains(" asks for "));
        let messages = requests.map(|line| match line.split_once(" stores in ") {
            Some((_, stored)) => stored.split(", ").count(),
            None => 1,
        });
        messages.sum()
    }

    async fn cost<T, E>(&self, call: impl Future<Output = Result<T, E>>) -> Cost
    where
        E: std::fmt::Debug,
    {
        tokio::time::sleep(REST).await;
        let (before, began) = (self.sent(), Instant::now());
        call.await.unwrap();
        let (took, after) = (began.elapsed(), self.sent());
        assert_eq!(took.as_millis() % u128::from(ROUND), 0, "half a round in {took:?}");
        Cost(took.as_millis() as u32 / ROUND, after - before)
    }

    async fn room_of(&self, id: &str, members: usize) {
        self.store.create_room(encrypted(id, "owner")).await.unwrap();
        let more: Vec<_> = (1..members).map(|n| format!("member {n}")).collect();
        let (id, store) = (room(id), &self.store);
        let adding = more.iter().map(|name| store.add_member(&id, joins_at(name, 1)));
        futures_util::future::try_join_all(adding).await.unwrap();
    }
}

fn one(call: &str, Cost(rounds, messages): Cost) -> String {
    format!("| {call} | {rounds} | {messages} |")
}

/// One row of the table: the usual cost, and in brackets the cost of the case that the call's name
/// has in brackets.
fn two(call: &str, usual: Cost, else_: Cost) -> String {
    let differs = |usual: String, else_: String| {
        if usual == else_ { usual } else { format!("{usual} ({else_})") }
    };
    let rounds = differs(usual.0.to_string(), else_.0.to_string());
    format!("| {call} | {rounds} | {} |", differs(usual.1.to_string(), else_.1.to_string()))
}

/// Checks that all costs are the same, and returns it.
fn same(costs: &[Cost]) -> Cost {
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
    costs[0]
}

async fn table(servers: u8) -> Vec<String> {
    let counted = Counted::new(servers, ReadMode::Linearizable).await;
    let (store, ann) = (&counted.store, endpoint("member 1"));
    let (ops, crowd) = (room("ops"), room("crowd"));
    let decision = async |decision| -> Result<_, ()> { Ok(decision) };
    let key = user_number(1);
    let add_user = counted.cost(store.add_user(user(key))).await;
    let users = same(&[
        counted.cost(async { decision(store.is_authorized(&key).await).await }).await,
        counted.cost(async { decision(store.is_admin(&key).await).await }).await,
        counted.cost(store.user(&key)).await,
        counted.cost(store.has_admin()).await,
    ]);
    let nobody = user_number(99);
    let unknown = same(&[
        counted.cost(async { decision(store.is_authorized(&nobody).await).await }).await,
        counted.cost(store.users(Page::first())).await,
    ]);
    let revoke_user = counted.cost(store.revoke_user(&key, at(2))).await;
    let add_admin = counted.cost(store.add_user(admin(user_number(2)))).await;
    let revoke_admin = counted.cost(store.revoke_user(&user_number(2), at(2))).await;
    let Cost(rounds, messages) = same(&[add_user, revoke_user]);
    let Cost(same_rounds, of_admins) = same(&[add_admin, revoke_admin]);
    assert_eq!(rounds, same_rounds);
    let users_written =
        format!("| `add_user`, `revoke_user` | {rounds} | {messages} (admins: {of_admins}) |");

    let create = counted.cost(store.create_room(encrypted("ops", "owner"))).await;
    let add = counted.cost(store.add_member(&ops, joins_at("member 1", 1))).await;
    let room_or_member =
        same(&[counted.cost(store.room(&ops)).await, counted.cost(store.member(&ops, &ann)).await]);
    let few = counted.cost(store.members(&ops, Page::first())).await;
    counted.room_of("crowd", 1_000).await;
    counted.room_of("throng", 1_100).await;
    let many = counted.cost(store.members(&room("throng"), Page::first())).await;

    let first_rekey = counted.cost(store.rekey(&ops, rekey(1, [], ["owner", "member 1"]))).await;
    let first_key = counted.cost(store.latest_key(&ops, &ann)).await;
    let next_key = same(&[
        counted.cost(store.latest_key(&ops, &ann)).await,
        counted.cost(store.key(&ops, &ann, epoch(2))).await,
    ]);
    let second_rekey = counted.cost(store.rekey(&ops, rekey(2, [], ["owner", "member 1"]))).await;
    let crowded = store.members(&crowd, Page::first()).await.unwrap();
    let crowded: Vec<_> = crowded.into_iter().map(|member| member.endpoint).collect();
    let great = counted.cost(store.rekey(&crowd, rekey_all(1, &crowded))).await;
    let rooms_of = counted.cost(store.rooms_of(&ann, Page::first())).await;
    let remove = counted.cost(store.remove_member(&ops, &ann)).await;
    let delete = counted.cost(store.delete_room(&ops)).await;
    let not_found = async |id: &str| match store.room(&room(id)).await {
        Err(Error::NotFound(_)) => Ok(()),
        other => Err(other),
    };
    let never = counted.cost(not_found("never")).await;
    let deleted = counted.cost(not_found("ops")).await;

    let bound = Duration::from_secs(1);
    let bounded = Counted::new(servers, ReadMode::BoundedStaleness { bound }).await;
    let (store, admin) = (&bounded.store, user_number(0));
    let allowed = async {
        (store.is_authorized(&admin).await == Decision::Allow).then_some(()).ok_or("denied")
    };
    let at_once = bounded.cost(allowed).await;

    vec![
        one("`is_authorized`, `is_admin`, `user`, `has_admin`", users),
        one("the same where there is no such user or admin; `users`", unknown),
        one("`is_authorized`, `is_admin`, bounded", at_once),
        one("`room`, `member`", room_or_member),
        one("the same where there is no room", same(&[never, deleted])),
        two("`members` of up to 1,010 (12,000)", few, many),
        two("`key`, `latest_key` (the first since the room was rekeyed)", next_key, first_key),
        one("`rooms_of` up to 400 candidates", rooms_of),
        one("`create_room`", create),
        one("`delete_room`", delete),
        one("`add_member`", add),
        one("`remove_member`", remove),
        two("`rekey` of 2 members (the first of a room)", second_rekey, first_rekey),
        one("`rekey` of 1,000 members, 512 messages at once", great),
        users_written,
    ]
}

#[test]
fn calls_cost_what_the_protocol_says() {
    let protocol = include_str!("../../src/jetstream/PROTOCOL.md");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    let [alone, three] = [1, 3].map(|servers| runtime.block_on(table(servers)));
    assert_eq!(alone, three, "the same messages, however many servers there are");
    let missing: Vec<_> = three.iter().filter(|row| !protocol.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "these rows are not in PROTOCOL.md: {missing:#?}");
}

/// Concurrent barriers must not replace one another before they are delivered. Otherwise a caller
/// would wait for a barrier that never comes, until the copy is made anew.
#[tokio::test(start_paused = true)]
async fn concurrent_decisions_wait_only_for_their_barriers() {
    let simulation = Simulation::new(7, 1, Weather::CALM);
    let config = JetStreamConfig { replicas: 1, ..JetStreamConfig::new(["nats://simulated"]) };
    let store = simulation.open("caller", 0, false, config).await.unwrap();
    store.bootstrap_admin(admin(user_number(0))).await.unwrap();
    let store = &store;
    let callers = (0..64).map(|caller| async move {
        for call in 0..50 {
            let began = Instant::now();
            assert_eq!(store.is_authorized(&user_number(0)).await, Decision::Allow);
            // A caller may have to wait for the barrier in flight, and then for its own.
            let took = began.elapsed();
            assert!(took < Duration::from_millis(50), "caller {caller}, call {call}: {took:?}");
            // Without this pause, all callers would ask at the same time and share each barrier.
            tokio::time::sleep(Duration::from_millis((7 * caller + 3 * call) % 5)).await;
        }
    });
    futures_util::future::join_all(callers).await;
}
