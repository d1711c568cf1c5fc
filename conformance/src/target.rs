//! A target: the code by which the suite makes, opens and breaks stores of one kind.

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

/// An error of the target itself, such as a server that does not start. Such an error says nothing about the store.
pub type TargetError = Box<dyn std::error::Error + Send + Sync>;

/// An ability that a case needs and that a target may lack.
///
/// If the target lacks it, the case is reported as *not claimed*, with the target's reason. The case neither passes nor
/// disappears from the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Need {
    /// Several clients can use the same data: [`Instance::open`] works more than once.
    Clients,
    /// The data outlive their last client: [`Instance::open`] after `close` finds them. Only [`Need::Processes`]
    /// shows that they were not merely kept in memory.
    Reopen,
    /// A client can demand that the data exist already: [`Instance::open_existing`].
    Existing,
    /// Another process can open the data and be killed: [`Target::attach`].
    Processes,
    /// Faults can be injected: [`Target::faults`] and [`Instance::inject`].
    Faults,
    /// Records can be corrupted: [`Instance::corrupt`].
    Corruption,
    /// A room can be put at any epoch: [`Instance::plant_epoch`].
    Epochs,
    /// Several servers hold the data and can be cut off from one another: [`Instance::replicas`].
    Replicas,
    /// An acknowledged write survives even if all servers are killed at once, since each write is synced first.
    Synced,
    /// A client can answer decisions from memory for a bounded time: [`Instance::open_bounded`].
    Bounded,
    /// The clients' clocks can be moved as if the machine had been suspended: [`Instance::suspend`].
    Suspend,
    /// The store's writes to its files can be recorded, so that the suite can make every state that a power cut
    /// could leave: [`Instance::files`], or [`Instance::record`] and [`Instance::put_back`]. Needs
    /// [`Need::Processes`], too.
    PowerCuts,
    /// The data can go back to an earlier state: [`Target::rewinds`], [`Instance::remember`] and
    /// [`Instance::rewind`].
    Rewind,
    /// Other data can replace them while clients are open: [`Target::replacements`] and
    /// [`Instance::replace`].
    Replace,
    /// Records can vanish while clients are open: [`Target::losses`] and [`Instance::lose`].
    Vanish,
    /// An older server or library can serve the data: [`Target::downgrades`] and [`Instance::downgrade`].
    Downgrade,
    /// Writes are acknowledged before they are synced, so a power cut may lose them. Needs [`Need::PowerCuts`], too.
    Unsynced,
}

impl Need {
    /// Every need.
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

/// A target's answer to a [`Need`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The target has this ability.
    Claimed,
    /// The target lacks it, for this reason.
    Declined(&'static str),
}

/// A failure of something that a store depends on, such as a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens, in words. [`Instance::inject`] knows the fault by this name.
    pub name: &'static str,
    /// Whether reads and decisions fail during the fault. If they do not, their answers must be right.
    pub stops_reads: bool,
    /// Whether writes fail during the fault.
    pub stops_writes: bool,
}

/// A stored record that [`Instance::corrupt`] overwrites.
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
    /// The stored format version. Corrupting it sets a version that is newer than the store knows.
    Version,
}

/// A kind of store, of which the suite makes as many as it needs.
///
/// Only three methods have no default. An ability whose methods a target leaves out is reported as not claimed.
/// `README.md` has a complete target in some thirty lines.
#[async_trait]
pub trait Target: Send + Sync {
    /// The target's unique name: short, lower-case, without spaces. The name heads a column of the matrix and begins
    /// every test's name.
    fn name(&self) -> &str;

    /// The `op_timeout` of the stores that the target makes (clause TIME-1): 1 ms to 30 s. With a longer one a
    /// store that hangs would look like a slow one.
    fn op_timeout(&self) -> Duration;

    /// The `op_timeout` of the stores that [`create_for`](Self::create_for) makes for these needs.
    ///
    /// Cases that break nothing never wait for it, so it may be long there, which helps on a busy machine. Cases
    /// that inject faults wait for it again and again.
    fn op_timeout_for(&self, _needs: &[Need]) -> Duration {
        self.op_timeout()
    }

    /// Whether the target has this ability. The answer is always the same. Called when tests are listed, so it
    /// must do no I/O.
    fn claims(&self, need: Need) -> Claim {
        let _ = need;
        Claim::Declined("the target does not offer it")
    }

    /// The faults that the target can inject; none unless it claims [`Need::Faults`].
    fn faults(&self) -> &[Fault] {
        &[]
    }

    /// The ways in which the target can put data back; none unless it claims [`Need::Rewind`]. If it does, one
    /// of them must leave the clients open.
    fn rewinds(&self) -> &[Rewind] {
        &[]
    }

    /// The ways in which the target can replace data; none unless it claims [`Need::Replace`].
    fn replacements(&self) -> &[Replacement] {
        &[]
    }

