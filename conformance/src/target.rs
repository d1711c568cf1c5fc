//! What a store brings to be run through the suite.

mod past;

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::power::{self, Contents, Files, Recording};
use async_trait::async_trait;
use membership::{EndpointId, Epoch, Error, RoomId, Store, UserKey};

use crate::history::Reached;
pub use past::{Downgrade, Leaves, Loss, Lost, Replacement, Rewind};

/// Why a target could not do what the suite asked of it: its own trouble, not the store's.
pub type TargetError = Box<dyn std::error::Error + Send + Sync>;

/// Something a case needs of a target, and a target may decline.
///
/// A case whose need is declined is reported as *not claimed*, with the target's reason: never as
/// passed, and never left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Need {
    /// Several clients of one store's data: [`Instance::open`] works more than once.
    Clients,
    /// The data outlive their last client: [`Instance::open`] after `close` finds them. That they were not
    /// kept in memory shows only with [`Need::Processes`].
    Reopen,
    /// A client can be opened of data that must exist already: [`Instance::open_existing`].
    Existing,
    /// Another process can open the data, and be killed: [`Target::attach`].
    Processes,
    /// The store can be broken: [`Target::faults`] and [`Instance::inject`].
    Faults,
    /// Records can be corrupted: [`Instance::corrupt`].
    Corruption,
    /// A room can be put at any epoch: [`Instance::plant_epoch`].
    Epochs,
    /// Several servers hold the data, and can be cut apart: [`Instance::replicas`].
    Replicas,
    /// What is acknowledged outlives all servers killed at once: each write is synced first.
    Synced,
    /// A client may answer decisions from memory, within a bound: [`Instance::open_bounded`].
    Bounded,
    /// Clients can be made to believe that the machine was suspended: [`Instance::suspend`].
    Suspend,
    /// What it does to its files can be watched, and so every end foreseen that a power cut could
    /// bring: [`Instance::files`], or [`Instance::record`] and [`Instance::put_back`]. With
    /// [`Need::Processes`].
    PowerCuts,
    /// The data can go back to an earlier state: [`Target::rewinds`], [`Instance::remember`] and
    /// [`Instance::rewind`].
    Rewind,
    /// Other data can take their place under open clients: [`Target::replacements`] and
    /// [`Instance::replace`].
    Replace,
    /// Records can vanish under open clients: [`Target::losses`] and [`Instance::lose`].
    Vanish,
    /// Something older than the store needs can serve the data: [`Target::downgrades`] and
    /// [`Instance::downgrade`].
    Downgrade,
    /// What it acknowledges is synced later, so that a power cut may lose it. With
    /// [`Need::PowerCuts`].
    Unsynced,
}

impl Need {
    /// All there are.
    pub const ALL: [Self; 17] = [
        Self::Clients,
        Self::Reopen,
        Self::Existing,
        Self::Processes,
        Self::Faults,
        Self::Corruption,
        Self::Epochs,
        Self::Replicas,
        Self::Synced,
        Self::Bounded,
        Self::Suspend,
        Self::PowerCuts,
        Self::Rewind,
        Self::Replace,
        Self::Vanish,
        Self::Downgrade,
        Self::Unsynced,
    ];
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clients => "several clients",
            Self::Reopen => "reopening",
            Self::Existing => "data that must exist",
            Self::Processes => "several processes",
            Self::Faults => "faults",
            Self::Corruption => "corruption",
            Self::Epochs => "planted epochs",
            Self::Replicas => "replicas",
            Self::Synced => "synced writes",
            Self::Bounded => "bounded staleness",
            Self::Suspend => "a suspended machine",
            Self::PowerCuts => "power cuts",
            Self::Rewind => "data that go back",
            Self::Replace => "data that are replaced",
            Self::Vanish => "data that vanish",
            Self::Downgrade => "something older",
            Self::Unsynced => "unsynced writes",
        })
    }
}

/// Whether a target can do what a case needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It can.
    Claimed,
    /// It cannot, for this reason.
    Declined(&'static str),
}

