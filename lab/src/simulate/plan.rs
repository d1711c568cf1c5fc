use std::time::Duration;

use membership::{Blow, JetStreamDefect, Weather};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use membership_conformance::history::Mix;

/// Which servers' data go back to an earlier state while clients are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// The data of every server.
    All,
    /// The data of every server but this one.
    ///
    /// This server's log is longer afterwards, and its data may differ from the others' for good.
    /// Only the copy of users notices that, so such a history is about users.
    But(usize),
}

/// The parameters of a simulated history; a seed determines all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// How many servers there are, and replicas of each bucket.
    pub servers: usize,
    /// How many clients make calls.
    pub clients: usize,
    /// How many calls each client makes.
    pub calls: usize,
    /// What the calls are about.
    pub mix: Mix,
    /// How messages are delayed and lost at the beginning.
    pub weather: Weather,
    /// The faults of the servers, each with its time, in the order of times.
    pub blows: Vec<(Duration, Blow)>,
    /// Of 1,000 calls, how many are made by a client that is about to be stopped dead.
    pub crashes: u32,
    /// Of 1,000 calls, how many are dropped before they end.
    pub drops: u32,
    /// The longest wait of a client between two calls, in milliseconds.
    pub pace: u32,
    /// Whether the data go back.
    ///
    /// If the data go back, each client makes `calls` calls before that and `calls` more after it.
    /// The data go back to the state before the first calls.
    pub back: Option<Back>,
    /// The clients' staleness bound (clause AUTH-4). `None`: every decision is linearizable.
    pub bound: Option<Duration>,
    /// The defect of the clients; a plan that is drawn from a seed has none.
    pub defect: Option<JetStreamDefect>,
}

impl Plan {
    /// Draws the plan of this seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let servers = pick(&mut rng, &[1, 3, 3, 3, 3, 3, 5]);
        let mix = pick(
            &mut rng,
            &[Mix::Rooms, Mix::Rooms, Mix::Rooms, Mix::Lists, Mix::Lists, Mix::Users, Mix::All],
        );
        let weather = match rng.random_range(0..4) {
            0 => Weather::CALM,
            1 | 2 => Weather::ROUGH,
            _ => Weather {
                latency: rng.random_range(0..30),
                shortest: 0,
                lag: rng.random_range(0..400),
                lost_requests: rng.random_range(0..30),
                lost_answers: rng.random_range(0..60),
                late_requests: rng.random_range(0..40),
                feed_faults: rng.random_range(0..100),
            },
        };
        let mut blows = Vec::new();
        for _ in 0..rng.random_range(0..4) {
            blows.extend(blow(&mut rng, servers));
        }
        blows.sort_by_key(|(at, _)| *at);
        let mut plan = Self {
            servers,
            clients: rng.random_range(2..5),
            calls: rng.random_range(5..12),
            mix,
            weather,
            blows,
            crashes: pick(&mut rng, &[0, 0, 60, 150]),
            drops: pick(&mut rng, &[0, 0, 0, 80]),
            pace: pick(&mut rng, &[0, 5, 40, 400]),
            back: None,
            bound: None,
            defect: None,
        };
        if rng.random_range(0..5) == 0 {
            let but = servers > 1 && mix == Mix::Users && rng.random_range(0..2) == 0;
            plan.back = Some(if but { Back::But(rng.random_range(0..servers)) } else { Back::All });
        }
        let soon = |rng: &mut ChaCha8Rng| Duration::from_millis(rng.random_range(0..3_000));
        if rng.random_range(0..8) == 0 {
            let at = soon(&mut rng);
            plan.strike(at, Blow::Downgrade);
            plan.strike(at + soon(&mut rng), Blow::Upgrade);
        }
        let of_users = plan.back.is_none() && matches!(mix, Mix::Users | Mix::All);
        if of_users && rng.random_range(0..6) == 0 {
            let at = soon(&mut rng);
            plan.strike(at, Blow::Expire);
        } else if of_users && rng.random_range(0..3) == 0 {
            plan.bound = Some(Duration::from_millis(pick(&mut rng, &[50, 500, 3_000])));
            for _ in 0..rng.random_range(0..3) {
                let at = soon(&mut rng);
                plan.strike(at, Blow::Suspend(rng.random_range(10..5_000)));
            }
        }
        plan
    }

    /// Adds a fault at this time, and keeps `blows` in the order of times.
    fn strike(&mut self, at: Duration, blow: Blow) {
        let place = self.blows.partition_point(|(earlier, _)| *earlier <= at);
        self.blows.insert(place, (at, blow));
    }

    /// Whether the plan has a fault of this kind.
    #[must_use]
    pub fn has(&self, kind: impl Fn(&Blow) -> bool) -> bool {
        self.blows.iter().any(|(_, blow)| kind(blow))
    }
}

/// Draws a fault. A fault that lasts also gets its end.
fn blow(rng: &mut ChaCha8Rng, servers: usize) -> Vec<(Duration, Blow)> {
    let at = Duration::from_millis(rng.random_range(0..3_000));
    let end = at + Duration::from_millis(rng.random_range(20..6_000));
    let server = rng.random_range(0..servers);
    match rng.random_range(0..6) {
        0 | 1 if servers > 1 => vec![(at, Blow::Isolate(server)), (end, Blow::Join)],
        0 | 2 => vec![(at, Blow::Kill(server)), (end, Blow::Start(server))],
        1 | 3 => vec![(at, Blow::Pause(server)), (end, Blow::Resume(server))],
        4 => vec![(at, Blow::StepDown)],
        _ => vec![(at, Blow::Weather(Weather::ROUGH)), (end, Blow::Weather(Weather::CALM))],
    }
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    let place = rng.random_range(0..from.len());
    #[expect(clippy::indexing_slicing, reason = "the place is below the length")]
    from[place]
}
