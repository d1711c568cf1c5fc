//! The command `simulate`: the JetStream store on simulated servers.

use std::num::{NonZeroU64, NonZeroUsize};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use clap::Args;

use crate::simulate::{self, Tally, crash, pause, writes};
use membership_conformance::report::{human, refuse};
use membership_conformance::seed;

/// Runs the JetStream store on simulated servers: stops every write after each of its exchanges,
/// holds every call before each of its exchanges, then plays histories with all kinds of faults
#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// How many histories to play
    #[arg(long, value_name = "N", default_value = "20000")]
    histories: NonZeroU64,

    /// The seed of the first history; each further history has the next seed [default:
    /// MEMBERSHIP_SEED, or a new one]
    #[arg(long, value_name = "N", value_parser = seed::parse)]
    seed: Option<u64>,

    /// How many histories to play at once [default: one a core]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Play only the history of the seed, and print everything that its clients and servers sent
    #[arg(long, conflicts_with = "histories")]
    trace: bool,
}

/// So many histories reach every event that is counted.
const ENOUGH: u64 = 2_000;
/// How many histories a run of the suite plays after its cases.
const SOME: u64 = 500;
/// How often progress is printed.
const PACE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &Simulate) -> ExitCode {
    match simulated(args) {
        Ok(code) => code,
        Err(why) => refuse(&why),
    }
}

fn simulated(args: &Simulate) -> Result<ExitCode, String> {
    let seed = args.seed.map_or_else(seed::from_environment, Ok)?;
    let jobs = args.jobs.map_or_else(cores, NonZeroUsize::get);
    if args.trace {
        return Ok(trace(seed));
    }
    anstream::println!("simulated servers   seed {seed:#x}\n");
    let began = Instant::now();
    if args.histories.get() > 1 {
        let enumerated: [(_, Enumerated); 2] = [("crash points", crash_points), ("pauses", pauses)];
        for (what, play) in enumerated {
            match play(seed, jobs) {
                Ok(count) => {
                    anstream::println!("{count:>12}  {what} · {}", human(began.elapsed()));
                }
                Err(problem) => {
                    anstream::println!("{problem}\n\nFAILED");
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    }
    let said = Mutex::new(Instant::now());
    let progress = |tally: &Tally| {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() > PACE {
            *said = Instant::now();
            let (histories, took) = (tally.histories, human(began.elapsed()));
            anstream::eprintln!("{histories:>12}  histories · {took}");
        }
    };
    let outcome = simulate::run(seed, args.histories.get(), None, jobs, &progress);
    let took = human(began.elapsed());
    anstream::println!("{:>12}  histories · {took}\n", outcome.tally.histories);
    for (what, count) in outcome.tally.lines() {
        anstream::println!("{count:>12}  {what}");
    }
    if let Some((seed, problem)) = outcome.failure {
        anstream::println!("\nseed {seed:#x}: {problem}\n");
        anstream::println!("again: cargo conformance simulate --seed {seed:#x} --trace\n\nFAILED");
        return Ok(ExitCode::FAILURE);
    }
    let missed = outcome.tally.missed();
    if outcome.tally.histories >= ENOUGH && !missed.is_empty() {
        anstream::println!("\nFAILED: never met: {}", missed.join(" · "));
        return Ok(ExitCode::FAILURE);
    }
    anstream::println!("\nPASSED: one order explains every answer of each history");
    Ok(ExitCode::SUCCESS)
}

/// Simulates for some seconds, after the cases of a run. Returns a line for the report, and whether
/// everything passed.
pub(super) fn some(seed: u64, jobs: Option<NonZeroUsize>) -> (String, bool) {
    let jobs = jobs.map_or_else(cores, NonZeroUsize::get);
    let began = Instant::now();
    let alone = writes().into_iter().map(|write| (write, None)).collect();
    let points = match crash::cut_all(alone, seed, jobs) {
        Ok(points) => points,
        Err(problem) => return (format!("simulated servers: {problem}\n"), false),
    };
    let outcome = simulate::run(seed, SOME, None, jobs, &|_| {});
    match outcome.failure {
        None => {
            let (histories, took) = (outcome.tally.histories, human(began.elapsed()));
            (
                format!(
                    "simulated servers: {histories} histories, {points} crash points · {took}\n"
                ),
                true,
            )
        }
        Some((seed, problem)) => {
            let again = format!("again: cargo conformance simulate --seed {seed:#x} --trace");
            (format!("simulated servers, seed {seed:#x}: {problem}\n{again}\n"), false)
        }
    }
}

fn trace(seed: u64) -> ExitCode {
    let played = simulate::play(seed, true);
    anstream::println!("{:#?}\n\n{}", simulate::Plan::draw(seed), played.trace);
    match played.problem {
        None => {
            anstream::println!("PASSED: one order explains every answer");
            ExitCode::SUCCESS
        }
        Some(problem) => {
            anstream::println!("{problem}\n\nFAILED");
            ExitCode::FAILURE
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Plays every crash point or every pause, with a seed and a number of threads. Returns how many
/// there were.
type Enumerated = fn(u64, usize) -> Result<u64, String>;

/// Plays every kind of write, alone and beside every other write.
fn crash_points(seed: u64, jobs: usize) -> Result<u64, String> {
    let alone = writes().into_iter().map(|write| (write, None));
    let beside = crash::pairs().into_iter().map(|(write, rival)| (write, Some(rival)));
    crash::cut_all(alone.chain(beside).collect(), seed, jobs)
}

/// Holds every kind of call while other clients make calls, and holds two calls at once.
fn pauses(seed: u64, jobs: usize) -> Result<u64, String> {
    Ok(pause::hold_all(pause::pairs(), seed, jobs)?
        + pause::hold_a_move(None, seed)?
        + pause::hold_a_deletion(None, seed)?)
}