/// A way in which a store's surroundings can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens, in words; it names the fault to [`Instance::inject`].
    pub name: &'static str,
    /// Whether reads and decisions cannot be answered while it lasts. If they can, they must be
    /// right.
    pub stops_reads: bool,
    /// Whether writes cannot be acknowledged while it lasts.
    pub stops_writes: bool,
}

/// A record to be corrupted, named by what a caller would ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// A room's record.
    Room(RoomId),
    /// A membership.
    Member(RoomId, EndpointId),
    /// A sealed key.
    Key(RoomId, EndpointId, Epoch),
    /// A user's record.
    User(UserKey),
    /// The mark of the version that wrote the data: it becomes that of one yet to come.
    Version,
}

/// A kind of store that the suite can make as many of as it likes.
///
/// The three methods without a default are enough; everything a target leaves out is reported as
/// not claimed. `README.md` has a whole one in some thirty lines.
#[async_trait]
pub trait Target: Send + Sync {
    /// A short lower-case name, which no other target has, without spaces: a column of the matrix, the
    /// first part of every test's name.
    fn name(&self) -> &str;

    /// The `op_timeout` of the stores it makes (clause TIME-1): from 1 ms to 30 s. A store that may take
    /// longer could hang, and nobody would call it that.
    fn op_timeout(&self) -> Duration;

    /// The same of those that [`create_for`](Self::create_for) makes for these needs. Cases that break
    /// nothing never wait for it, so it may be long there, for a busy machine's sake; those that do
    /// wait for it again and again.
    fn op_timeout_for(&self, _needs: &[Need]) -> Duration {
        self.op_timeout()
    }

    /// Whether it can do what `need` says, the same each time. Asked when tests are listed, so it does no
    /// I/O.
    fn claims(&self, need: Need) -> Claim {
        let _ = need;
        Claim::Declined("the target does not offer it")
    }

    /// The ways it can break a store; none, unless it claims [`Need::Faults`].
    fn faults(&self) -> &[Fault] {
        &[]
    }

    /// The ways in which it can have data go back; none, unless it claims [`Need::Rewind`].
    fn rewinds(&self) -> &[Rewind] {
        &[]
    }

    /// The ways in which it can replace data; none, unless it claims [`Need::Replace`].
    fn replacements(&self) -> &[Replacement] {
        &[]
    }

    /// The ways in which it can have records vanish; none, unless it claims [`Need::Vanish`].
    fn losses(&self) -> &[Loss] {
        &[]
    }

    /// What is older than its stores need; none, unless it claims [`Need::Downgrade`].
    fn downgrades(&self) -> &[Downgrade] {
        &[]
    }

    /// How long a client may fail after its data went back, were replaced or vanished, until it is right
    /// by itself or fails for good (clause PAST-1).
    fn failover(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// How many times as long a call takes as one of a store in this process, about: cases that do
    /// the same thing over and over, to meet a rare moment, do it that many times less often.
    fn pace(&self) -> u32 {
        1
    }

    /// Looks for what its stores need from outside, such as a server to start, and says what was
    /// found, for the report's head. Asked before anything runs: what is missing ends the run.
    async fn prepare(&self) -> Result<Option<String>, TargetError> {
        Ok(None)
    }

    /// Returns when what dropped instances left behind is gone. Asked when all has run.
    async fn finish(&self) {}

    /// Makes an empty store that no other instance shares.
    async fn create(&self) -> Result<Box<dyn Instance>, TargetError>;

    /// Makes an empty store for a case with these needs. A target whose stores share servers
    /// gives one that will be broken servers of its own.
    async fn create_for(&self, needs: &[Need]) -> Result<Box<dyn Instance>, TargetError> {
        let _ = needs;
        self.create().await
    }

    /// Finds, from another process, the store whose [`Instance::address`] this is.
    async fn attach(&self, address: &str) -> Result<Box<dyn Instance>, TargetError> {
        let _ = address;
        Err(unclaimed(Need::Processes))
    }
}

/// One store's data. Dropping it destroys them, except where it came from [`Target::attach`].
#[async_trait]
pub trait Instance: Send + Sync {
    /// Opens a client; a second one of the same data where [`Need::Clients`] is claimed.
    async fn open(&self) -> Result<Arc<dyn Store>, Error>;

