use std::time::Duration;

/// How long messages between clients, servers and replicas take, and how many are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct Weather {
    /// The longest time that a message usually takes, in milliseconds.
    pub latency: u64,
    /// The shortest time that a message takes, in milliseconds.
    pub shortest: u64,
    /// The longest time that a follower usually takes to catch up with its leader, in milliseconds.
    pub lag: u64,
    /// Of a thousand requests, how many are lost.
    pub lost_requests: u16,
    /// Of a thousand answers, how many are lost.
    pub lost_answers: u16,
    /// Of a thousand requests, how many arrive only after the client's deadline.
    pub late_requests: u16,
    /// Of a thousand deliveries to a feed, how many are left out, repeated, or the last one.
    pub feed_faults: u16,
}

impl Weather {
    /// Messages take a few milliseconds, and none is lost.
    pub const CALM: Self = Self {
        latency: 3,
        shortest: 0,
        lag: 6,
        lost_requests: 0,
        lost_answers: 0,
        late_requests: 0,
        feed_faults: 0,
    };

    /// Every message takes one millisecond, and no follower lags. So the time that a call takes is
    /// the number of its rounds.
    pub const STEADY: Self = Self { latency: 1, shortest: 1, lag: 0, ..Self::CALM };

    /// Many messages are lost, late or left out.
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

/// The one source of chance of a simulation.
#[derive(Debug)]
pub(super) struct Chance {
    rng: fastrand::Rng,
    pub(super) weather: Weather,
}

impl Chance {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), weather }
    }

    /// Draws whether an event happens that happens this many times in a thousand.
    pub(super) fn happens(&mut self, of_a_thousand: u16) -> bool {
        of_a_thousand > 0 && self.rng.u16(..1000) < of_a_thousand
    }

    /// Draws a time from 0 to this many milliseconds.
    pub(super) fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(..=most))
    }

    /// Draws a time from `least` to `most` milliseconds.
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

    /// Draws a seed for another generator.
    pub(super) fn seed(&mut self) -> u64 {
        self.rng.u64(..)
    }
}
