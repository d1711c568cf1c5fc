//! Crash points: every kind of write, stopped dead after each of its exchanges with the servers.
//!
//! The write runs alone or beside every other kind of write. The request after the last exchange is
//! not sent, or it is sent and its answer is lost. Then two other clients make calls at the same
//! time. One order of complete calls must explain their answers: the write that was cut short took
//! effect once, or not at all (clauses DUR-2, ERR-2, LIN-1).

use membership::{JetStreamStore, Simulation, Store, Weather};

use super::calls::{Call, REPLICAS, SERVERS, begin, few_views, look, open, views, writes};
use super::run::{everywhere, sum};
use super::world::alone;
use membership_conformance::history::{History, Recorder, check};

/// Stops `write` at each of its crash points, beside `rival` if there is one.
///
/// Returns how many crash points there are.
///
/// # Errors
/// Returns what is wrong, and after which exchange the write was stopped.
pub fn cut_everywhere(write: &Call, rival: Option<&Call>, seed: u64) -> Result<u64, String> {
    let cut = |sends| {
        everywhere(
            |exchanges| Cut { write, rival, exchanges, sends, seed }.play(),
            |exchanges, problem| {
                let how = if sends { "the next sent, its answer lost" } else { "none sent after" };
                let beside = rival.map(|r| format!(" beside {:?}", r.name)).unwrap_or_default();
                let name = write.name;
                format!("{name:?}{beside}, stopped after {exchanges} exchanges, {how}: {problem}")
            },
        )
    };
    Ok(cut(false)? + cut(true)?)
}

/// Every pair of writes that begin with the same data.
#[must_use]
pub fn pairs() -> Vec<(Call, Call)> {
    let all = writes();
    let pairs = all.iter().flat_map(|one| all.iter().map(move |other| (one, other)));
    pairs
        .filter(|(one, other)| one.start == other.start)
        .map(|(a, b)| (a.clone(), b.clone()))
        .collect()
}

/// [`cut_everywhere`] for many writes, on several threads.
///
/// # Errors
/// As [`cut_everywhere`]: returns the first error that any thread meets.
pub fn cut_all(all: Vec<(Call, Option<Call>)>, seed: u64, jobs: usize) -> Result<u64, String> {
    sum(all, jobs, |(write, rival)| cut_everywhere(write, rival.as_ref(), seed))
}

struct Cut<'a> {
    write: &'a Call,
    rival: Option<&'a Call>,
    exchanges: u32,
    sends: bool,
    seed: u64,
}

impl Cut<'_> {
    /// Plays and judges one crash point. Returns whether the write gets that far.
    fn play(&self) -> Result<bool, String> {
        let (stopped, history) = alone(async || self.run().await)?;
        check(&history).map_err(|violation| super::world::shown(&violation))?;
        Ok(stopped)
    }

    async fn run(&self) -> Result<(bool, History), String> {
        let simulation = Simulation::new(self.seed, SERVERS, Weather::CALM);
        let start = begin(&simulation, self.write.start, REPLICAS).await?;

        let recorder = Recorder::new();
        let victim = open(&simulation, "victim", REPLICAS).await?;
        let rival = open(&simulation, "rival", REPLICAS).await?;
        let (fresh, second) = (
            open(&simulation, "fresh", REPLICAS).await?,
            open(&simulation, "second", REPLICAS).await?,
        );
        victim.stop_after(self.exchanges, self.sends);
        let ((), ()) = tokio::join!(self.cut_short(&recorder, &victim), async {
            if let Some(write) = self.rival {
                recorder.call(2, &rival, write.op.clone()).await;
            }
        });
        // The client makes further exchanges after its answer, and may be stopped there, too.
        let _ = victim.close().await;
        let stopped = victim.is_stopped();
        drop(victim);

        let views = if self.rival.is_some() { few_views(3) } else { views(3) };
        tokio::join!(look(&recorder, 3, &fresh, &views), async {
            recorder.call(4, &second, self.write.op.clone()).await;
            if let Some(write) = self.rival {
                recorder.call(4, &second, write.op.clone()).await;
            }
        });
        look(&recorder, 3, &fresh, &views).await;
        Ok((stopped, History { start, ..recorder.history() }))
    }

    async fn cut_short(&self, recorder: &Recorder, victim: &JetStreamStore) {
        let call = recorder.begin(1, self.write.op.clone());
        tokio::select! {
            biased;
            answer = self.write.op.apply(victim) => {
                if !victim.is_stopped() {
                    recorder.end(call, answer);
                }
            }
            () = victim.stopped() => {}
        }
    }
}