    /// Opens a client whose decisions may be this much out of date (clause AUTH-4).
    async fn open_bounded(&self, bound: Duration) -> Result<Arc<dyn Store>, Error> {
        let _ = bound;
        Err(Error::unavailable(unclaimed(Need::Bounded)))
    }

    /// Opens a client of data that must exist already (clause DUR-4).
    async fn open_existing(&self) -> Result<Arc<dyn Store>, Error> {
        Err(Error::unavailable(unclaimed(Need::Existing)))
    }

    /// Has every open client of these data find that the machine was suspended for so long (clause TIME-3):
    /// what counts suspended time goes on by that at once, and timers do not.
    async fn suspend(&self, time: Duration) -> Result<(), TargetError> {
        let _ = time;
        Err(unclaimed(Need::Suspend))
    }

    /// How many files or connections this process's clients of these data hold, where the target
    /// can tell (clauses CLOSE-1, CLOSE-3).
    async fn held(&self) -> Result<Option<usize>, TargetError> {
        Ok(None)
    }

    /// What another process needs to find these data.
    fn address(&self) -> Result<String, TargetError> {
        Err(unclaimed(Need::Processes))
    }

    /// Where its files are, which nobody has open now.
    fn files(&self) -> Result<Files, TargetError> {
        Err(unclaimed(Need::PowerCuts))
    }

    /// Runs `child`, which works on these data and asks to be watched, to its end, and records what
    /// became of the files meanwhile. A target whose files are written by servers has these watched.
    async fn record(&self, child: Command) -> Result<Recording, TargetError> {
        let files = self.files()?;
        tokio::task::spawn_blocking(move || power::record(child, &files, &[])).await?
    }

    /// Puts these files into the place of its own, of which nobody has used any.
    async fn put_back(&self, contents: &Contents) -> Result<(), TargetError> {
        contents.lay_out(&self.files()?.folder)
    }

    /// Begins a fault, one of [`Target::faults`]; one at a time.
    async fn inject(&self, fault: &Fault) -> Result<(), TargetError> {
        let _ = fault;
        Err(unclaimed(Need::Faults))
    }

    /// Ends the fault that was injected, if any.
    async fn heal(&self) -> Result<(), TargetError> {
        Err(unclaimed(Need::Faults))
    }

    /// Overwrites a stored record with what no store writes.
    async fn corrupt(&self, record: &Stored) -> Result<(), TargetError> {
        let _ = record;
        Err(unclaimed(Need::Corruption))
    }

    /// Keeps a copy of the data as they are now, for [`rewind`](Self::rewind). Clients stay open, and may
    /// fail meanwhile; none of them writes.
    async fn remember(&self) -> Result<(), TargetError> {
        Err(unclaimed(Need::Rewind))
    }

    /// Puts back what was [remembered](Self::remember), one of [`Target::rewinds`]; once for each instance.
    /// Returns when the data serve again.
    async fn rewind(&self, how: &Rewind) -> Result<(), TargetError> {
        let _ = how;
        Err(unclaimed(Need::Rewind))
    }

    /// Has the data of an empty store take the place of these, one of [`Target::replacements`]. The next
    /// client that is opened is one of that store.
    async fn replace(&self, how: &Replacement) -> Result<(), TargetError> {
        let _ = how;
        Err(unclaimed(Need::Replace))
    }

    /// Has records vanish, one of [`Target::losses`]. Whether they did: what serves the data may refuse to
    /// have them removed.
    async fn lose(&self, how: &Loss) -> Result<bool, TargetError> {
        let _ = how;
        Err(unclaimed(Need::Vanish))
    }