    /// The records that the target can make vanish; none unless it claims [`Need::Vanish`]. If it does, users,
    /// keys and rooms must each be among them.
    fn losses(&self) -> &[Loss] {
        &[]
    }

    /// The older servers or libraries that can serve the data; none unless it claims [`Need::Downgrade`].
    fn downgrades(&self) -> &[Downgrade] {
        &[]
    }

    /// How long a client's calls may fail after its data went back, were replaced or vanished. After that the
    /// client answers right, or fails until it is opened again (clause PAST-1).
    fn failover(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// About how many times longer a call takes than on a store in this process. Cases that repeat a call to meet
    /// a rare moment repeat it that many times less.
    fn pace(&self) -> u32 {
        1
    }

    /// Looks for what the stores need, such as the program of a server. Returns a line about what was found, for the
    /// head of the report. Called before any case; an error ends the run.
    async fn prepare(&self) -> Result<Option<String>, TargetError> {
        Ok(None)
    }

    /// Waits until the resources of all dropped instances are released. Called after the last case.
    async fn finish(&self) {}

    /// Makes an empty store, separate from every other instance.
    async fn create(&self) -> Result<Box<dyn Instance>, TargetError>;

    /// Makes an empty store for a case with these needs. If instances share servers, a store for a case that injects
    /// faults needs servers of its own.
    async fn create_for(&self, needs: &[Need]) -> Result<Box<dyn Instance>, TargetError> {
        let _ = needs;
        self.create().await
    }

    /// Finds the store with this [`Instance::address`]. Called in another process.
    async fn attach(&self, address: &str) -> Result<Box<dyn Instance>, TargetError> {
        let _ = address;
        Err(unclaimed(Need::Processes))
    }
}

/// One store's data. Dropping the instance destroys them, unless it came from [`Target::attach`].
#[async_trait]
pub trait Instance: Send + Sync {
    /// Opens a client. Several clients of the same data may be open if [`Need::Clients`] is claimed.
    async fn open(&self) -> Result<Arc<dyn Store>, Error>;

    /// Opens a client whose decisions may be out of date by up to `bound` (clause AUTH-4).
    async fn open_bounded(&self, bound: Duration) -> Result<Arc<dyn Store>, Error> {
        let _ = bound;
        Err(Error::unavailable(unclaimed(Need::Bounded)))
    }

    /// Opens a client, or fails if there are no data yet (clause DUR-4).
    async fn open_existing(&self) -> Result<Arc<dyn Store>, Error> {
        Err(Error::unavailable(unclaimed(Need::Existing)))
    }

    /// Moves the clocks of every open client as if the machine had been suspended for `time` (clause TIME-3):
    /// clocks that count suspended time advance at once, timers do not.
    async fn suspend(&self, time: Duration) -> Result<(), TargetError> {
        let _ = time;
        Err(unclaimed(Need::Suspend))
    }

    /// How many files or connections this process's clients of these data hold (clauses CLOSE-1, CLOSE-3).
    /// `None` if the target cannot tell.
    async fn held(&self) -> Result<Option<usize>, TargetError> {
        Ok(None)
    }

    /// The address by which another process finds these data.
    fn address(&self) -> Result<String, TargetError> {
        Err(unclaimed(Need::Processes))
    }

    /// Where the data's files are. No client has them open when this is called.
    fn files(&self) -> Result<Files, TargetError> {
        Err(unclaimed(Need::PowerCuts))
    }

    /// Runs `child`, which works on these data, to its end and records every write to the files. A target whose
    /// servers write the files records those servers.
    async fn record(&self, child: Command) -> Result<Recording, TargetError> {
        let files = self.files()?;
        tokio::task::spawn_blocking(move || power::record(child, &files, &[])).await?
    }

    /// Replaces the data's files by these. No client has used the data before.
    async fn put_back(&self, contents: &Contents) -> Result<(), TargetError> {
        contents.lay_out(&self.files()?.folder)
    }

    /// Begins one of the [`Target::faults`]. No two faults are active at once.
    async fn inject(&self, fault: &Fault) -> Result<(), TargetError> {
        let _ = fault;
        Err(unclaimed(Need::Faults))
    }

    /// Ends the injected fault, if there is one.
    async fn heal(&self) -> Result<(), TargetError> {
        Err(unclaimed(Need::Faults))
    }

    /// Overwrites a stored record with bytes that no store writes.
    async fn corrupt(&self, record: &Stored) -> Result<(), TargetError> {
        let _ = record;
        Err(unclaimed(Need::Corruption))
    }

    /// Copies the data for a later [`rewind`](Self::rewind). Clients stay open and do not write; their calls may
    /// fail during the copy.
    async fn remember(&self) -> Result<(), TargetError> {
        Err(unclaimed(Need::Rewind))
    }

    /// Puts back the data that [`remember`](Self::remember) copied, in one of the ways of [`Target::rewinds`]. Called
    /// at most once for an instance. Returns when the data can be used again.
    async fn rewind(&self, how: &Rewind) -> Result<(), TargetError> {
        let _ = how;
        Err(unclaimed(Need::Rewind))
    }

