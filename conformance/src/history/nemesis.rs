//! What goes wrong while clients ask.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::{Playing, Reached};
use crate::target::{Fault, Harm, Instance, Replicas};
use crate::verdict::{Failure, Verdict};

/// Things that go wrong with the servers, one at a time, drawn from a seed.
pub struct Nemesis<'a> {
    /// Whose servers they are.
    pub servers: &'a dyn Replicas,
    /// How long any call may take: all that a fault hits may be rekeys and deletions, so that this is how
    /// long it may be until one tells of it.
    pub slow_bound: Duration,
    /// What is drawn from.
    pub rng: ChaCha8Rng,
}

/// Faults that went on until a call told of them: it failed, or took many times as long as others.
pub const FAULTS: &str = "faults that hit a call";

/// One thing that goes wrong.
#[derive(Debug)]
enum Trouble {
    /// This befalls one server, perhaps one that leads.
    One(Harm),
    /// This befalls as many as are a majority, so that nothing works.
    Most(Harm),
    /// One server keeps everything for a while, then all do again.
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
    /// Does one thing, has it last until calls tell of it and some while more, and undoes it.
    ///
    /// # Errors
    /// The target's own, and where no call told of a fault: then the target does not do what it
    /// claims.
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
        told(playing, before, name, self.slow_bound).await?;
        self.some_while().await;
        self.servers.heal().await?;
        answered(playing, self.slow_bound).await;
        Ok(Reached::from([(*name, 1), (FAULTS, 1)]))
    }

    /// Any server; every other time one that leads a part.
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

/// Breaks a store in one of the ways its target declares until calls tell of it, and heals it.
///
/// # Errors
/// As of [`Nemesis::strike`].
pub async fn inject(
    instance: &dyn Instance,
    fault: &Fault,
    playing: &Playing,
    slow_bound: Duration,
) -> Verdict<Reached> {
    let before = playing.pulse().hits();
    instance.inject(fault).await?;
    told(playing, before, fault.name, slow_bound).await?;
    instance.heal().await?;
    answered(playing, slow_bound).await;
    Ok(Reached::from([(FAULTS, 1)]))
}

/// Waits until more calls failed or were slow than `before`.
async fn told(playing: &Playing, before: u64, name: &str, slow_bound: Duration) -> Verdict {
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

/// Waits until a call has been answered again, or long enough: it is not for a nemesis to judge.
async fn answered(playing: &Playing, slow_bound: Duration) {
    let (before, deadline) = (playing.pulse().answers(), Instant::now() + slow_bound);
    while playing.pulse().answers() < before + 20 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