    /// Has something older serve the data from now on, one of [`Target::downgrades`].
    async fn downgrade(&self, to: &Downgrade) -> Result<(), TargetError> {
        let _ = to;
        Err(unclaimed(Need::Downgrade))
    }

    /// Ends what [`downgrade`](Self::downgrade) did.
    async fn upgrade(&self) -> Result<(), TargetError> {
        Err(unclaimed(Need::Downgrade))
    }

    /// The servers, where [`Need::Replicas`] is claimed.
    fn replicas(&self) -> Result<&dyn Replicas, TargetError> {
        Err(unclaimed(Need::Replicas))
    }

    /// What its clients went through, where the target counts it: everything it counts, met or
    /// not, for the report.
    fn reached(&self) -> Reached {
        Reached::new()
    }

    /// Puts an encrypted room at `epoch`, as that many rekeys with its current keys would have.
    async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), TargetError> {
        let _ = (room, epoch);
        Err(unclaimed(Need::Epochs))
    }
}

/// What can happen to one server of a replicated store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Harm {
    /// No other server reaches it, nor it them; its clients still reach it.
    Isolate,
    /// The links to the other servers and to its clients stay open and carry nothing.
    Blackhole,
    /// The process is killed (`SIGKILL`); [`Replicas::heal`] starts it again on its data.
    Kill,
    /// The process is paused (`SIGSTOP`); [`Replicas::heal`] lets it go on.
    Pause,
    /// The process is asked to end (`SIGTERM`); [`Replicas::heal`] starts it again on its data.
    Stop,
    /// What it sends the other servers never arrives; what they send it does.
    Mute,
    /// What the other servers send it never arrives; what it sends them does.
    Deafen,
    /// The links to the other servers and to its clients take a tenth of a second each way.
    Slow,
}

/// The servers of a replicated store ([`Need::Replicas`]).
#[async_trait]
pub trait Replicas: Send + Sync {
    /// How many servers hold the data: an odd number, at least three.
    fn count(&self) -> usize;

    /// The parts of the data that each elect a leader of their own, such as buckets.
    fn parts(&self) -> &[&'static str];

    /// Opens a client that reaches this server and no other.
    async fn open_at(&self, server: usize) -> Result<Arc<dyn Store>, Error>;

    /// A server that a client of this store is connected to; the first, where clients have no
    /// server of their own.
    async fn connected(&self) -> Result<usize, TargetError> {
        Ok(0)
    }

    /// The same as `open_at`, with decisions that may be this much out of date
    /// ([`Need::Bounded`]).
    async fn open_bounded_at(
        &self,
        server: usize,
        bound: Duration,
    ) -> Result<Arc<dyn Store>, Error> {
        let _ = (server, bound);
        Err(Error::unavailable(unclaimed(Need::Bounded)))
    }

    /// How long calls may fail after a minority was harmed, and after all harm was ended (clause
    /// FAULT-1): what an election may take, and a client's way to another server.
    fn failover(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// Has this server lead `part`; returns once it does, as most servers see it.
    async fn lead(&self, server: usize, part: &str) -> Result<(), TargetError>;

    /// The server that leads `part`, as most servers see it.
    async fn leader(&self, part: &str) -> Result<usize, TargetError>;

    /// Does this to one server; adds to what was done before. Returns when it is done, not when
    /// the others have noticed.
    async fn harm(&self, server: usize, harm: Harm) -> Result<(), TargetError>;

    /// Ends all harm, and returns when every server serves again.
    async fn heal(&self) -> Result<(), TargetError>;

    /// Has only so many servers keep the data, while clients go on; returns when all of these have
    /// everything.
    async fn keep_by(&self, count: usize) -> Result<(), TargetError>;
}

/// What a target answers that is asked for what it does not claim.
#[derive(Debug, thiserror::Error)]
#[error("the target claims no {0}, and must not be asked for it")]
pub struct Unclaimed(pub Need);

fn unclaimed(need: Need) -> TargetError {
    Unclaimed(need).into()
}