    /// Replaces the data by those of an empty store, in one of the ways of [`Target::replacements`]. A client that
    /// is opened afterwards belongs to the empty store.
    async fn replace(&self, how: &Replacement) -> Result<(), TargetError> {
        let _ = how;
        Err(unclaimed(Need::Replace))
    }

    /// Removes records behind the clients' back, one of [`Target::losses`]. Returns `false` if the servers refused
    /// to remove them.
    async fn lose(&self, how: &Loss) -> Result<bool, TargetError> {
        let _ = how;
        Err(unclaimed(Need::Vanish))
    }

    /// Lets one of [`Target::downgrades`] serve the data from now on.
    async fn downgrade(&self, to: &Downgrade) -> Result<(), TargetError> {
        let _ = to;
        Err(unclaimed(Need::Downgrade))
    }

    /// Undoes [`downgrade`](Self::downgrade).
    async fn upgrade(&self) -> Result<(), TargetError> {
        Err(unclaimed(Need::Downgrade))
    }

    /// The servers, if [`Need::Replicas`] is claimed.
    fn replicas(&self) -> Result<&dyn Replicas, TargetError> {
        Err(unclaimed(Need::Replicas))
    }

    /// The target's counts of its clients' work, such as retries, for the report. Counts of zero are included.
    fn reached(&self) -> Reached {
        Reached::new()
    }

    /// Puts an encrypted room at `epoch`, as if it had been rekeyed that often with its current keys.
    async fn plant_epoch(&self, room: &RoomId, epoch: Epoch) -> Result<(), TargetError> {
        let _ = (room, epoch);
        Err(unclaimed(Need::Epochs))
    }
}

/// Harm to one server of a replicated store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Harm {
    /// The server and the other servers do not reach each other. The server's clients still reach it.
    Isolate,
    /// The links to the other servers and to the clients stay open and carry nothing.
    Blackhole,
    /// The process is killed (`SIGKILL`); [`Replicas::heal`] starts it again on its data.
    Kill,
    /// The process is paused (`SIGSTOP`); [`Replicas::heal`] lets it go on.
    Pause,
    /// The process is asked to end (`SIGTERM`); [`Replicas::heal`] starts it again on its data.
    Stop,
    /// Messages from the server to the others never arrive; messages from the others to the server do.
    Mute,
    /// Messages from the others to the server never arrive; messages from the server to the others do.
    Deafen,
    /// The links to the other servers and to the clients delay by a tenth of a second in each direction.
    Slow,
}

/// The servers of a replicated store ([`Need::Replicas`]).
#[async_trait]
pub trait Replicas: Send + Sync {
    /// How many servers hold the data: an odd number, at least three.
    fn count(&self) -> usize;

    /// The parts of the data that each elect a leader of their own, such as buckets.
    fn parts(&self) -> &[&'static str];

    /// Opens a client that can reach this server only.
    async fn open_at(&self, server: usize) -> Result<Arc<dyn Store>, Error>;

    /// The server that a client of this store is connected to; the first one if clients have no server of their
    /// own.
    async fn connected(&self) -> Result<usize, TargetError> {
        Ok(0)
    }

    /// As [`open_at`](Self::open_at), with decisions that may be out of date by up to `bound`
    /// ([`Need::Bounded`]).
    async fn open_bounded_at(
        &self,
        server: usize,
        bound: Duration,
    ) -> Result<Arc<dyn Store>, Error> {
        let _ = (server, bound);
        Err(Error::unavailable(unclaimed(Need::Bounded)))
    }

    /// How long calls may fail after a minority was harmed, and after all harm ended (clause FAULT-1): the time
    /// for an election, and for a client to connect to another server.
    fn failover(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// Makes this server the leader of `part`. Returns once most servers agree that it leads.
    async fn lead(&self, server: usize, part: &str) -> Result<(), TargetError>;

    /// The leader of `part`, as most servers report it.
    async fn leader(&self, part: &str) -> Result<usize, TargetError>;

    /// Harms one server, in addition to earlier harm. Returns when the harm has begun, not when the other servers
    /// have noticed.
    async fn harm(&self, server: usize, harm: Harm) -> Result<(), TargetError>;

    /// Ends all harm. Returns when every server serves again.
    async fn heal(&self) -> Result<(), TargetError>;

    /// Changes the number of servers that keep the data, while clients go on. Returns when each of them has all
    /// data.
    async fn keep_by(&self, count: usize) -> Result<(), TargetError>;
}

/// The error of a target's method whose need the target does not claim.
#[derive(Debug, thiserror::Error)]
#[error("the target claims no {0}, and must not be asked for it")]
pub struct Unclaimed(pub Need);

fn unclaimed(need: Need) -> TargetError {
    Unclaimed(need).into()
}
