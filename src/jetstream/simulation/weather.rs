use std::time::Duration;

/// What messages between clients and servers, and between servers, meet by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct Weather {
    /// The longest that a message usually takes, in milliseconds.
    pub latency: u64,
    /// The shortest.
    pub shortest: u64,
    /// The longest that a follower usually takes to catch up with its leader, in milliseconds.
    pub lag: u64,
    /// Of a thousand requests, how many are lost.
    pub lost_requests: u16,
    /// Of a thousand answers, how many are lost.
    pub lost_answers: u16,
    /// Of a thousand requests, how many are delivered only after a time in which the client has
    /// long given up, or come back.
    pub late_requests: u16,
    /// Of a thousand deliveries to a feed, how many are left out, repeated, or the last for long.
    pub feed_faults: u16,
}

impl Weather {
    /// Messages take their time, and nothing is lost.
    pub const CALM: Self = Self {
        latency: 3,
        shortest: 0,
        lag: 6,
        lost_requests: 0,
        lost_answers: 0,
        late_requests: 0,
        feed_faults: 0,
    };

    /// Every message takes a millisecond, and no follower lags: what takes time, counts rounds.
    pub const STEADY: Self = Self { latency: 1, shortest: 1, lag: 0, ..Self::CALM };

    /// Much is lost, late or left out.
    pub const ROUGH: Self = Self {
        latency: 8,
        shortest: 0,
        lag: 60,
        lost_requests: 15,
        lost_answers: 25,
        late_requests: 15,
        feed_faults: 30,
    };
}

/// Draws what happens; everything there is to draw in a simulation is drawn here.
#[derive(Debug)]
pub(super) struct Chance {
    rng: fastrand::Rng,
    pub(super) weather: Weather,
}

impl Chance {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), weather }
    }

    /// Whether something happens that happens so many times in a thousand.
    pub(super) fn happens(&mut self, of_a_thousand: u16) -> bool {
        of_a_thousand > 0 && self.rng.u16(..1000) < of_a_thousand
    }

    /// A time from 0 to this many milliseconds.
    pub(super) fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(..=most))
    }

    /// A time from `least` to `most` milliseconds.
    pub(super) fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(least..=most))
    }

    pub(super) fn latency(&mut self) -> Duration {
        self.between(self.weather.shortest.min(self.weather.latency), self.weather.latency)
    }

    pub(super) fn lag(&mut self) -> Duration {
        self.millis(self.weather.lag)
    }

    pub(super) fn one_of(&mut self, all: &[usize]) -> Option<usize> {
        self.rng.choice(all).copied()
    }

    /// A seed for another source.
    pub(super) fn seed(&mut self) -> u64 {
        self.rng.u64(..)
    }
}
