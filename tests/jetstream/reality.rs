//! Compares simulated servers with real ones: the same scenarios run on both. What real servers
//! answer must be possible on simulated servers with some seed. Both must give the answers against
//! which the store is built.

mod alone;
mod cut;
mod ground;

use std::time::Duration;

use membership::{Said, Simulation, Weather};
use nats_cluster::{Cluster, ClusterOptions};

use alone::ALONE;
use cut::{READ, REFUSED, cut_at_once, cut_follower, cut_leader, stale, starts_alone};
use ground::{Ground, begin, is_stored, until};

/// So many seeds make simulated servers give every answer that they can give.
const SEEDS: u64 = 200;

/// The answers of a scenario, in order, each with its name.
type Words = Vec<(&'static str, Said)>;

type Scenario<'a> = std::pin::Pin<Box<dyn Future<Output = Words> + 'a>>;
type Run = for<'a> fn(&'a Ground) -> Scenario<'a>;
type Named = (&'static str, Run);

/// All sequences of answers that simulated servers give with some seed.
fn simulated(servers: usize, scenario: Run, seeds: u64) -> Vec<Words> {
    let say = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            scenario(&Ground::Simulated(Simulation::new(seed, servers, Weather::CALM))).await
        })
    };
    let mut all = Vec::new();
    for seed in 0..seeds {
        let words = say(seed);
        if !all.contains(&words) {
            all.push(words);
        }
    }
    all
}

/// Checks that the real answers of a scenario are among the simulated ones. Returns both.
async fn agree(servers: u8, (name, run): Named, seeds: u64) -> (Words, Vec<Words>) {
    let cluster = Cluster::start(ClusterOptions::servers(servers.into())).await.unwrap();
    let real = run(&Ground::Real(Box::new(cluster))).await;
    let simulated = move || simulated(servers.into(), run, seeds);
    let simulated = std::thread::spawn(simulated).join().unwrap();
    assert!(simulated.contains(&real), "{name}: simulated {simulated:#?}, real {real:#?}");
    (real, simulated)
}

/// As above, on three servers. Real servers must give each answer in `wary`, and so must simulated
/// servers with some seed.
async fn agree_on_three(scenario: Named, wary: &[(&'static str, Said)]) {
    let (real, simulated) = agree(3, scenario, SEEDS).await;
    for words in wary {
        assert!(real.contains(words), "{}: never {words:?} in {real:#?}", scenario.0);
        let possible = simulated.iter().any(|said| said.contains(words));
        assert!(possible, "{}: never {words:?} in {simulated:#?}", scenario.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_answers_as_simulated() {
    for scenario in ALONE {
        let (_, simulated) = agree(1, scenario, 20).await;
        assert_eq!(simulated.len(), 1, "{}: {simulated:#?}", scenario.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_cut_off_answer_as_simulated() {
    let follower: Named = ("a follower that is cut off", |ground| Box::pin(cut_follower(ground)));
    agree_on_three(follower, &[(READ, stale())]).await;
    let leader: Named = ("a leader that is cut off", |ground| Box::pin(cut_leader(ground)));
    agree_on_three(leader, &[(REFUSED, Said::Refused), (READ, stale())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_do_not_answer_reads_yet_behave_as_simulated() {
    let at_once: Named =
        ("a follower that is cut off at once", |ground| Box::pin(cut_at_once(ground)));
    let (_, simulated) = agree(3, at_once, SEEDS).await;
    // Real servers give one of these answers by chance.
    for said in [stale(), Said::NoLeader, Said::Silence] {
        assert!(simulated.iter().any(|words| words.contains(&(READ, said.clone()))), "{said:?}");
    }
    let alone: Named = ("a follower that starts alone", |ground| Box::pin(starts_alone(ground)));
    agree(3, alone, SEEDS).await;
}

/// Measures how often a former leader refuses a write that its successor makes.
///
/// Both receive the write once a cut is healed. In the simulation this may happen.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test"]
async fn how_often_a_former_leader_refuses_after_a_cut() {
    let cluster = Cluster::start(ClusterOptions::servers(3)).await.unwrap();
    let ground = Ground::Real(Box::new(cluster));
    let probe = begin(&ground, 3).await;
    let Said::Stored(mut newest) = probe.store(&[("a", None)]).await else { panic!("not stored") };
    let (mut writes, mut refused, mut made) = (0, 0, 0);
    for _ in 0..8 {
        let leader = ground.leader().await;
        let near = ground.probe((leader + 1) % 3).await;
        ground.isolate(leader).await;
        let stored = until("an election", is_stored, async || near.store(&[("a", None)]).await);
        let Said::Stored(sequence) = stored.await else { continue };
        newest = newest.max(sequence);
        ground.join();
        let end = tokio::time::Instant::now() + Duration::from_secs(3);
        while tokio::time::Instant::now() < end {
            writes += 1;
            match near.store(&[("a", Some(newest))]).await {
                Said::Stored(sequence) => newest = sequence,
                said => {
                    refused += u32::from(said == Said::Refused);
                    let Said::Stored(barrier) =
                        until("a barrier", is_stored, async || near.barrier().await).await
                    else {
                        continue;
                    };
                    let fresh =
                        |said: &Said| matches!(said, Said::State(up_to, _) if *up_to >= barrier);
                    let read = until("a read", fresh, async || near.read(&["a"]).await).await;
                    if let Said::State(_, all) = read
                        && let Some((_, now)) = all.first()
                        && *now > newest
                    {
                        println!("{said:?} over {newest}, and it is there: {now}");
                        made += u32::from(said == Said::Refused);
                        newest = *now;
                    }
                }
            }
        }
    }
    println!("{writes} writes, {refused} refused, {made} of these made");
}
