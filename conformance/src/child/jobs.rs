//! The jobs of child processes.

use std::fmt;
use std::io::{BufRead, Write};
use std::str::FromStr;
use std::sync::Arc;

use membership::{Error, Rekey, Store, UserKey};

use super::script::Script;
use crate::make::{endpoint, epoch, key_of, room, sealed};
use crate::model::Model;
use crate::show::Show;

/// The job of a child process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Run all scripts of `seed` concurrently. After each acknowledged call, write the line
    /// `task number`.
    Work {
        /// The seed of the scripts.
        seed: u64,
        /// The number of calls in each script.
        len: usize,
    },
    /// Rekey the room `large` again and again. After each rekey, write the new epoch.
    Rekey {
        /// The number of members besides the owner.
        members: usize,
    },
    /// Rekey the room `contested` in a race with other children. After each rekey that succeeded,
    /// write the new epoch.
    Race {
        /// A number that this child puts into the keys it writes. Each child has another number, so the
        /// keys show which child won.
        seed: u64,
    },
    /// Write the decision of `is_authorized` for each user key that comes on standard input.
    Ask,
    /// Open the store and close it.
    Open,
}

/// How many rekeys a child attempts in a race.
const ATTEMPTS: usize = 40;

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work { seed, len } => write!(f, "work {seed} {len}"),
            Self::Rekey { members } => write!(f, "rekey {members}"),
            Self::Race { seed } => write!(f, "race {seed}"),
            Self::Ask => f.write_str("ask"),
            Self::Open => f.write_str("open"),
        }
    }
}

impl FromStr for Job {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<_> = text.split(' ').collect();
        let number = |word: &str| word.parse().map_err(|_| ());
        Ok(match words.as_slice() {
            ["work", seed, len] => {
                Self::Work { seed: number(seed)?, len: len.parse().map_err(|_| ())? }
            }
            ["rekey", members] => Self::Rekey { members: members.parse().map_err(|_| ())? },
            ["race", seed] => Self::Race { seed: number(seed)? },
            ["ask"] => Self::Ask,
            ["open"] => Self::Open,
            _ => return Err(()),
        })
    }
}

/// The first line that a child writes: the store is open.
pub(super) const READY: &str = "ready";

pub(super) async fn run(job: Job, store: Arc<dyn Store>) -> Result<(), String> {
    tell(READY)?;
    if job == Job::Ask {
        return answer(&*store).await;
    }
    std::thread::spawn(end_with_the_parent);
    match job {
        Job::Work { seed, len } => work(seed, len, &store).await,
        Job::Rekey { members } => rekey(members, &*store).await,
        Job::Race { seed } => race(seed, &*store).await.map_err(|error| error.show()),
        Job::Ask | Job::Open => Ok(()),
    }?;
    store.close().await.map_err(|error| error.show())
}

/// Exits when the parent has ended. The parent never writes to these children, so their standard
/// input ends only with it.
fn end_with_the_parent() {
    let mut ignored = String::new();
    while std::io::stdin().read_line(&mut ignored).is_ok_and(|bytes| bytes > 0) {}
    std::process::exit(0);
}

/// Writes a line to the parent. On return the line is in the pipe, so it survives a kill.
fn tell(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

async fn work(seed: u64, len: usize, store: &Arc<dyn Store>) -> Result<(), String> {
    let tasks: Vec<_> = (0..Script::TASKS)
        .map(|task| {
            let store = Arc::clone(store);
            tokio::spawn(async move { play(&Script::new(seed, task, len), task, &*store).await })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn play(script: &Script, task: u64, store: &dyn Store) -> Result<(), String> {
    let mut model: Model = Script::beginning();
    for (number, call) in (1..).zip(script.calls()) {
        let (answer, right) = (call.apply(store).await, model.apply(call));
        if answer != right {
            return Err(format!("{call:?} -> {}, not {}", answer.show(), right.show()));
        }
        tell(&format!("{task} {number}"))?;
    }
    Ok(())
}

async fn rekey(members: usize, store: &dyn Store) -> Result<(), String> {
    loop {
        let next = rekey_large(members, store).await.map_err(|error| error.show())?;
        tell(&next)?;
    }
}

async fn rekey_large(members: usize, store: &dyn Store) -> Result<String, Error> {
    let current = store.room(&room("large")).await?.epoch;
    let next = epoch(current.get() + 1);
    let everyone = std::iter::once("ann".to_owned()).chain((0..members).map(|n| format!("m{n}")));
    let keys = everyone.map(|id| endpoint(&id)).map(|who| (who.clone(), key_of(&who, next)));
    let after = store.rekey(&room("large"), Rekey::new(current, [], keys)?).await?;
    Ok(after.epoch.to_string())
}

async fn race(seed: u64, store: &dyn Store) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let current = store.room(&room("contested")).await?.epoch;
        let key = sealed(format!("{seed} won epoch {}", current.get() + 1));
        let rekey = Rekey::new(current, [], [(endpoint("ann"), key)])?;
        match store.rekey(&room("contested"), rekey).await {
            Ok(after) => tell(&after.epoch.to_string()).map_err(Error::unavailable)?,
            Err(Error::StaleEpoch { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

async fn answer(store: &dyn Store) -> Result<(), String> {
    // Blocking the thread is fine: nothing else runs in this process.
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let key: UserKey = line.parse().map_err(|error: Error| error.show())?;
        tell(&store.is_authorized(&key).await.show())?;
    }
    Ok(())
}
