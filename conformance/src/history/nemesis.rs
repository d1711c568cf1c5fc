//! The nemesis: it injects faults while clients make calls.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::{Playing, Reached};
use crate::target::{Fault, Harm, Instance, Replicas};
use crate::verdict::{Failure, Verdict};

/// Injects faults of servers, one at a time, drawn from a seed.
pub struct Nemesis<'a> {
    /// The servers.
    pub servers: &'a dyn Replicas,
    /// The longest that a rekey or a deletion may take. A fault that hits only such calls may show
    /// only after this time.
    pub slow_bound: Duration,
    /// The source of the random choices.
    pub rng: ChaCha8Rng,
}

/// Faults that hit a call: the call failed, or took many times as long as others.
pub const FAULTS: &str = "faults that hit a call";

/// A kind of fault.
#[derive(Debug)]
enum Trouble {
    /// This harm to one server, perhaps a leader.
    One(Harm),
    /// This harm to a majority of the servers, so that no call works.
    Most(Harm),
    /// A single server keeps the data for a while, then all servers do again.
    Replicas,
}

const TROUBLES: &[(Trouble, &str)] = &[
    (Trouble::One(Harm::Isolate), "servers cut off"),
    (Trouble::One(Harm::Isolate), "servers cut off"),
    (Trouble::One(Harm::Blackhole), "servers gone silent"),
    (Trouble::One(Harm::Kill), "servers killed"),
    (Trouble::One(Harm::Pause), "servers paused"),
    (Trouble::One(Harm::Stop), "servers stopped"),
    (Trouble::One(Harm::Mute), "servers unheard"),
    (Trouble::One(Harm::Deafen), "servers that hear nothing"),
    (Trouble::One(Harm::Slow), "servers behind slow links"),
    (Trouble::Most(Harm::Isolate), "majorities cut apart"),
    (Trouble::Most(Harm::Kill), "majorities killed"),
    (Trouble::Most(Harm::Pause), "majorities paused"),
    (Trouble::Replicas, "changes of replicas"),
];

impl Nemesis<'_> {
    /// Injects one fault, waits until it hits a call and some time more, and ends the fault.
    ///
    /// # Errors
    /// Returns the target's own errors. Also fails if the fault hits no call: then the target does
    /// not do what it claims.
    pub async fn strike(&mut self, playing: &Playing) -> Verdict<Reached> {
        let drawn = self.rng.random_range(0..TROUBLES.len());
        let Some((trouble, name)) = TROUBLES.get(drawn) else { return Ok(Reached::new()) };
        let before = playing.pulse().hits();
        let victim = self.victim().await?;
        match trouble {
            Trouble::One(harm) => self.servers.harm(victim, *harm).await?,
            Trouble::Most(harm) => {
                for next in 0..=self.servers.count() / 2 {
                    self.servers.harm((victim + next) % self.servers.count(), *harm).await?;
                }
            }
            Trouble::Replicas => {
                self.servers.keep_by(1).await?;
                self.some_while().await;
                self.servers.keep_by(self.servers.count()).await?;
                return Ok(Reached::from([(*name, 1)]));
            }
        }
        until_hit(playing, before, name, self.slow_bound).await?;
        self.some_while().await;
        self.servers.heal().await?;
        until_answered(playing, self.slow_bound).await;
        Ok(Reached::from([(*name, 1), (FAULTS, 1)]))
    }

    /// Draws a server; half of the time the leader of a part.
    async fn victim(&mut self) -> Verdict<usize> {
        let parts = self.servers.parts();
        let drawn = self.rng.random_range(0..parts.len().max(1) * 2);
        match parts.get(drawn) {
            Some(part) => Ok(self.servers.leader(part).await?),
            None => Ok(self.rng.random_range(0..self.servers.count().max(1))),
        }
    }

    async fn some_while(&mut self) {
        let millis = self.rng.random_range(0..2_000);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// Injects a fault that the target declares, waits until it hits a call, and ends the fault.
///
/// # Errors
/// As [`Nemesis::strike`].
pub async fn inject(
    instance: &dyn Instance,
    fault: &Fault,
    playing: &Playing,
    slow_bound: Duration,
) -> Verdict<Reached> {
    let before = playing.pulse().hits();
    instance.inject(fault).await?;
    until_hit(playing, before, fault.name, slow_bound).await?;
    instance.heal().await?;
    until_answered(playing, slow_bound).await;
    Ok(Reached::from([(FAULTS, 1)]))
}

/// Waits until a fault hits a call: more calls than `before` have failed or were slow.
async fn until_hit(playing: &Playing, before: u64, name: &str, slow_bound: Duration) -> Verdict {
    let patience = slow_bound * 2;
    let deadline = Instant::now() + patience;
    while playing.pulse().hits() == before {
        if Instant::now() > deadline {
            let got = format!("every call was answered as before, for {patience:?}");
            return Err(Failure::new(format!("{name}: some call to be hit"), got));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Waits until some calls are answered again, but no longer than `slow_bound`. The nemesis does not
/// judge whether calls must be answered by then.
async fn until_answered(playing: &Playing, slow_bound: Duration) {
    let (before, deadline) = (playing.pulse().answers(), Instant::now() + slow_bound);
    while playing.pulse().answers() < before + 20 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
